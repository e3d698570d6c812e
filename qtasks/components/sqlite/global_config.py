"""The SQLite global config: values in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

from qtasks.codec import decode, encode
from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Capabilities, Versioned
from qtasks.components.sqlite.file import SQLitePart
from qtasks.components.sqlite.writer import Context

_LIVE = "(expires_at IS NULL OR expires_at > ?)"


class Put(NamedTuple):
    """One call of `GlobalConfig.put`, the value encoded."""

    name: str
    key: str
    value: bytes
    ttl: float | None
    if_version: int | None


class Delete(NamedTuple):
    """One call of `GlobalConfig.delete`."""

    name: str
    key: str
    if_version: int | None


class SQLiteGlobalConfig(SQLitePart, GlobalConfig):
    """Shares values between the processes of one machine through a file.

    Parameters:
        path: the file; made if it does not exist.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(durable=True, shared=True, fsync=True)

    async def put(
        self, name: str, key: str, value: Any, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        return await self._do(_put, Put(name, key, encode(value), ttl, if_version))

    async def fetch(self, name: str, key: str) -> Versioned | None:
        rows = await self._rows("name = ? AND key = ?", name, key)
        return rows[0][2] if rows else None

    async def fetch_all(self, name: str) -> dict[str, Versioned]:
        return {key: found for _, key, found in await self._rows("name = ?", name)}

    async def match(self, pattern: str) -> dict[str, dict[str, Versioned]]:
        matched: dict[str, dict[str, Versioned]] = {}
        # By fnmatch and not by SQLite's GLOB, whose classes differ.
        for name, key, found in await self._rows("1"):
            if fnmatchcase(f"{name}:{key}", pattern):
                matched.setdefault(name, {})[key] = found
        return matched

    async def delete(self, name: str, key: str, if_version: int | None = None) -> bool:
        return await self._do(_delete, Delete(name, key, if_version))

    async def flush(self) -> None:
        await self._do(_flush, None)

    async def _rows(self, where: str, *values: Any) -> list[tuple[str, str, Versioned]]:
        number, now = self._number, self.clock()
        rows = await self._opened().read(
            lambda connection: connection.execute(
                f"SELECT name, key, value, version FROM config WHERE app = ? AND {_LIVE} AND {where} "
                "ORDER BY name, key",
                (number, now, *values),
            ).fetchall()
        )
        return [(name, key, Versioned(decode(value), version)) for name, key, value, version in rows]


def _present(connection: sqlite3.Connection, app: int, name: str, key: str, now: float) -> int:
    row = connection.execute(
        f"SELECT version FROM config WHERE app = ? AND {_LIVE} AND name = ? AND key = ?",
        (app, now, name, key),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _put(connection: sqlite3.Connection, context: Context, items: Sequence[Put]) -> list[int | None]:
    versions: list[int | None] = []
    for item in items:
        now = context.clock()
        if item.if_version is not None and item.if_version != _present(
            connection, context.app, item.name, item.key, now
        ):
            versions.append(None)
            continue
        # One counter for all keys: a key that is deleted and set again does not repeat a version.
        (version,) = connection.execute(
            "UPDATE apps SET version = version + 1 WHERE id = ? RETURNING version", (context.app,)
        ).fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO config (app, name, key, value, version, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                context.app,
                item.name,
                item.key,
                item.value,
                version,
                None if item.ttl is None else now + item.ttl,
            ),
        )
        versions.append(version)
    if any(item.ttl is not None for item in items):
        # Signs of life end here, so that the table does not grow with every server there ever was.
        connection.execute(
            "DELETE FROM config WHERE app = ? AND expires_at <= ?", (context.app, context.clock())
        )
    return versions


def _delete(connection: sqlite3.Connection, context: Context, items: Sequence[Delete]) -> list[bool]:
    done = []
    for item in items:
        present = _present(connection, context.app, item.name, item.key, context.clock())
        fits = present != 0 and item.if_version in (None, present)
        if fits:
            connection.execute(
                "DELETE FROM config WHERE app = ? AND name = ? AND key = ?",
                (context.app, item.name, item.key),
            )
        done.append(fits)
    return done


def _flush(connection: sqlite3.Connection, context: Context, items: Sequence[None]) -> list[None]:
    connection.execute("DELETE FROM config WHERE app = ?", (context.app,))
    return [None] * len(items)
