"""The plugin under test: it implements one trigger, as `def` or `async def`, and behaves as it is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from qtasks.errors import TaskCancelError, TaskDefer, TaskRejected
from qtasks.markers import hookimpl

from .changes import PARTIAL, REPLACEMENTS, wrong
from .table import TRIGGERS, Cell

TIMEOUT = 0.05
"""The application's `plugin_timeout`."""
DEFER = 0.02
CONTROL = {"TaskCancelError": TaskCancelError, "TaskRejected": TaskRejected}
NAME = "probe"


class Boom(Exception):
    """What the plugin raises."""


class Probe:
    """What the plugin does, and what it saw.

    Attributes:
        armed: it behaves as told; else it returns nothing.
        calls: the values it was given, for each call while armed.
        cancelled, finished: how often a slow call was cancelled, and ran to its end.
        over: set while no slow call is under way.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.armed = True
        self.calls: list[dict[str, Any]] = []
        self.cancelled = self.finished = 0
        self.over = asyncio.Event()
        self.over.set()

    def act(self, given: dict[str, Any]) -> Any:
        """The answer of a plain function; raises where it is told to."""
        if not self.armed:
            return None
        self.calls.append(given)
        behaviour, trigger = self.cell.behaviour, self.cell.trigger
        if behaviour in CONTROL:
            raise CONTROL[behaviour]("told so")
        if behaviour == "TaskDefer":
            if len(self.calls) == 1:
                raise TaskDefer(DEFER)
            return None
        if behaviour == "raises":
            raise Boom("boom")
        if behaviour == "wrong shape":
            return wrong(trigger, given)
        if behaviour == "partial":
            return PARTIAL[trigger](given) if trigger in PARTIAL else "ignored"
        if behaviour == "returns None":
            return None
        return REPLACEMENTS[trigger](given) if trigger in REPLACEMENTS else "ignored"

    def plain(self, given: dict[str, Any]) -> Any:
        """A `def` implementation."""
        if self.armed and self.cell.behaviour == "exceeds plugin_timeout":
            time.sleep(TIMEOUT * 1.2)
            self.finished += 1
        return self.act(given)

    async def asynchronous(self, given: dict[str, Any]) -> Any:
        """An `async def` implementation."""
        await asyncio.sleep(0)
        if self.armed and self.cell.behaviour == "exceeds plugin_timeout":
            self.calls.append(given)
            self.over.clear()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                self.over.set()
                raise
        return self.act(given)


def plugin_of(probe: Probe) -> object:
    """A plugin object whose one method has the trigger's name and parameters."""
    trigger, kind = probe.cell.trigger, probe.cell.kind
    params = TRIGGERS[trigger]["params"]
    given = ", ".join(f"{name!r}: {name}" for name in params)
    call = f"await probe.asynchronous({{{given}}})" if kind == "async def" else f"probe.plain({{{given}}})"
    source = f"{kind} {trigger}(self, {', '.join(params)}):\n    return {call}\n"
    namespace: dict[str, Any] = {"probe": probe}
    exec(source, namespace)
    return type("ProbePlugin", (), {trigger: hookimpl(namespace[trigger])})()
