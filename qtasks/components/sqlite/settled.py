"""Waiting for tasks to finish: one query for all who wait, after each change of the file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from qtasks.components.sqlite.rows import RECORD_COLUMNS, shown_record
from qtasks.components.sqlite.sql import select_in
from qtasks.components.sqlite.watch import Watch
from qtasks.schemas import TaskRecord

Key = tuple[int, bytes]
"""A task: the number of its app, and its uuid."""


class Reader(Protocol):
    """Runs a function on a reading connection."""

    def __call__(self, function: Callable[[sqlite3.Connection], Any], /) -> Awaitable[Any]: ...


class Settled:
    """Gives the finished records to those who wait for them."""

    def __init__(self, watch: Watch, read: Reader) -> None:
        self._watch = watch
        self._read = read
        self._waiting: dict[Key, set[asyncio.Future[TaskRecord]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._joined: asyncio.Future[None] | None = None

    async def wait(self, app: int, uuid: bytes, timeout: float | None) -> TaskRecord | None:
        """The finished record; `None` after `timeout` seconds.

        Raises:
            LookupError: there is no such record (any more).
            TransientError, FatalError: the file cannot be read.
        """
        key = (app, uuid)
        future: asyncio.Future[TaskRecord] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, set()).add(future)
        self._watch_on()
        try:
            await asyncio.wait((future,), timeout=timeout)
            return future.result() if future.done() else None
        finally:
            if not future.done():
                future.cancel()
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[key]

    def close(self) -> None:
        """Ends the watching."""
        if self._task is not None:
            self._task.cancel()

    def _watch_on(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="qtasks sqlite settled")
        elif self._joined is not None and not self._joined.done():
            self._joined.set_result(None)  # what finished before the last look is news to who has come since

    async def _serve(self) -> None:
        while self._waiting:
            change = self._watch.register()
            self._joined = asyncio.get_running_loop().create_future()
            try:
                found = await self._read(partial(_look, keys=list(self._waiting)))
            except Exception as error:
                change.cancel()
                self._tell_all(error)
                return
            self._tell(found)
            if not self._waiting:
                change.cancel()
                return
            await asyncio.wait((change, self._joined), return_when=asyncio.FIRST_COMPLETED)
            change.cancel()

    def _tell(self, found: dict[Key, TaskRecord | None]) -> None:
        for key, record in found.items():
            for future in self._waiting.pop(key, ()):
                if future.done():
                    continue
                if record is None:
                    future.set_exception(LookupError(f"there is no task {key[1].hex()}"))
                else:
                    future.set_result(record)

    def _tell_all(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)


def _look(connection: sqlite3.Connection, keys: list[Key]) -> dict[Key, TaskRecord | None]:
    """The finished records of these tasks, and `None` for those that do not exist."""
    found: dict[Key, TaskRecord | None] = {}
    for app in {app for app, _ in keys}:
        own = [uuid for number, uuid in keys if number == app]
        # Open ones are told apart from missing ones without reading their payload.
        rows = select_in(connection, app, "uuid, status", "uuid", own, " AND status IS NOT NULL")
        status = dict(rows)
        done = [uuid for uuid in own if status.get(uuid, -1) >= 2]
        found.update({(app, uuid): None for uuid in own if uuid not in status})
        for row in select_in(connection, app, RECORD_COLUMNS, "uuid", done, " AND status >= 2"):
            found[app, row[0]] = shown_record(row)
    return found
