"""A plugin that fails on purpose, at any trigger; each incident is written down, so that a run can show how many."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from qtasks.markers import hookimpl

NAME = "saboteur"
RAISES, JUNK, HANGS = 0.02, 0.02, 0.01
"""The shares of its calls. Only an `async` implementation hangs: a plain one would be waited for."""

MAY_END_A_TASK = frozenset(
    {
        "task_executor_run_task", "task_executor_run_task_gen", "task_executor_run_task_trigger_error",
        "task_executor_decode", "worker_task_error_retry", "worker_remove_finished_task",
        "broker_remove_finished_task",
    }
)  # fmt: skip
"""Where a plugin that fails ends the task in ERROR, by the table "When a plugin fails". Before the run the task is put
back, in a signal the failure is isolated: an ERROR that names another trigger is a loss."""

_BLAMED = re.compile(rf"plugin '{NAME}' .*?trigger '(\w+)'", re.DOTALL)
_UNWRITABLE = "EncodeError: object "
"""What a task ends with whose result was replaced by an object that has no JSON form."""


def excused(trace: str) -> bool:
    """Whether a task may have ended in ERROR with this traceback because of the saboteur."""
    return _UNWRITABLE in trace or bool(MAY_END_A_TASK & set(_BLAMED.findall(trace)))


def saboteur(seed: str, triggers: Mapping[str, Any], note: Callable[..., None]) -> object:
    """A plugin on every trigger that raises, returns junk or hangs in some of its calls.

    Parameters:
        triggers: all declared triggers by name.
        note: writes an incident down: the trigger, its kind, what was done.
    """
    drawn = random.Random(seed)

    def struck(name: str, kind: str) -> Any:
        share = drawn.random()
        if share < RAISES:
            note("sabotage", name, kind, "raised")
            raise RuntimeError("sabotage")
        if share < RAISES + JUNK:
            note("sabotage", name, kind, "junk")
            return drawn.choice(({"junk": object()}, object(), 42))
        return None

    def implementation(name: str, kind: str) -> Callable[[], Any]:
        async def struck_or_hung() -> Any:
            if drawn.random() < HANGS:
                note("sabotage", name, kind, "hung")
                await asyncio.sleep(60)
            return struck(name, kind)

        return struck_or_hung if drawn.random() < 0.5 else lambda: struck(name, kind)

    plugin = SimpleNamespace()
    for name in sorted(triggers):
        kind = "signal" if triggers[name].signal else "replacement"
        setattr(plugin, name, hookimpl(implementation(name, kind)))
    return plugin


def told(incidents: Iterable[list[str]]) -> str:
    """The incidents of a run by the kind of their trigger, as a sentence."""
    lines = list(incidents)
    counts = Counter(f"{kind}s {what}" for _, kind, what in lines)
    each = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
    return f"{len(lines)} incidents at {len({name for name, *_ in lines})} triggers ({each})"
