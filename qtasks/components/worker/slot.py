"""One task in its slot: what is running, and how it may be stopped from outside."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from qtasks.components.primitives import DeliveryHandle

if TYPE_CHECKING:
    from qtasks.schemas import TaskRecord


class Stop(Enum):
    """Why a running task is stopped."""

    CANCEL = "cancelled by a client"
    TIMEOUT = "ran longer than max_time"
    LOST = "its lease was lost"
    SHUTDOWN = "the worker shuts down"


class Slot:
    """A claimed task from its start to its end.

    Parameters:
        task: the asyncio task that runs it, which a stop interrupts.

    Attributes:
        stop: why it is being stopped, if it is.
        handle, record: the delivery, and the task's record as it was started.
        reason: what the client said, with `Stop.CANCEL`.
        deadline: loop time at which `max_time` is over; `None` without a bound.
        interrupted: whether what the slot awaited was interrupted by its stop.
    """

    __slots__ = ("_stoppable", "_task", "deadline", "handle", "interrupted", "reason", "record", "stop")

    def __init__(self, handle: DeliveryHandle, record: TaskRecord, task: asyncio.Task[object] | None) -> None:
        self.handle = handle
        self.record = record
        self.stop: Stop | None = None
        self.reason = ""
        self.deadline: float | None = None
        self.interrupted = False
        self._task = task
        self._stoppable = False

    def enter(self) -> None:
        """From here on a stop interrupts what is awaited."""
        self._stoppable = True
        self.interrupted = False
        if self.stop is not None:
            self._interrupt()

    def leave(self) -> None:
        """From here on a stop is no more than noted. Where `interrupted` is set, `take_back` comes next."""
        self._stoppable = False

    def request(self, stop: Stop, reason: str = "") -> None:
        """Stops the task, if it can still be stopped. The first reason stands; a lost lease beats it."""
        if self.stop is not None and stop is not Stop.LOST:
            return
        first = self.stop is None
        self.stop, self.reason = stop, reason
        if first and self._stoppable:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None:
            self._stoppable = False
            self.interrupted = True
            self._task.cancel()

    async def take_back(self) -> None:
        """Ends an interruption, whatever the code made of it: it may have caught it, turned it into an error of
        its own, or ended without waiting for anything again. The next task of the subworker must not meet it.

        Raises:
            CancelledError: somebody else wants the subworker cancelled.
        """
        if self._task is None:
            return
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # one that has not arrived yet arrives here
        if self._task.uncancel():
            raise asyncio.CancelledError

    def overdue(self, now: float) -> bool:
        """Whether `max_time` is over at this loop time: its lease is then no longer renewed."""
        return self.deadline is not None and now > self.deadline


class Deadlines:
    """Ends tasks at `max_time`, with one timer for all of them."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Slot]] = []
        self._count = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, slot: Slot, seconds: float) -> None:
        """Stops the slot after so many seconds, unless it has ended: `slot.deadline = None`."""
        loop = asyncio.get_running_loop()
        slot.deadline = loop.time() + seconds
        heapq.heappush(self._heap, (slot.deadline, next(self._count), slot))
        self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._heap:
            return
        first = self._heap[0][0]
        if self._timer is not None:
            if self._timer.when() <= first:
                return
            self._timer.cancel()
        self._timer = loop.call_at(first, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._heap and self._heap[0][0] <= now:
            _, _, slot = heapq.heappop(self._heap)
            if slot.deadline is not None:
                slot.request(Stop.TIMEOUT)
        while self._heap and self._heap[0][2].deadline is None:
            heapq.heappop(self._heap)  # ended: forgotten early, so that the heap stays small
        self._arm(loop)

    def close(self) -> None:
        """Forgets everything."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
