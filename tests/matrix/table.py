"""What the delivery protocol says of every trigger: the table "When a plugin fails", as data.

Written from the protocol's text, not from the code; the names, parameters and shapes of the triggers come
from `tests/data/triggers.toml`.
"""

from __future__ import annotations

import tomllib
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

TRIGGERS: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[1] / "data" / "triggers.toml").read_text()
)


class Outcome(Enum):
    """What becomes of it when a plugin fails in a trigger."""

    SIGNAL = "logged, counted, isolated; the main logic goes on"
    PRODUCER = "add_task raises; nothing is stored or queued; control flow reaches the caller, a defer waits"
    BEFORE_RUN = (
        "released, the delivery counted; dead when deliveries are used up; control flow steers the task"
    )
    RESULT = "the task ends in ERROR naming plugin and trigger"
    RETRY = "the original error stands, with a note"
    FINISH = "ERROR without the unreplaced result"
    CLIENT = "raised to the caller"
    CONFIG = "raised to the caller of the global config"


OUTCOMES: dict[Outcome, tuple[str, ...]] = {
    Outcome.PRODUCER: ("qtasks_add_task_before_broker", "broker_add_before", "storage_add"),
    Outcome.BEFORE_RUN: (
        "storage_get", "broker_get", "storage_running_older_tasks", "storage_add_process", "broker_add_worker",
        "worker_add", "worker_execute_before", "broker_update", "storage_update", "worker_run_task_before",
        "task_executor_args_replace",
    ),
    Outcome.RESULT: (
        "task_executor_run_task", "task_executor_run_task_gen", "task_executor_run_task_trigger_error",
        "task_executor_decode",
    ),
    Outcome.RETRY: ("worker_task_error_retry",),
    Outcome.FINISH: ("worker_remove_finished_task", "broker_remove_finished_task"),
    Outcome.CLIENT: ("storage_get", "broker_get", "storage_get_all", "qtasks_get"),
    Outcome.CONFIG: (
        "global_config_set", "global_config_get", "global_config_get_all", "global_config_get_match",
    ),
    Outcome.SIGNAL: tuple(name for name, row in TRIGGERS.items() if not row["replaces"]),
}  # fmt: skip

ANY_VALUE = frozenset(
    {
        "task_executor_run_task", "task_executor_run_task_trigger_error", "task_executor_decode",
        "global_config_get",
    }
)  # fmt: skip
"""Triggers whose value may be anything: a wrong shape there is a value that no store can keep."""

BEHAVIOURS = (
    "returns None", "replaces", "partial", "raises", "exceeds plugin_timeout", "wrong shape", "TaskCancelError",
    "TaskDefer", "TaskRejected",
)  # fmt: skip
KINDS = ("def", "async def")


class Cell(NamedTuple):
    """One cell: a plugin that behaves in one way on one trigger, whose failure has one outcome."""

    trigger: str
    outcome: Outcome
    behaviour: str
    kind: str

    @property
    def id(self) -> str:
        """For the name of the test. The two triggers that fire in two places appear twice."""
        place = "@client" if self.outcome is Outcome.CLIENT else ""
        kind = f"-{self.kind}" if self.kind else ""
        return f"{self.trigger}{place}-{self.behaviour}{kind}".replace(" ", "_")


def cells() -> list[Cell]:
    """Every trigger in every place with every behaviour; "no plugin" has no kind."""
    found = []
    for outcome, triggers in OUTCOMES.items():
        for trigger in triggers:
            found.append(Cell(trigger, outcome, "no plugin", ""))
            found.extend(
                Cell(trigger, outcome, behaviour, kind) for behaviour in BEHAVIOURS for kind in KINDS
            )
    return found
