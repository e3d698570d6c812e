"""One connection for all the commands of a process: written as they come, answered in their order.

Concurrent commands share a packet by themselves. A command that was sent is never sent again, and
never taken back: when its caller is cancelled, the reply is read and dropped. So neither hazard of a
pool can happen here, a repeated script or a reply that goes to the next caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from qtasks.components.redis.faults import Disconnected
from qtasks.errors import NotStartedError

# Other errors, their subclasses among them (NOAUTH, LOADING), are the reply to one command.
_BROKEN = (RedisConnectionError, RedisTimeoutError, InvalidResponse)


class Multiplexer:
    """A connection that many coroutines use at once.

    Parameters:
        connect: makes a connection and connects it.
        timeout: seconds that the oldest reply may take; then the connection counts as lost.
    """

    def __init__(self, connect: Callable[[], Awaitable[AbstractConnection]], timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._open = False
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._out: list[bytes] = []
        self._more: asyncio.Event | None = None

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

    async def call(self, data: bytes) -> Any:
        """Sends one packed command and gives its reply.

        Raises:
            RedisError: the server answered with an error, or the connection was lost (`Disconnected`).
            NotStartedError: it is not open.
        """
        if self._connection is None:
            await self._ready()
        return await self.send(data)

    async def ready(self) -> None:
        """Connects if it is not connected. Until the next `await`, `send` may be used then.

        Raises: as `call`.
        """
        if self._connection is None:
            await self._ready()

    def send(self, data: bytes) -> asyncio.Future[Any]:
        """Sends one packed command over the connection that `ready` found."""
        if self._more is None:
            raise NotStartedError("The connection to Redis is not open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.append((future, loop.time()))
        self._out.append(data)
        self._more.set()
        if self._watch is None:
            self._watch = loop.call_later(self._timeout, self._check_time)
        return future

    async def _ready(self) -> None:
        while self._connection is None:
            if not self._open:
                raise NotStartedError("The connection to Redis is not open")
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(self._establish(), name="qtasks-redis-connect")
                # When all who wait are cancelled, nobody is left to look at its error.
                self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Shielded: whoever is cancelled must not take the connection from the others.
            await asyncio.shield(self._connecting)

    async def _establish(self) -> None:
        connection = await self._connect()
        self._more = asyncio.Event()
        self._out = []
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection), name="qtasks-redis-read")
        self._writer = asyncio.create_task(self._write(connection, self._more), name="qtasks-redis-write")

    async def _write(self, connection: AbstractConnection, more: asyncio.Event) -> None:
        try:
            while True:
                await more.wait()
                more.clear()
                out, self._out = self._out, []
                await connection.send_packed_command([b"".join(out)], check_health=False)
        except (RedisError, OSError) as error:
            self._lost(connection, error)

    async def _read(self, connection: AbstractConnection) -> None:
        pending = self._pending
        read = connection.read_response
        while True:
            try:
                reply = await read(disable_decoding=True, disconnect_on_error=False)
            except (RedisError, OSError) as error:
                if not pending or type(error) in _BROKEN or isinstance(error, OSError):
                    self._lost(connection, error)
                    return
                future, _ = pending.popleft()
                if not future.done():
                    future.set_exception(error)
            else:
                if not pending:
                    self._lost(connection, InvalidResponse("a reply that nobody asked for"))
                    return
                future, _ = pending.popleft()
                if not future.done():  # its caller was cancelled: the reply is dropped
                    future.set_result(reply)

    def _check_time(self) -> None:
        self._watch = None
        if not self._pending or self._connection is None:
            return
        loop = asyncio.get_running_loop()
        left = self._pending[0][1] + self._timeout - loop.time()
        if left > 0:
            self._watch = loop.call_later(left, self._check_time)
        else:
            self._lost(self._connection, RedisTimeoutError(f"no reply within {self._timeout:g} s"))

    def _lost(self, connection: AbstractConnection, error: BaseException) -> None:
        if self._connection is connection:
            self._discard(error)
            self._closing = asyncio.create_task(_disconnect(connection), name="qtasks-redis-disconnect")

    def _discard(self, error: BaseException) -> None:
        self._connection = None
        for task in (self._reader, self._writer):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._out = []
        pending, self._pending = self._pending, deque()
        for future, _ in pending:
            if not future.done():
                lost = Disconnected(f"the connection was lost before the reply: {error}")
                lost.__cause__ = error
                future.set_exception(lost)

    async def _drop(self, error: BaseException) -> None:
        connection, reader, writer = self._connection, self._reader, self._writer
        if connection is not None:
            self._discard(error)
            await asyncio.gather(*(task for task in (reader, writer) if task), return_exceptions=True)
            await _disconnect(connection)


async def _disconnect(connection: AbstractConnection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        return  # it is gone, which is what was wanted
