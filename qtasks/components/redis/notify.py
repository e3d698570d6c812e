"""Being told: of work, and of results. One connection of its own, one channel per process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

_log = logging.getLogger("qtasks.redis")
RECONNECT_FIRST, RECONNECT_LONGEST = 0.05, 5.0
QUIET = 20.0
"""Seconds of silence after which the connection is probed: a half-open one tells of nothing."""


class Notifier:
    """Listens on the channel of this process. Connected when it is first needed, and again when it is lost.

    Parameters:
        connect: makes a connection and connects it.
        prefix: of the app's keys and channels.
        timeout: seconds that an answer may take.

    Attributes:
        channel: where this process is told.
        work: is set when work may be there.
        generation: goes up with each connection; what was registered before may have gone unheard.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[AbstractConnection]], prefix: str, timeout: float
    ) -> None:
        self._connect = connect
        self._timeout = timeout
        self.channel = f"{prefix}tell:{os.urandom(8).hex()}".encode()
        self.work = asyncio.Event()
        self.generation = 0
        self._waiters: dict[bytes, set[asyncio.Future[bytes | None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.Event = asyncio.Event()
        self._failure: RedisError | None = None

    @property
    def used(self) -> bool:
        """Whether anybody has asked to be told."""
        return self._task is not None

    @property
    def listening(self) -> bool:
        """Whether it hears now."""
        return self._listening.is_set()

    def start(self) -> None:
        """Begins to listen, in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="qtasks-redis-notify")

    async def ensure(self, timeout: float) -> bool:
        """Waits until it hears, at most `timeout` seconds; gives whether it does.

        Raises:
            RedisError: the server refuses: the user may not subscribe.
        """
        self.start()
        if not self._listening.is_set() and timeout > 0:
            try:
                async with asyncio.timeout(timeout):
                    await self._listening.wait()
            except TimeoutError:
                pass
        if self._failure is not None:
            raise self._failure
        return self._listening.is_set()

    def register(self, uuid: bytes) -> asyncio.Future[bytes | None]:
        """A future for the finished record of a task; `None` says: look again."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(uuid, set()).add(future)
        return future

    def forget(self, uuid: bytes, future: asyncio.Future[bytes | None]) -> None:
        """Drops a future that is not waited for any more."""
        futures = self._waiters.get(uuid)
        if futures is not None:
            futures.discard(future)
            if not futures:
                del self._waiters[uuid]

    async def close(self) -> None:
        """Stops listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._look_again()

    async def _run(self) -> None:
        pause = RECONNECT_FIRST
        while True:
            connection: AbstractConnection | None = None
            try:
                connection = await self._connect()
                await connection.send_command("SUBSCRIBE", self.channel, check_health=False)
                await self._read(connection, self._timeout)
                self.generation += 1
                self._failure = None
                self._listening.set()
                self._look_again()
                pause = RECONNECT_FIRST
                await self._listen(connection)
            except (NoPermissionError, AuthenticationError) as error:
                self._failure = error
                self._listening.set()
                self._listening.clear()
            except (RedisError, OSError, TimeoutError) as error:
                _log.debug("notifications are interrupted: %s", error)
            finally:
                self._listening.clear()
                if connection is not None:
                    await connection.disconnect(nowait=True)
            self._look_again()
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_LONGEST)

    async def _listen(self, connection: AbstractConnection) -> None:
        quiet = QUIET
        reading: asyncio.Task[object] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(connection.read_response(disable_decoding=True))
                done, _ = await asyncio.wait([reading], timeout=quiet)
                if not done:
                    await connection.send_command("PING", check_health=False)
                    done, _ = await asyncio.wait([reading], timeout=self._timeout)
                    if not done:
                        raise TimeoutError("no answer to a probe")
                self._told(reading.result())
        finally:
            if reading is not None and not reading.done():
                reading.cancel()
                await asyncio.wait([reading])

    async def _read(self, connection: AbstractConnection, timeout: float) -> object:
        async with asyncio.timeout(timeout):
            return await connection.read_response(disable_decoding=True)

    def _told(self, message: object) -> None:
        if not isinstance(message, list) or message[0] != b"message":
            return  # the answer to a probe
        payload: bytes = message[2]
        if payload == b"w":
            self.work.set()
            return
        for future in self._waiters.pop(payload[:16], ()):
            if not future.done():
                future.set_result(payload[16:] or None)

    def _look_again(self) -> None:
        """What was published in the meantime was not heard: whoever waits reads for itself."""
        self.work.set()
        waiters, self._waiters = self._waiters, {}
        for futures in waiters.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)
