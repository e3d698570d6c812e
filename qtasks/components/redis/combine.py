"""Enqueues that come while another one is under way travel together: one script call for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from qtasks.components.redis.wire import CHUNK

GROUP = 32
"""Items that are worth a call of their own while another one is under way."""
FLIGHTS = 2
"""Calls under way at most: while the server works at one, the callers of the other make their next."""

T = TypeVar("T")
V = TypeVar("V")


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
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[list[V]]]] = deque()
        self._size = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, items: Sequence[T]) -> Awaitable[list[V]]:
        """The verdicts on these items, to be awaited at once. Raises what `send` raises."""
        # Whoever waits already is first, also before one that calls again in the turn in which its last call ended.
        if not (self._flying or self._crowded or self._waiting):
            return self._alone(items)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[V]] = loop.create_future()
        self._waiting.append((items, future))
        self._size += len(items)
        if not self._turn_ends:
            self._go_on(loop)
        return future

    async def _alone(self, items: Sequence[T]) -> list[V]:
        self._flying += 1
        try:
            return await self._send(items)
        finally:
            self._flying -= 1
            if self._waiting:
                self._go_on(asyncio.get_running_loop())

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sends what waits when the turn ends, so that all that come in it travel together: if nothing is under way, or
        if it is worth a call."""
        if self._turn_ends or self._flying >= FLIGHTS or not self._waiting:
            return
        if not self._flying or self._size >= GROUP:
            self._turn_ends = True
            loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        groups = min(FLIGHTS - self._flying, self._size // GROUP)
        if not groups and self._waiting and not self._flying:
            groups = 1
        for left in range(groups, 0, -1):
            group = self._next_group(-(-self._size // left))
            self._crowded = len(group) > 1
            self._flying += 1
            task = asyncio.create_task(self._serve(group), name="qtasks-redis-combine")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, group: list[tuple[Sequence[T], asyncio.Future[list[V]]]]) -> None:
        try:
            verdicts = await self._send([item for items, _ in group for item in items])
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            at = 0
            for items, future in group:
                size = len(items)
                if not future.done():
                    future.set_result(verdicts[at : at + size])
                at += size
        finally:
            self._flying -= 1
            self._go_on(asyncio.get_running_loop())

    def _next_group(self, wanted: int) -> list[tuple[Sequence[T], asyncio.Future[list[V]]]]:
        """Whoever has waited longest, until they have so many items, and not more than a call may take."""
        group: list[tuple[Sequence[T], asyncio.Future[list[V]]]] = []
        size, waiting = 0, self._waiting
        while waiting and (not group or (size < wanted and size + len(waiting[0][0]) <= CHUNK)):
            each = waiting.popleft()
            size += len(each[0])
            group.append(each)
        self._size -= size
        return group
