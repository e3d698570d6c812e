"""One application with its tasks for one cell, and what was seen while it ran."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from qtasks.app import QueueTasks
from qtasks.context import TaskContext
from qtasks.markers import hookimpl

from ..apps import make_app
from .effects import NEXT
from .probe import NAME, TIMEOUT, Probe, plugin_of
from .table import TRIGGERS, Cell, Outcome

SECRET = "s3cret"
TASK_OF = {
    "task_executor_run_task_gen": "numbers",
    "task_executor_run_task_trigger_error": "asks",
    "worker_task_error_retry": "fails_once",
}
"""The task that makes a trigger fire, where it is not `work`."""


class Scenario:
    """The application of a cell.

    Attributes:
        ran: (name, args, kwargs) of every function that ran, the canary's left out.
        following: the values that the next trigger was given, where one is listened to.
    """

    def __init__(self, cell: Cell, backend: str, folder: Path) -> None:
        self.cell = cell
        self.probe = Probe(cell)
        self.ran: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.following: list[dict[str, Any]] = []
        self.app: QueueTasks = make_app(backend, folder, plugin_timeout=TIMEOUT, max_deliveries=2)
        self._declare()
        if cell.behaviour != "no plugin":
            self.app.add_plugin(plugin_of(self.probe), name=NAME)
        if (
            cell.behaviour in ("replaces", "partial")
            and cell.trigger in NEXT
            and cell.outcome is not Outcome.CLIENT
        ):
            self.app.add_plugin(_listener(NEXT[cell.trigger], self.following), name="listener")

    def _declare(self) -> None:
        app, ran = self.app, self.ran

        async def work(*args: Any, **kw: Any) -> dict[str, Any]:
            ran.append(("work", args, kw))
            return {"ran": "work", "args": list(args), "kw": kw}

        async def other(*args: Any, **kw: Any) -> dict[str, Any]:
            ran.append(("other", args, kw))
            return {"ran": "other", "args": list(args), "kw": kw}

        async def numbers(*args: Any, **kw: Any) -> AsyncIterator[int]:
            ran.append(("numbers", args, kw))
            for number in range(3):
                yield number

        async def asks(context: TaskContext, *args: Any, **kw: Any) -> None:
            ran.append(("asks", args, kw))
            context.plugin_error("help")

        async def fails_once(*args: Any, **kw: Any) -> str:
            ran.append(("fails_once", args, kw))
            if len(ran) == 1:
                raise ValueError("the task's own error")
            return "second try"

        async def canary() -> str:
            return "alive"

        for function in (work, other, numbers, canary):
            app.task(name=function.__name__)(function)
        app.task(name="asks", echo=True)(asks)
        # The default `retry` plugin lets this one fail: only the plugin under test may have it run again.
        app.task(name="fails_once", retry=1, retry_on_exc=(KeyError,))(fails_once)

    @property
    def task_name(self) -> str:
        """The task that makes the trigger fire."""
        return TASK_OF.get(self.cell.trigger, "work")

    async def add(self) -> Any:
        """Adds that task."""
        return await self.app.add_task(self.task_name, args=(1,), kwargs={"x": 2})


def _listener(trigger: str, seen: list[dict[str, Any]]) -> object:
    params = TRIGGERS[trigger]["params"]
    given = ", ".join(f"{name!r}: {name}" for name in params)
    namespace: dict[str, Any] = {"seen": seen}
    exec(f"def {trigger}(self, {', '.join(params)}):\n    seen.append({{{given}}})\n", namespace)
    return type("Listener", (), {trigger: hookimpl(namespace[trigger])})()
