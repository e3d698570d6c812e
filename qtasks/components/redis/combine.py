"""Enqueues that come while another one is under way travel together: one script call for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from qtasks.components.redis.wire import CHUNK

T = TypeVar("T")
V = TypeVar("V")


class _Waiting(NamedTuple, Generic[T, V]):
    items: Sequence[T]
    future: asyncio.Future[list[V]]


class Combiner(Generic[T, V]):
    """Sends batches one after the other; whoever comes meanwhile is in the next one.

    A caller that is alone is served at once: it sends its own batch, and waits for nobody. After a crowd, callers
    are taken for a crowd again: all that come in the same turn of the loop, as with `asyncio.gather`, travel together.

    Parameters:
        send: sends a batch and gives a verdict per item.
    """

    def __init__(self, send: Callable[[Sequence[T]], Awaitable[list[V]]]) -> None:
        self._send = send
        self._busy = False
        self._crowded = False
        self._waiting: list[_Waiting[T, V]] = []
        self._sender: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[T]) -> list[V]:
        """The verdicts on these items. Raises what `send` raises."""
        if self._busy or self._crowded:
            future: asyncio.Future[list[V]] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(items, future))
            if not self._busy:
                self._busy = True
                self._sender = asyncio.create_task(self._serve(), name="qtasks-redis-combine")
            return await future
        self._busy = True
        try:
            return await self._send(items)
        finally:
            if self._waiting:
                self._sender = asyncio.create_task(self._serve(), name="qtasks-redis-combine")
            else:
                self._busy = False

    async def _serve(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                self._crowded = len(group) > 1
                try:
                    verdicts = await self._send([item for each in group for item in each.items])
                except Exception as error:
                    for each in group:
                        if not each.future.done():
                            each.future.set_exception(error)
                    continue
                at = 0
                for each in group:
                    if not each.future.done():
                        each.future.set_result(verdicts[at : at + len(each.items)])
                    at += len(each.items)
        finally:
            self._busy = False

    def _next_group(self) -> list[_Waiting[T, V]]:
        count = size = 0
        while count < len(self._waiting) and (count == 0 or size + len(self._waiting[count].items) <= CHUNK):
            size += len(self._waiting[count].items)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group
