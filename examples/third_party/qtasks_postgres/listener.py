"""LISTEN: hears of new work and of finished tasks, over a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from qtasks_postgres.schema import channel_of
from qtasks_postgres.target import Target

log = logging.getLogger("qtasks.postgres")

RECONNECT_FIRST, RECONNECT_LONGEST = 0.05, 5.0
KEEPALIVE: Final[dict[str, Any]] = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}

Told = Callable[[frozenset[UUID] | None], object]
"""Is called with the tasks that have ended, or with `None`: look again at all."""


class Listener:
    """One connection that listens while there is somebody to tell. What it tells is a hint, no promise: after a
    lost connection everybody is told to look again.

    Parameters:
        target: the schema.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._connects = 0
        self._work: defaultdict[int, int] = defaultdict(int)
        self._changed: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._told: dict[int, list[Told]] = defaultdict(list)

    async def start(self, patience: float) -> bool:
        """Begins to listen; gives whether it does.

        Parameters:
            patience: seconds after which it goes on trying behind the caller's back.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name="qtasks-postgres listener")
        if not self._listening.is_set():
            try:
                await asyncio.wait_for(self._listening.wait(), patience)
            except TimeoutError:
                return False
        return True

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def work_seen(self, app: int) -> int:
        """A number that changes whenever work may have come, and when the listening begins (anew)."""
        return self._work[app] + self._connects

    async def work(self, app: int, seen: int, timeout: float) -> None:
        """Returns when work may have come since `work_seen` gave `seen`, at the latest after `timeout` seconds."""
        changed = self._changed[app]
        if self.work_seen(app) != seen:
            return
        changed.clear()
        try:
            await asyncio.wait_for(changed.wait(), timeout)
        except TimeoutError:
            return

    def subscribe(self, app: int, told: Told) -> None:
        """From now on this is told of tasks that have ended."""
        self._told[app].append(told)

    def unsubscribe(self, app: int, told: Told) -> None:
        """It is told no more."""
        self._told[app].remove(told)

    async def _serve(self) -> None:
        pause = RECONNECT_FIRST
        while True:
            try:
                connection = await AsyncConnection.connect(
                    self._target.conninfo, autocommit=True, connect_timeout=10, **KEEPALIVE
                )
                async with connection:
                    await self._listen(connection)
            except (psycopg.Error, OSError) as error:
                self._listening.clear()
                log.warning(
                    "%s: the listening connection is lost, trying again: %s", self._target.label, error
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_LONGEST)

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel_of(self._target.schema))))
        self._listening.set()
        self._look_again()  # what was said before this is lost
        async for notification in connection.notifies():
            try:
                self._hear(notification.payload)
            except ValueError:  # anybody may notify
                log.warning("%s: an unknown notification: %r", self._target.label, notification.payload)

    def _hear(self, payload: str) -> None:
        number, kind, *ended = payload.split(" ")
        app = int(number)
        if kind in ("w", "d"):
            self._work[app] += 1
            self._changed[app].set()
        elif kind == "s":
            uuids = frozenset(map(UUID, ended[0].split(",")))
            for told in tuple(self._told[app]):
                told(uuids)
        elif kind == "f":
            for told in tuple(self._told[app]):
                told(None)

    def _look_again(self) -> None:
        self._connects += 1
        for changed in self._changed.values():
            changed.set()
        for all_told in self._told.values():
            for told in tuple(all_told):
                told(None)
