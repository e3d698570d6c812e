"""Waiting for tasks to finish: notifications say whose turn it is, one query reads them all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from qtasks.schemas import TaskRecord
from qtasks_postgres.link import PostgresLink
from qtasks_postgres.rows import COLUMNS, shown_record

LOOK_AGAIN: Final = 5.0
"""Seconds after which a waiter looks by itself, should a notification be lost on the way."""
POLL: Final = 0.1
"""The same where nobody listens, because the server is away."""

_ENDED: Final = f"SELECT {COLUMNS} FROM tasks WHERE app = %s AND uuid = ANY (%s) AND status + 0 > 1"
_OPEN: Final = "SELECT uuid FROM tasks WHERE app = %s AND uuid = ANY (%s) AND status + 0 <= 1"


class Settled:
    """Gives finished records to those who wait for them.

    Parameters:
        link: the connections.
        app: the number of the app.
    """

    def __init__(self, link: PostgresLink, app: int) -> None:
        self._link = link
        self._app = app
        self._waiting: dict[UUID, set[asyncio.Future[TaskRecord]]] = {}
        self._pending: set[UUID] = set()
        self._task: asyncio.Task[None] | None = None
        self._listener = link.listener
        self._listener.subscribe(app, self._told)

    def close(self) -> None:
        """Ends the waiting."""
        self._listener.unsubscribe(self._app, self._told)

    async def wait(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        """The finished record; `None` after `timeout` seconds.

        Raises:
            LookupError: there is no such record (any more).
            TransientError, FatalError: it cannot be read.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        future: asyncio.Future[TaskRecord] = loop.create_future()
        self._waiting.setdefault(uuid, set()).add(future)
        try:
            while not future.done():
                patience = LOOK_AGAIN if deadline is None else max(0.0, deadline - loop.time())
                listening = await self._listener.start(min(patience, POLL))
                self._look({uuid})  # after the listening began, so that nothing falls between
                left = None if deadline is None else max(0.0, deadline - loop.time())
                pause = LOOK_AGAIN if listening else POLL
                await asyncio.wait((future,), timeout=pause if left is None else min(left, pause))
                if left is not None and left <= pause and not future.done():
                    return None
            return future.result()
        finally:
            if not future.done():
                future.cancel()
            waiting = self._waiting.get(uuid)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[uuid]

    def _told(self, ended: frozenset[UUID] | None) -> None:
        self._look(self._waiting if ended is None else ended & self._waiting.keys())

    def _look(self, uuids: Iterable[UUID]) -> None:
        self._pending.update(uuids)
        if self._pending and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._serve(), name="qtasks-postgres settled")

    async def _serve(self) -> None:
        while self._pending:
            uuids, self._pending = list(self._pending), set()
            try:
                ended = {row[0]: row for row in await self._read(_ENDED, uuids)}
                left = [uuid for uuid in uuids if uuid not in ended]
                there = {row[0] for row in await self._read(_OPEN, left)} if left else set()
                # What ended between the two looks is in neither.
                again = [uuid for uuid in left if uuid not in there]
                ended |= {row[0]: row for row in await self._read(_ENDED, again)} if again else {}
            except Exception as error:
                for uuid in uuids:
                    self._resolve(uuid, error)
                continue
            for uuid in uuids:
                if uuid in ended:
                    self._resolve(uuid, shown_record(ended[uuid]))
                elif uuid not in there:
                    self._resolve(uuid, LookupError(f"there is no task {uuid}"))

    async def _read(self, statement: str, uuids: list[UUID]) -> list[Any]:
        return await self._link.run(statement, (self._app, uuids), binary=True)

    def _resolve(self, uuid: UUID, result: TaskRecord | Exception) -> None:
        for future in self._waiting.pop(uuid, ()):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
