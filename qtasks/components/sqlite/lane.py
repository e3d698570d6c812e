"""A connection in its own thread, through aiosqlite, on which whole functions run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from qtasks.components.sqlite.faults import backend_error
from qtasks.components.sqlite.schema import BUSY_TIMEOUT, prepare

T = TypeVar("T")

Job = Callable[[sqlite3.Connection], None]


class _Connection(sqlite3.Connection):
    """A connection whose `commit` carries out what was handed in.

    aiosqlite takes one trip between the threads for each statement; a transaction of many statements
    would pay for each of them, and wait for the interpreter lock each time. So a lane hands in a
    function and asks aiosqlite for a commit: one trip.
    """

    jobs: deque[Job]

    def commit(self) -> None:
        self.jobs.popleft()(self)


class Lane:
    """Runs functions on one connection, in the order they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: deque[Job] = deque()
        self._db: aiosqlite.Connection | None = None

    async def open(self, *, fsync: bool, read_only: bool = False) -> None:
        """Connects.

        Raises:
            FatalError, TransientError: the file cannot be opened.
        """

        def factory(*args: Any, **options: Any) -> _Connection:
            connection = _Connection(*args, **options)
            connection.jobs = self._jobs
            return connection

        connecting = aiosqlite.connect(
            self._path, factory=factory, isolation_level=None, timeout=BUSY_TIMEOUT, cached_statements=512
        )
        # A program that ends without closing must not hang on this thread; SQLite is safe against that.
        thread: Any = getattr(connecting, "_thread", connecting)
        thread.daemon = True
        try:
            self._db = await connecting
            await self.run(lambda connection: prepare(connection, fsync=fsync))
            if read_only:
                await self.run(lambda connection: connection.execute("PRAGMA query_only = 1"))
        except sqlite3.Error as error:
            if self._db is None:
                # aiosqlite ends the thread of a failed connection by itself, but does not wait for it;
                # it would report to a loop that may be closed by then.
                await asyncio.to_thread(thread.join)
            await self.close()
            raise backend_error(error, self._path) from error

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a function in the connection's thread; it runs to its end also when the caller is cancelled."""
        if self._db is None:
            raise sqlite3.ProgrammingError("the connection is closed")
        outcome: list[T] = []
        self._jobs.append(lambda connection: outcome.append(function(connection)))
        await self._db.commit()
        return outcome[0]

    async def close(self) -> None:
        """Disconnects after what is under way."""
        db, self._db = self._db, None
        if db is not None:
            await db.close()
