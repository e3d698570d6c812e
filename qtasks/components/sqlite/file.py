"""An SQLite file as this process has it open: shared by the components of one event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

from qtasks.components.base import Component
from qtasks.components.sqlite.faults import backend_error
from qtasks.components.sqlite.lane import Lane
from qtasks.components.sqlite.schema import app_id, install
from qtasks.components.sqlite.settled import Settled
from qtasks.components.sqlite.watch import Watch
from qtasks.components.sqlite.writer import Apply, Context, Writer
from qtasks.errors import ConfigError, FatalError, NotStartedError, WrongLoopError

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

_files: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, SQLiteFile]] = WeakKeyDictionary()
_inherited: list[SQLiteFile] = []


class SQLiteFile:
    """The connections to one file, opened by the first component and closed with the last.

    Attributes:
        writer: takes all writes.
        watch: tells of changes.
        settled: tells of tasks that have finished.
    """

    writer: Writer
    watch: Watch
    settled: Settled

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._users = 0
        self._lock = asyncio.Lock()
        self._write = Lane(path)
        self._read = Lane(path)

    @classmethod
    def of(cls, path: Path) -> SQLiteFile:
        """The file as the running loop has it, or will have it open."""
        files = _files.setdefault(asyncio.get_running_loop(), {})
        if path not in files:
            files[path] = cls(path)
        return files[path]

    async def acquire(self, *, fsync: bool) -> None:
        """Opens the file for one more component.

        Raises:
            FatalError, TransientError: it cannot be opened, or its schema is not of this version.
        """
        async with self._lock:
            if self._users == 0:
                await self._open(fsync=fsync)
            elif fsync:
                await self._write.run(_synchronous_full)
            self._users += 1

    async def release(self) -> None:
        """Gives the file back; the last one closes it."""
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                _files.get(self._loop, {}).pop(self.path, None)
                await self.writer.close()
                self.settled.close()
                self.watch.close()
                await self._read.close()
                await self._write.close()

    @property
    def ours(self) -> bool:
        """Whether this process opened it. What a parent opened is kept, but never touched or closed: the
        threads are not there, and a close would drop the locks that this process has on the file.
        """
        if os.getpid() == self._process:
            return True
        if self not in _inherited:
            _inherited.append(self)
        return False

    def check(self) -> None:
        """Sees to it that the caller may use this connection.

        Raises:
            FatalError: this process was forked from the one that opened the file.
            WrongLoopError: another event loop opened it.
        """
        if os.getpid() != self._process:
            raise FatalError(
                f"SQLite file {self.path} was opened before a fork, and its connection must not be used in "
                "the child: open the application in the child"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(
                f"SQLite file {self.path} was opened by another event loop: close it there and open it here, "
                "or use `qtasks.sync` from another thread"
            )

    async def read(self, function: Callable[[sqlite3.Connection], R]) -> R:
        """Runs a function on the reading connection, in its thread. All its statements see the file as it was at one
        moment: a task that moves from one state to another meanwhile is in one of them.

        Raises:
            TransientError, FatalError: the file cannot be read.
        """
        try:
            return await self._read.run(partial(_at_one_moment, function))
        except sqlite3.Error as error:
            raise backend_error(error, self.path) from error

    async def number(self, app: str) -> int:
        """The number of an app in this file."""
        try:
            return await self._write.run(lambda connection: app_id(connection, app))
        except sqlite3.Error as error:
            raise backend_error(error, self.path) from error

    async def _open(self, *, fsync: bool) -> None:
        try:
            await self._write.open(fsync=fsync)
            await self._write.run(partial(install, path=self.path))
            await self._read.open(fsync=False, read_only=True)
            self.watch = Watch(self.path)
        except sqlite3.Error as error:
            await self._abandon()
            raise backend_error(error, self.path) from error
        except BaseException:
            await self._abandon()
            raise
        self.writer = Writer(self._write, self.path, self.watch.changed)
        self.settled = Settled(self.watch, self.read)

    async def _abandon(self) -> None:
        await self._read.close()
        await self._write.close()
        _files.get(self._loop, {}).pop(self.path, None)


def _synchronous_full(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = FULL")


class SQLitePart(Component):
    """What broker, storage and global config on a file have in common."""

    # The writer's thread needs the lock after each statement. With the 5 ms of CPython a drain took a quarter longer.
    switch_interval = 0.0005

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        if os.fspath(path) == ":memory:" or not os.fspath(path):
            raise ConfigError("an SQLite file cannot be shared in memory: give a path, or use memory://")
        self.path = Path(path).expanduser().resolve()
        self._file: SQLiteFile | None = None
        self._number = 0

    @property
    def locality(self) -> str:
        """Names the file and the app in it."""
        return f"sqlite:{self.path}:{self.app_name}"

    async def open(self) -> None:
        """Opens the file, unless this component has it open."""
        if self._file is not None and self._file.ours:
            self._file.check()
            return
        file = SQLiteFile.of(self.path)
        await file.acquire(fsync=self.config.durability == "fsync")
        try:
            self._number = await file.number(self.app_name)
        except BaseException:
            await file.release()
            raise
        self._file = file

    async def close(self) -> None:
        """Gives the file back. What has been handed in is written first."""
        file, self._file = self._file, None
        if file is not None and file.ours:
            await file.release()

    def _opened(self) -> SQLiteFile:
        if self._file is None:
            raise NotStartedError(f"{type(self).__name__} is not open: use it inside `async with app:`")
        self._file.check()
        return self._file

    def _context(self) -> Context:
        return Context(self._number, self.clock, self.config.missing_grace, self.config.dead_ttl)

    async def _submit(
        self, apply: Apply[I, R], items: Sequence[I], on_bad: Callable[[I, BaseException], R] | None = None
    ) -> list[R]:
        return await self._opened().writer.submit(apply, self._context(), items, on_bad)

    async def _do(self, apply: Apply[I, R], item: I) -> R:
        return (await self._submit(apply, (item,)))[0]


def _at_one_moment(function: Callable[[sqlite3.Connection], R], connection: sqlite3.Connection) -> R:
    connection.execute("BEGIN")
    try:
        return function(connection)
    finally:
        connection.rollback()  # it wrote nothing; and there is nothing to end where SQLite ended it by an error
