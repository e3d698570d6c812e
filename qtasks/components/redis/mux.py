"""One connection for all the commands of a process: written as they come, answered in their order.

Concurrent commands share a packet by themselves. A command that was sent is never sent again, and
never taken back: when its caller is cancelled, the reply is read and dropped. So neither hazard of a
pool can happen here, a repeated script or a reply that goes to the next caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from qtasks.components.redis.faults import Disconnected
from qtasks.components.redis.protocol import Connect, Wire
from qtasks.components.redis.scripts import pack
from qtasks.errors import NotStartedError

_PING = pack([b"PING"])


class Multiplexer:
    """A connection that many coroutines use at once.

    Parameters:
        connect: connects; it is given what takes the replies, and what is told that the connection is lost.
        timeout: seconds that the oldest reply may take; then the connection counts as lost.
    """

    def __init__(self, connect: Connect, timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._open = False
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._pending: deque[tuple[asyncio.Future[Any] | None, float]] = deque()
        self._loop: asyncio.AbstractEventLoop

    async def open(self) -> None:
        """Connects.

        Raises:
            RedisError, OSError: it could not.
        """
        self._open = True
        await self._ready()

    async def close(self) -> None:
        """Disconnects; commands under way fail."""
        self._open = False
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
            self._connecting = None
        await self._drop(Disconnected("the connection was closed"))

    async def reset(self) -> None:
        """Gives the connection up; the next command connects anew, perhaps to another server."""
        await self._drop(Disconnected("the server is not the one that takes writes"))

    def call(self, data: bytes) -> Awaitable[Any]:
        """Sends one packed command; to wait for gives its reply.

        Raises:
            RedisError: the server answered with an error, or the connection was lost (`Disconnected`).
            NotStartedError: it is not open.
        """
        return self._connect_and_send(data) if self._wire is None else self.send(data)

    def tell(self, data: bytes) -> Awaitable[Any]:
        """As `call`, for a command by which another process is told of something for which it waits: if nothing else
        is under way here, that one hears of it before the reply leaves, so that the waking of this process does not
        hold it up."""
        return self._connect_and_send(data) if self._wire is None else self.send(data, tells=True)

    async def _connect_and_send(self, data: bytes) -> Any:
        await self._ready()
        return await self.send(data)

    async def ready(self) -> None:
        """Connects if it is not connected. Until the next `await`, `send` may be used then.

        Raises: as `call`.
        """
        if self._wire is None:
            await self._ready()

    def send(self, data: bytes, *, tells: bool = False) -> asyncio.Future[Any]:
        """Sends one packed command over the connection that `ready` found. `tells`: see `tell`."""
        wire = self._wire
        if wire is None:
            raise NotStartedError("The connection to Redis is not open")
        loop = self._loop
        future: asyncio.Future[Any] = loop.create_future()
        alone, now = not self._pending, loop.time()
        if alone and tells:
            # What a server has to write at the end of a turn it writes to that connection last which had something
            # first: this one, by the reply to a PING. That takes it far less than a packet which comes first.
            self._pending.append((None, now))
            data = _PING + data
        self._pending.append((future, now))
        wire.write(data, alone=alone)
        if self._watch is None:
            self._watch = loop.call_later(self._timeout, self._check_time)
        return future

    async def _ready(self) -> None:
        while self._wire is None:
            if not self._open:
                raise NotStartedError("The connection to Redis is not open")
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(self._establish(), name="qtasks-redis-connect")
                # When all who wait are cancelled, nobody is left to look at its error.
                self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Waited for, not awaited: whoever is cancelled must not take the connection from the others, and when
            # `close` ends it, they are told so instead of being cancelled.
            connecting = self._connecting
            await asyncio.wait([connecting])
            if not connecting.cancelled():
                connecting.result()

    async def _establish(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wire = await self._connect(self._answered, self._lost)

    def _answered(self, reply: Any) -> None:
        # Of errors, these two say that the connection is of no use (too many clients); others, their subclasses
        # among them (NOAUTH, LOADING), are the reply to one command.
        if not self._pending or type(reply) is RedisConnectionError:
            self._lost(
                reply if self._pending else InvalidResponse(f"a reply that nobody asked for: {reply!r:.100}")
            )
            return
        future, _ = self._pending.popleft()
        if future is None or future.done():
            return  # the reply is dropped: of a PING, or its caller was cancelled
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _check_time(self) -> None:
        self._watch = None
        if not self._pending:
            return
        left = self._pending[0][1] + self._timeout - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._check_time)
        else:
            self._lost(RedisTimeoutError(f"no reply within {self._timeout:g} s"))

    def _lost(self, error: BaseException) -> None:
        if (wire := self._discard(error)) is not None:
            closing = self._loop.create_task(wire.close(), name="qtasks-redis-disconnect")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _discard(self, error: BaseException) -> Wire | None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        pending, self._pending = self._pending, deque()
        for future, _ in pending:
            if future is not None and not future.done():
                lost = Disconnected(f"the connection was lost before the reply: {error}")
                lost.__cause__ = error
                future.set_exception(lost)
        return wire

    async def _drop(self, error: BaseException) -> None:
        if (wire := self._discard(error)) is not None:
            await wire.close()
