"""What takes the tasks that a Redis broker hands over, and a connection to it that can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qtasks.components.primitives import DeliveryHandle, QueueSize
from qtasks.components.redis import RedisBroker
from qtasks.schemas import TaskRecord
from tests.support.redis_pair import QUEUE, Trio, opened
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

WAIT = 20.0
"""Seconds after which a test counts as stuck. Nothing waits that long when all is well."""


class Worker:
    """What takes tasks, as far as a broker knows it."""

    def __init__(self, broker: RedisBroker, owner: str = "me") -> None:
        self.broker, self.owner = broker, owner
        self.at_rest = True
        self.taken: list[tuple[DeliveryHandle, TaskRecord]] = []
        self._more = asyncio.Event()
        broker.hand_to(self)

    def take(self, claimed: list[tuple[DeliveryHandle, TaskRecord]]) -> None:
        self.taken += claimed
        self._more.set()

    async def rests(self, n: int = 10, queues: tuple[str, ...] = QUEUE, lease: float = 30.0) -> Any:
        """Claims, and with that registers."""
        await self.broker.link.notifier.ensure(WAIT)
        return await self.broker.claim_and_start(n, queues, self.owner, lease)

    async def gets(self, count: int = 1) -> tuple[DeliveryHandle, TaskRecord]:
        """Waits until it was handed so many; gives the last."""
        async with asyncio.timeout(WAIT):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()
        return self.taken[-1]


def size(sizes: dict[str, QueueSize], queue: str = "default") -> tuple[int, int]:
    found = sizes.get(queue, QueueSize())
    return found.ready, found.leased


def through(proxy: TcpProxy, url: str) -> str:
    """The same server by way of a proxy."""
    return url.replace(f":{proxy.server_port}/", f":{proxy.port}/")


@asynccontextmanager
async def behind_proxy(server: RedisServer, url: str) -> AsyncIterator[tuple[TcpProxy, Trio]]:
    """The components over a connection that a test can hold, cut or empty."""
    async with TcpProxy(server.port) as proxy, opened(through(proxy, url)) as trio:
        yield proxy, trio
