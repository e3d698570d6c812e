"""A plugin: warns of tasks that took long."""

from __future__ import annotations

import logging
import os

from qtasks import (
    TaskPrioritySchema,
    TaskStatusCancelSchema,
    TaskStatusErrorSchema,
    TaskStatusSuccessSchema,
    hookimpl,
)

log = logging.getLogger("qtasks_postgres.slow_tasks")

VARIABLE = "SLOW_TASKS_SECONDS"


class SlowTasks:
    """Logs a warning for each task that ran longer than a number of seconds.

    Parameters:
        seconds: how long is long; the default is `SLOW_TASKS_SECONDS` in the environment, else 10.
    """

    qtasks_api = ">=1,<2"

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = float(os.environ.get(VARIABLE, "10")) if seconds is None else seconds

    @hookimpl
    def worker_execute_after(
        self,
        task_broker: TaskPrioritySchema,
        model: TaskStatusSuccessSchema | TaskStatusErrorSchema | TaskStatusCancelSchema,
    ) -> None:
        """Looks at the clock of a task that has ended."""
        took = model.finished_at - model.started_at
        if model.started_at and took > self.seconds:
            log.warning("task %s (%s) took %.1f s", task_broker.name, task_broker.uuid, took)
