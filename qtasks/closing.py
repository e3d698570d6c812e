"""Closing what a run used, within a time."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
from contextlib import AsyncExitStack
from typing import Any

from qtasks.errors import TaskTimeoutError

_ONLY_WAITS = re.compile(r"(asyncio|contextlib)(\.|$)")
"""Modules of which nobody asks why they wait."""


async def close_all(stack: AsyncExitStack, error: BaseException | None, seconds: float | None) -> None:
    """Closes a stack. What takes longer than so many seconds is cancelled, and after as many again what hangs next.

    Raises:
        TaskTimeoutError: something did; it says where.
    """
    told = (type(error) if error else None, error, error.__traceback__ if error else None)
    if seconds is None:
        await stack.__aexit__(*told)
        return
    interrupter = _Interrupter(seconds)
    stopped: BaseException | None = None
    try:
        await stack.__aexit__(*told)
    except BaseException as raised:
        stopped = raised
    others = interrupter.close()
    if interrupter.places and not (others and isinstance(stopped, asyncio.CancelledError)):
        raise TaskTimeoutError(
            f"closing what the run used took longer than max_time ({seconds} s), and was stopped in "
            f"{', '.join(interrupter.places)}"
        ) from stopped
    if stopped is not None:
        raise stopped


class _Interrupter:
    """Cancels the current task every so many seconds, as `asyncio.timeout` does once.

    Attributes:
        places: where the task was each time.
    """

    def __init__(self, seconds: float) -> None:
        own = asyncio.current_task()
        assert own is not None
        self._own = own
        self._before = own.cancelling()
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._interrupt)
        self.places: list[str] = []

    def _interrupt(self) -> None:
        self.places.append(_where(self._own.get_coro()))
        self._own.cancel()
        self._timer = self._loop.call_later(self._seconds, self._interrupt)

    def close(self) -> bool:
        """Ends that; gives whether somebody else wants the task cancelled too."""
        self._timer.cancel()
        for _ in self.places:
            self._own.uncancel()
        return self._own.cancelling() > self._before


def _where(awaited: Any) -> str:
    """The innermost code that a coroutine waits in, without what is there to wait."""
    place = "(unknown)"
    while awaited is not None:
        prefix = {"coroutine": "cr_", "async_generator": "ag_", "generator": "gi_"}.get(
            type(awaited).__name__
        )
        if prefix is None:  # what stands between two of these does not say what it belongs to
            awaited = next(filter(_has_frame, gc.get_referents(awaited)), None)
            continue
        frame = getattr(awaited, f"{prefix}frame")
        module = frame.f_globals.get("__name__", "") if frame is not None else ""
        if frame is not None and not _ONLY_WAITS.match(module):
            place = f"{frame.f_code.co_qualname} ({module}, line {frame.f_lineno})"
        awaited = getattr(awaited, "gi_yieldfrom" if prefix == "gi_" else f"{prefix}await")
    return place


def _has_frame(thing: object) -> bool:
    return inspect.iscoroutine(thing) or inspect.isasyncgen(thing) or inspect.isgenerator(thing)
