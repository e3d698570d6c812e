"""logging context: which task a line of a log belongs to, for standard logging and for structlog."""

from __future__ import annotations

import logging
from typing import Any, Final

from qtasks import current_task, hookimpl

FIELDS: Final = ("task_uuid", "task_name", "task_queue", "task_attempt")


def task_fields() -> dict[str, str | int]:
    """The fields of the task that is running here, also in its threads; empty where none is."""
    try:
        task = current_task()
    except LookupError:
        return {}
    held = task.task_broker
    return dict(zip(FIELDS, (str(task.uuid), held.name, held.queue, held.attempt), strict=True))


class TaskFilter(logging.Filter):
    """Gives each record the attributes `task_uuid`, `task_name`, `task_queue` and `task_attempt`; `-` where no task
    is running. Add it to a handler: `handler.addFilter(TaskFilter())`. It needs no plugin, and nothing is left behind
    by a task, since it looks when a line is written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        fields = task_fields()
        for name in FIELDS:
            setattr(record, name, fields.get(name, "-"))
        return True


class StructlogPlugin:
    """Binds the fields of a task in structlog's context variables while its code runs, so that the processor
    `structlog.contextvars.merge_contextvars` adds them to each line.

    What the code of a task binds itself ends with the task, however that ends.
    """

    qtasks_name = "structlog"

    def __init__(self) -> None:
        from structlog import contextvars  # the filter is of use without it

        self._structlog: Any = contextvars

    @hookimpl(tryfirst=True)
    def task_executor_middlewares_execute(self) -> None:
        """Binds; what was bound before is there again when the run is closed."""
        before = self._structlog.get_contextvars()
        current_task().resources.callback(self._set, before)
        self._set({**before, **task_fields()})

    def _set(self, fields: dict[str, Any]) -> None:
        self._structlog.clear_contextvars()
        self._structlog.bind_contextvars(**fields)
