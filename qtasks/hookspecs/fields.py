"""The fields of a task that `broker_update` and `storage_update` may change, with their types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, get_type_hints

from qtasks.schemas import Seconds, TaskRecord, TaskStatusSchema

PROTECTED: Final = ("uuid", "status", "epoch", "owner")
"""What the protocol alone sets: the identity of a task, and what its rules R3 to R5 compare."""


@cache
def task_fields() -> Mapping[str, Any]:
    """The types of the fields of a task.

    A storage takes what it is given, so where the schemas are stricter than the record (names,
    priority, finite times) theirs hold.
    """
    times = {"started_at": Seconds | None, "finished_at": Seconds | None}
    strict = get_type_hints(TaskStatusSchema, include_extras=True)
    return {**get_type_hints(TaskRecord, include_extras=True), **strict, **times}
