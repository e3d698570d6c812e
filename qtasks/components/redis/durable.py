"""Writes that are acknowledged only when they are on disk, or on a replica.

`WAITAOF` and `WAIT` speak for all earlier writes of their connection and block it meanwhile. So such
writes have a connection of their own, and one wait serves all that came together.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from qtasks.components.redis.mux import Multiplexer
from qtasks.components.redis.scripts import pack
from qtasks.errors import NotStartedError


class DurableLane:
    """Group commit over a connection of its own.

    Parameters:
        mux: the connection.
        durability: what is waited for.
        timeout: seconds that the wait may take.
    """

    def __init__(self, mux: Multiplexer, durability: Literal["fsync", "replica"], timeout: float) -> None:
        self._mux = mux
        self._durability = durability
        limit = b"%d" % max(1, int(timeout * 1000))
        self._wait = pack(
            [b"WAITAOF", b"1", b"0", limit] if durability == "fsync" else [b"WAIT", b"1", limit]
        )
        self._waiting: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._committer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects."""
        await self._mux.open()

    async def close(self) -> None:
        """Disconnects; what is under way fails."""
        await self._mux.close()
        if self._committer is not None:
            await asyncio.wait([self._committer])

    async def reset(self) -> None:
        """As `Multiplexer.reset`."""
        await self._mux.reset()

    async def call(self, data: bytes) -> Any:
        """Sends a packed command; gives its reply when what it wrote is durable.

        Raises:
            RedisError: as `Multiplexer.call`; a timeout where it was written but is not known to be durable.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, future))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit(), name="qtasks-redis-durable")
        return await future

    async def _commit(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await self._mux.ready()
                sent = [self._mux.send(data) for data, _ in group]
                sent.append(self._mux.send(self._wait))
                *replies, waited = await asyncio.gather(*sent, return_exceptions=True)
            except (RedisError, OSError, NotStartedError) as error:  # the last one: closed meanwhile
                replies, waited = [error] * len(group), 0
            for (_, future), reply in zip(group, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, BaseException):
                    future.set_exception(reply)
                elif isinstance(waited, BaseException):
                    future.set_exception(waited)
                elif (waited[0] if isinstance(waited, list) else waited) < 1:
                    goal = "on disk" if self._durability == "fsync" else "on a replica"
                    future.set_exception(RedisTimeoutError(f"written, but not {goal} in time"))
                else:
                    future.set_result(reply)
