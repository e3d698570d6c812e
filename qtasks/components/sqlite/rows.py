"""How a record lies in its row: columns for what SQL asks for, JSON for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final
from uuid import UUID

from qtasks.codec import decode, encode
from qtasks.components.sqlite.schema import CANCEL, ERROR, NEW, PROCESS, SUCCESS
from qtasks.schemas import TaskRecord, TaskStatusEnum

STATUS: Final = {
    TaskStatusEnum.NEW: NEW,
    TaskStatusEnum.PROCESS: PROCESS,
    TaskStatusEnum.SUCCESS: SUCCESS,
    TaskStatusEnum.ERROR: ERROR,
    TaskStatusEnum.CANCEL: CANCEL,
}
STATUS_OF: Final = {number: status for status, number in STATUS.items()}

PAYLOAD: Final = (
    "task_name", "queue", "priority", "args", "kwargs", "extra", "retry", "digest", "result_ttl", "replay_of",
)  # fmt: skip
"""Fields that lie together as one JSON array, in this order."""

PLAIN: Final = (
    "attempt", "deliveries", "created_at", "updated_at", "available_at", "unique_key", "started_at", "finished_at",
    "expires_at", "traceback", "cancel_reason", "cancel_requested", "dead", "epoch", "owner",
)  # fmt: skip
"""Fields with a column of their own."""

JSON: Final = {"returning": "result", "progress": "progress"}
"""Fields with a column of their own that holds JSON, and its name (`RETURNING` is a word of SQL)."""

COLUMNS: Final = ", ".join(("uuid", "status", *PLAIN, *JSON.values(), "payload"))
_NAMES: Final = frozenset(field.name for field in fields(TaskRecord))


def payload_of(record: TaskRecord) -> str:
    """The JSON array of the fields that are seldom asked for."""
    return encode(
        [
            record.task_name, record.queue, record.priority, record.args, record.kwargs, record.extra, record.retry,
            record.digest, record.result_ttl, record.replay_of,
        ]
    ).decode()  # fmt: skip


def json_of(value: Any) -> str | None:
    """A JSON column; `None` stays NULL."""
    return None if value is None else encode(value).decode()


def insert_values(record: TaskRecord) -> tuple[Any, ...]:
    """The values of `COLUMNS` for a record."""
    return (
        record.uuid.bytes, STATUS[record.status], record.attempt, record.deliveries, record.created_at,
        record.updated_at, record.available_at, record.unique_key, record.started_at, record.finished_at,
        record.expires_at, record.traceback, record.cancel_reason, int(record.cancel_requested), int(record.dead),
        record.epoch, record.owner, json_of(record.returning), json_of(record.progress), payload_of(record),
    )  # fmt: skip


def record_of(row: tuple[Any, ...]) -> TaskRecord:
    """The record in a row of `COLUMNS`.

    Raises:
        ValueError: the row is corrupt.
    """
    (
        uuid, status, attempt, deliveries, created_at, updated_at, available_at, unique_key, started_at, finished_at,
        expires_at, traceback, cancel_reason, cancel_requested, dead, epoch, owner, returning, progress, payload,
    ) = row  # fmt: skip
    try:
        name, queue, priority, args, kwargs, extra, retry, digest, result_ttl, replay_of = decode(payload)
        return TaskRecord(
            uuid=UUID(bytes=uuid), task_name=name, queue=queue, priority=priority, args=tuple(args), kwargs=kwargs,
            created_at=created_at, updated_at=updated_at, available_at=available_at, status=STATUS_OF[status],
            attempt=attempt, deliveries=deliveries, retry=retry, extra=extra, digest=digest, unique_key=unique_key,
            result_ttl=result_ttl, replay_of=None if replay_of is None else UUID(replay_of), started_at=started_at,
            finished_at=finished_at, expires_at=expires_at,
            returning=None if returning is None else decode(returning), traceback=traceback,
            cancel_reason=cancel_reason, progress=None if progress is None else decode(progress),
            cancel_requested=bool(cancel_requested), dead=bool(dead), epoch=epoch, owner=owner,
        )  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the record of task {UUID(bytes=uuid)} is corrupt: {error}") from error


def assignments(changes: Mapping[str, Any]) -> tuple[list[str], list[Any], dict[str, Any]]:
    """What an UPDATE sets: columns, their values, and what belongs into the payload.

    Raises:
        ValueError: a name is not that of a field.
    """
    columns: list[str] = []
    values: list[Any] = []
    inside: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "status":
            columns.append("status")
            values.append(STATUS[value])
        elif name in JSON:
            columns.append(JSON[name])
            values.append(json_of(value))
        elif name in PLAIN:
            columns.append(name)
            values.append(value)
        elif name in PAYLOAD:
            inside[name] = value
        else:
            raise ValueError(
                f"a task record has no field {name!r}; the fields are {', '.join(sorted(_NAMES))}"
            )
    return columns, values, inside


def changed_payload(payload: str, inside: Mapping[str, Any]) -> str:
    """The payload with some of its fields replaced."""
    values = dict(zip(PAYLOAD, decode(payload), strict=True))
    values.update(inside)
    return encode([values[name] for name in PAYLOAD]).decode()
