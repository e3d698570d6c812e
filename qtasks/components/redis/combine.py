"""Enqueues that come while another one is under way travel together: one script call for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from qtasks.components.redis.wire import CHUNK

GROUP = 32
"""Items that are worth a call of their own while another one is under way."""
FLIGHTS = 2
"""Calls under way at most: while the server works at one, the callers of the other make their next."""

T = TypeVar("T")
V = TypeVar("V")


class _Waiting(NamedTuple, Generic[T, V]):
    items: Sequence[T]
    future: asyncio.Future[list[V]]


class Combiner(Generic[T, V]):
    """Sends batches; whoever comes while they are under way is in the next one.

    A caller that is alone is served at once: it sends its own batch, and waits for nobody. After a crowd, callers
    are taken for a crowd again: all that come in the same turn of the loop, as with `asyncio.gather`, travel together,
    or in two groups that take turns where they are many, so that neither client nor server waits for the other.

    Parameters:
        send: sends a batch and gives a verdict per item.
    """

    def __init__(self, send: Callable[[Sequence[T]], Awaitable[list[V]]]) -> None:
        self._send = send
        self._flying = 0
        self._crowded = False
        self._turn_ends = False
        self._waiting: list[_Waiting[T, V]] = []
        self._size = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, items: Sequence[T]) -> list[V]:
        """The verdicts on these items. Raises what `send` raises."""
        # Whoever waits already is first, also before one that calls again in the turn in which its last call ended.
        if self._flying or self._crowded or self._waiting:
            future: asyncio.Future[list[V]] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(items, future))
            self._size += len(items)
            self._go_on()
            return await future
        self._flying = 1
        try:
            return await self._send(items)
        finally:
            self._flying -= 1
            self._go_on()

    def _go_on(self) -> None:
        """Sends what waits if it is worth a call; if nothing is under way, at the latest when the turn ends."""
        if self._size >= GROUP and self._flying < FLIGHTS:
            self._start()
        elif self._waiting and not self._flying and not self._turn_ends:
            self._turn_ends = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        if self._waiting and not self._flying:
            self._start()

    def _start(self) -> None:
        self._flying += 1
        task = asyncio.create_task(self._serve(self._next_group()), name="qtasks-redis-combine")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, group: list[_Waiting[T, V]]) -> None:
        self._crowded = len(group) > 1
        try:
            verdicts = await self._send([item for each in group for item in each.items])
        except Exception as error:
            for each in group:
                if not each.future.done():
                    each.future.set_exception(error)
        else:
            at = 0
            for each in group:
                if not each.future.done():
                    each.future.set_result(verdicts[at : at + len(each.items)])
                at += len(each.items)
        finally:
            self._flying -= 1
            self._go_on()

    def _next_group(self) -> list[_Waiting[T, V]]:
        count = size = 0
        while count < len(self._waiting) and (count == 0 or size + len(self._waiting[count].items) <= CHUNK):
            size += len(self._waiting[count].items)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        self._size -= size
        return group
