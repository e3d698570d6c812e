"""retry: decides whether and when a failed task is run again, by what the task declares."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from qtasks.markers import hookimpl
from qtasks.schemas import TaskExecSchema, TaskStatusErrorSchema

if TYPE_CHECKING:
    from qtasks.schemas import TaskPrioritySchema


class RetryPlugin:
    """Sets `retry_in` from `retry`, `retry_on_exc`, `retry_delay`, `retry_backoff`, `retry_max_delay` and
    `retry_jitter` of the declaration. Without this plugin nothing is retried."""

    @hookimpl(tryfirst=True)
    def worker_task_error_retry(
        self,
        task_func: TaskExecSchema,
        task_broker: TaskPrioritySchema,
        e: Exception,
        model: TaskStatusErrorSchema,
    ) -> TaskStatusErrorSchema | None:
        """Delays grow from `retry_delay` by `retry_backoff` up to `retry_max_delay`."""
        if task_broker.attempt >= task_func.retry:
            return None
        if task_func.retry_on_exc and not isinstance(e, task_func.retry_on_exc):
            return None
        delay = task_func.retry_delay * task_func.retry_backoff**task_broker.attempt
        delay = min(delay, task_func.retry_max_delay)
        delay *= 1 + task_func.retry_jitter * random.uniform(-1, 1)
        return replace(model, retry_in=delay)
