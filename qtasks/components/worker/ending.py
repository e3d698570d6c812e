"""The time that a shutdown has, and what becomes of that which takes longer (I10)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

log = logging.getLogger("qtasks.worker")

STOPPING = 2.0
"""Seconds that stopped tasks, and then the last results, are given."""
LAST = 3.5
"""Seconds after the deadline in which all of it is over; what is left of the 5 of I10 is for closing."""
CANCELLED = 1.0
"""Seconds in which what was cancelled has to end."""


class Ending:
    """A shutdown that begins now.

    Parameters:
        seconds: that running tasks may take to end by themselves.

    Attributes:
        deadline: when these are over, in the loop's time.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.deadline = self._loop.time() + seconds
        self._last = self.deadline + LAST

    @property
    def soon(self) -> float:
        """Until when one more step is waited for, in the loop's time."""
        return min(self._loop.time() + STOPPING, self._last)

    async def until(self, end: float, step: Coroutine[Any, Any, None]) -> bool:
        """Waits for a step, until that loop time at most, and cancels it then; gives whether it ended by itself."""
        waited = asyncio.create_task(step, name="qtasks-stop")
        # Of what is left behind, nobody is there to look at its error.
        waited.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.wait([waited], timeout=max(0.0, end - self._loop.time()))
        finally:
            if not (done := waited.done()):
                await self.cancel([waited])
        if done:
            waited.result()
        return done

    async def cancel(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Ends these. What goes on all the same is left behind, and no longer known to the loop, whose end would wait
        for it."""
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=CANCELLED)
        for task in stuck:
            asyncio._unregister_task(task)
            log.error("the worker ends without %s, which swallows its cancellation", task.get_name())
