"""One SQLite file in one event loop: a writer thread with group commit, a reader, and the wake-up.

All writes of a process go through one thread, which takes what is waiting into one transaction and
answers after COMMIT. A caller that is cancelled leaves its write to go on; it is never half-done.
A transaction is made in one go in the thread, since each crossing between thread and loop costs
more than several statements. Reads use aiosqlite on a connection of their own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import aiosqlite

from qtasks._failpoints import hit
from qtasks.components.sqlite.schema import install, prepare
from qtasks.errors import BackendError, FatalError, TransientError, WrongLoopError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]

GROUP = 500
"""Operations in one transaction at most."""
BUSY_TRIES = 6
POLL_FIRST, POLL_LONGEST = 0.001, 0.02
"""Seconds between two looks for changes by other processes: just after one, and at rest."""
SETTLED = "SELECT uuid FROM tasks WHERE app = ? AND status >= 2 AND uuid IN ({})"
LOOK = 500


class _Operation:
    __slots__ = ("future", "job", "loop")

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()


_inherited: list[Engine] = []


class Engine:
    """The connections of one process to one file; components on the same file share it."""

    _engines: dict[tuple[Path, asyncio.AbstractEventLoop], Engine] = {}  # noqa: RUF012

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self.path = path
        self._fsync = fsync
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._users = 0
        self._opening = asyncio.Lock()
        self._opened = False
        self._jobs: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._settled: dict[tuple[int, bytes], set[asyncio.Future[None]]] = {}

    @classmethod
    async def share(cls, path: Path, *, fsync: bool) -> Engine:
        """The engine of this file in this loop, opened.

        Raises:
            FatalError: the file cannot be used.
        """
        key = (path, asyncio.get_running_loop())
        engine = cls._engines.get(key)
        if engine is None or not engine.ours:
            engine = cls._engines[key] = cls(path, fsync=fsync)
        engine._fsync = engine._fsync or fsync
        engine._users += 1
        try:
            async with engine._opening:
                if not engine._opened:
                    await engine._open()
        except BaseException:
            engine._users -= 1
            if not engine._users:
                cls._engines.pop(key, None)
            raise
        return engine

    async def release(self) -> None:
        """One user less; the last one closes it."""
        self._users -= 1
        if self._users:
            return
        self._engines.pop((self.path, self._loop), None)
        self._opened = False
        self._poller.cancel()
        await asyncio.gather(self._poller, return_exceptions=True)
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        await self._reader.close()

    async def _open(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="qtasks-sqlite", daemon=True)
        self._thread.start()
        await ready
        self._reader = await aiosqlite.connect(self.path, isolation_level=None)
        try:
            await self._reader.execute("PRAGMA busy_timeout = 5000")
            await self._reader.execute("PRAGMA query_only = 1")
            self._version = await self._data_version()
        except sqlite3.Error as error:
            await self._reader.close()
            self._jobs.put(None)
            raise translated(error, self.path) from error
        self._poller = asyncio.create_task(self._poll(), name="qtasks-sqlite-poll")
        self._opened = True

    @property
    def ours(self) -> bool:
        """Whether this process opened it. What a parent opened is kept but never touched: closing it would
        drop the locks that this process has on the same file."""
        if os.getpid() == self._pid:
            return True
        _inherited.append(self)
        return False

    def check(self) -> None:
        """Raises `WrongLoopError` in another loop or process than the one that opened it."""
        if os.getpid() != self._pid:
            raise WrongLoopError(f"{self.path} was opened before a fork: open it anew in the child")
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(f"{self.path} is open in another event loop: close it there first")

    # --- Writing ----------------------------------------------------------------------------

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a job inside a transaction that it may share with others; returns after COMMIT.

        Raises:
            TransientError: the file stayed locked, or the disk is full.
            FatalError: the file cannot be used any more.
        """
        self.check()
        operation = _Operation(job, self._loop)
        self._jobs.put(operation)
        # The write goes on when its caller is cancelled.
        result: T = await asyncio.shield(operation.future)
        return result

    def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None)
            try:
                prepare(connection, fsync=self._fsync)
                install(connection, self.path)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, BackendError) as error:
            self._tell(_fail, ready, translated(error, self.path))
            return
        self._tell(_succeed, ready, None)
        try:
            while (first := self._jobs.get()) is not None:
                group = [first]
                closing = False
                while len(group) < GROUP:
                    try:
                        following = self._jobs.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        closing = True
                        break
                    group.append(following)
                self._commit(connection, group)
                if closing:
                    break
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, group: list[_Operation]) -> None:
        for attempt in range(BUSY_TRIES):
            try:
                results = self._transaction(connection, group)
            except sqlite3.OperationalError as error:
                self._roll_back(connection)
                if "locked" in str(error) or "busy" in str(error):
                    time.sleep(random.uniform(0.005, 0.05) * 2**attempt)
                    continue
                return self._one_by_one(connection, group)
            except Exception:
                self._roll_back(connection)
                return self._one_by_one(connection, group)
            hit("sqlite.after_commit_before_reply")
            return self._answer(
                [(_succeed, op.future, result) for op, result in zip(group, results, strict=True)]
            )
        busy = TransientError(f"{self.path} is locked by another process; nothing was written")
        return self._answer([(_fail, operation.future, busy) for operation in group])

    def _transaction(self, connection: sqlite3.Connection, group: list[_Operation]) -> list[Any]:
        connection.execute("BEGIN IMMEDIATE")
        results = [operation.job(connection) for operation in group]
        hit("sqlite.before_commit")
        connection.execute("COMMIT")
        return results

    def _one_by_one(self, connection: sqlite3.Connection, group: list[_Operation]) -> None:
        """Something in the group failed: each operation again by itself, so that it fails alone."""
        answers: list[tuple[Callable[[asyncio.Future[Any], Any], None], asyncio.Future[Any], Any]] = []
        for operation in group:
            try:
                (result,) = self._transaction(connection, [operation])
                answers.append((_succeed, operation.future, result))
            except Exception as error:
                self._roll_back(connection)
                answers.append((_fail, operation.future, translated(error, self.path)))
        self._answer(answers)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _answer(self, answers: list[Any]) -> None:
        self._tell(self._resolve, answers)

    def _resolve(self, answers: list[Any]) -> None:
        for resolve, future, value in answers:
            resolve(future, value)
        self.notify()

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    # --- Reading ----------------------------------------------------------------------------

    async def read(self, sql: str, params: Any = ()) -> list[Any]:
        """All rows of a query.

        Raises:
            TransientError, FatalError: as in `write`.
        """
        self.check()
        try:
            return list(await self._reader.execute_fetchall(sql, params))
        except (sqlite3.Error, ValueError) as error:
            raise translated(error, self.path) from error

    # --- Being told -------------------------------------------------------------------------

    def notify(self) -> None:
        """The file may have changed."""
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)

    def next_change(self) -> asyncio.Future[None]:
        """Done at the next change by this or another process. Taken before looking, so that a change in between is
        not missed."""
        return self._changed

    async def wait_settled(
        self, app: int, uuid: UUID, timeout: float | None, look: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        """What `look` gives once the record is terminal; `None` after `timeout` seconds. One query serves all
        who wait."""
        key = (app, uuid.bytes)
        future: asyncio.Future[None] = self._loop.create_future()
        self._settled.setdefault(key, set()).add(future)
        try:
            # After it is registered, so that an end in between is not missed.
            found = await look()
            if found is not None:
                return found
            await asyncio.wait([future], timeout=timeout)
            return await look()
        finally:
            waiting = self._settled.get(key)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    self._settled.pop(key, None)

    async def _poll(self) -> None:
        """Looks for changes by other processes: every millisecond after one and while somebody waits, then less."""
        pause = POLL_FIRST
        changed = self._changed
        while True:
            await asyncio.wait([changed], timeout=pause)
            try:
                if not changed.done() and (version := await self._data_version()) != self._version:
                    self._version = version
                    self.notify()
                if changed.done():
                    # Taken before looking, so that what changes meanwhile is looked at next.
                    changed, pause = self._changed, POLL_FIRST
                    await self._tell_settled()
                else:
                    pause = min(pause * 1.2, POLL_LONGEST)
            except (sqlite3.Error, ValueError, BackendError):
                pause = POLL_LONGEST  # whoever writes or reads next is told what is wrong

    async def _data_version(self) -> int:
        rows = list(await self._reader.execute_fetchall("PRAGMA data_version"))
        return int(rows[0][0])

    async def _tell_settled(self) -> None:
        by_app: dict[int, list[bytes]] = {}
        for app, uuid in self._settled:
            by_app.setdefault(app, []).append(uuid)
        for app, uuids in by_app.items():
            for start in range(0, len(uuids), LOOK):
                part = uuids[start : start + LOOK]
                rows = await self.read(SETTLED.format(",".join("?" * len(part))), (app, *part))
                for (uuid,) in rows:
                    for future in self._settled.get((app, uuid), ()):
                        if not future.done():
                            future.set_result(None)


def _succeed(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def translated(error: BaseException, path: Path) -> BaseException:
    """What an error of SQLite means to the caller."""
    if isinstance(error, sqlite3.OperationalError):
        text = str(error)
        if "full" in text or "locked" in text or "busy" in text or "disk I/O" in text:
            return TransientError(f"{path}: {text}")
        return FatalError(f"{path}: {text}")
    if isinstance(error, sqlite3.DatabaseError):
        return FatalError(f"{path}: {error}; restore it from a backup, or move it away")
    return error
