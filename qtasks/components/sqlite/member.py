"""What broker, storage and global config on one SQLite file have in common."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qtasks.components.base import Component
from qtasks.components.primitives import Capabilities
from qtasks.components.sqlite.engine import Engine
from qtasks.components.sqlite.schema import app_id
from qtasks.errors import NotStartedError

T = TypeVar("T")

CAPABILITIES = Capabilities(
    durable=True, shared=True, fsync=True, notifications=True, streams=True, virtual_clock=True
)


class SQLiteMember(Component):
    """A component on an SQLite file.

    Parameters:
        path: the file; it is made when it is first opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        self._engine: Engine | None = None
        self._app = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def locality(self) -> str:
        """The file and the app: components with both in common share a transaction."""
        return f"sqlite {self.path} app {self.app_name}"

    async def open(self) -> None:
        """Opens the file, or shares it with the other components of this process."""
        if self._engine is not None and self._engine.ours:
            return
        engine = await Engine.share(self.path, fsync=self.config.durability == "fsync")
        try:
            self._app = await engine.write(lambda db: app_id(db, self.app_name))
        except BaseException:
            await engine.release()
            raise
        self._engine = engine

    async def close(self) -> None:
        """Lets the file go."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.release()

    @property
    def engine(self) -> Engine:
        """The open file.

        Raises:
            NotStartedError: it is not open.
        """
        if self._engine is None:
            raise NotStartedError(f"{self!r} is not open: use it inside `async with app:`, or call open()")
        return self._engine

    async def _write(self, job: Callable[[sqlite3.Connection, int], T]) -> T:
        app = self._app
        return await self.engine.write(lambda db: job(db, app))

    async def _read(self, sql: str, *params: Any) -> list[Any]:
        return await self.engine.read(sql, (self._app, *params))

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        """As `Broker.hold_exclusive`."""
        now = self.clock()
        return await self._write(lambda db, app: _hold(db, app, owner, now, ttl))

    async def release_exclusive(self, owner: str) -> None:
        """As `Broker.release_exclusive`."""
        await self._write(
            lambda db, app: (
                db.execute(
                    "UPDATE apps SET exclusive_owner = NULL WHERE id = ? AND exclusive_owner = ?",
                    (app, owner),
                ).rowcount
            )
        )


def _hold(db: sqlite3.Connection, app: int, owner: str, now: float, ttl: float) -> bool:
    return (
        db.execute(
            "UPDATE apps SET exclusive_owner = ?, exclusive_until = ? "
            "WHERE id = ? AND (exclusive_owner IS NULL OR exclusive_owner = ? OR exclusive_until <= ?)",
            (owner, now + ttl, app, owner, now),
        ).rowcount
        == 1
    )
