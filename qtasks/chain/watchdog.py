"""The bound on asynchronous implementations: one timer for all that wait, none for those that do not."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import Any


class Guard:
    """The deadline of one implementation that waits.

    Attributes:
        limit: seconds.
        fired: how often its task was cancelled for it.
        abandoned: whether it went on waiting after it had been cancelled.
    """

    __slots__ = ("_base", "abandoned", "done", "fired", "limit", "task")

    def __init__(self, task: asyncio.Task[Any], limit: float) -> None:
        self.task = task
        self.limit = limit
        self.fired = 0
        self.abandoned = False
        self.done = False
        self._base = task.cancelling()

    def cancel(self) -> None:
        """Cancels the task, which sits in the implementation."""
        self.abandoned = self.fired > 0
        self.fired += 1
        self.task.cancel()

    def take_back(self) -> bool:
        """Takes the own cancellations back.

        Returns:
            Whether they were the only ones: if not, somebody else wants the task cancelled, and wins.
        """
        remaining = self._base
        for _ in range(self.fired):
            remaining = self.task.uncancel()
        self.fired = 0
        return remaining <= self._base


class Watchdog:
    """Cancels implementations that wait beyond their limit. It keeps one timer, for the next deadline."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heap: list[tuple[float, int, Guard]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._done = 0
        self._numbers = count()

    def watch(self, limit: float | None) -> Guard | None:
        """Starts to watch the current task.

        Returns:
            Its guard; `None` without a limit, or outside of a task.
        """
        if not limit:
            return None
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return None
        if task is None:
            return None
        loop = task.get_loop()
        if loop is not self._loop:
            self._reset(loop)
        guard = Guard(task, limit)
        self._push(loop, guard)
        return guard

    def release(self, guard: Guard) -> None:
        """Stops to watch. The entry stays in the heap until it is due or the dead outnumber the living."""
        if guard.done:
            return
        guard.done = True
        if guard.abandoned:  # it has left the heap
            return
        self._done += 1
        if self._done > 64 and self._done * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)
            self._done = 0

    def _reset(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop, self._heap, self._timer, self._done = loop, [], None, 0

    def _push(self, loop: asyncio.AbstractEventLoop, guard: Guard) -> None:
        deadline = loop.time() + guard.limit
        heapq.heappush(self._heap, (deadline, next(self._numbers), guard))
        if self._timer is None or deadline < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(deadline, self._due)

    def _due(self) -> None:
        loop = self._loop
        self._timer = None
        if loop is None:
            return
        now = loop.time()
        while self._heap and (self._heap[0][2].done or self._heap[0][0] <= now):
            _, _, guard = heapq.heappop(self._heap)
            if guard.done:
                self._done -= 1
                continue
            guard.cancel()
            if not guard.abandoned:
                # It may clean up for as long again; after that it is given up.
                heapq.heappush(self._heap, (now + guard.limit, next(self._numbers), guard))
        if self._heap:
            self._timer = loop.call_at(self._heap[0][0], self._due)
