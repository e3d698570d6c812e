"""A task record as the columns of a row, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from qtasks import TaskStatusEnum, decode, encode
from qtasks.components.primitives import FENCED_FIELDS
from qtasks.schemas import TaskRecord

RECORD: Final = {
    "uuid": "uuid", "task_name": "text", "queue": "text", "priority": "smallint", "args": "text", "kwargs": "text",
    "created_at": "float8", "updated_at": "float8", "available_at": "float8", "status": "smallint",
    "attempt": "integer", "deliveries": "integer", "retry": "integer", "extra": "text", "digest": "text",
    "unique_key": "text", "result_ttl": "float8", "replay_of": "uuid", "started_at": "float8",
    "finished_at": "float8", "expires_at": "float8", "result": "text", "traceback": "text", "cancel_reason": "text",
    "progress": "text", "cancel_requested": "boolean", "dead": "boolean", "epoch": "bigint", "owner": "text",
}  # fmt: skip
"""The columns of the storage's half with their types. RETURNING is a keyword of SQL, so `returning` is `result`."""

COLUMNS: Final = ", ".join(RECORD)
"""What `record_of` reads."""

_COLUMN_OF: Final = {"returning": "result"}
_JSON: Final = frozenset({"args", "kwargs", "extra", "returning", "progress", "unique_key", "traceback", "cancel_reason", "owner", "digest"})  # fmt: skip  # noqa: E501
STATUSES: Final = tuple(TaskStatusEnum)
_STATUS_NUMBER: Final = {status: number for number, status in enumerate(STATUSES)}


def json_text(value: Any) -> str:
    """A value as JSON text, which PostgreSQL can hold whatever is in it.

    Raises:
        EncodeError: it has no JSON form.
    """
    return encode(value).decode()


def status_number(status: TaskStatusEnum) -> int:
    """How a status is stored."""
    return _STATUS_NUMBER[status]


def _column_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON:
        return json_text(value)
    return _STATUS_NUMBER[value] if name == "status" else value


def record_row(record: TaskRecord) -> dict[str, Any]:
    """A record as the values of its columns, ready to be written as JSON.

    Raises:
        EncodeError: a field has no JSON form.
    """
    return {
        "uuid": record.uuid, "task_name": record.task_name, "queue": record.queue, "priority": record.priority,
        "args": json_text(record.args), "kwargs": json_text(record.kwargs), "created_at": record.created_at,
        "updated_at": record.updated_at, "available_at": record.available_at,
        "status": _STATUS_NUMBER[record.status], "attempt": record.attempt, "deliveries": record.deliveries,
        "retry": record.retry, "extra": json_text(record.extra), "digest": json_text(record.digest),
        "unique_key": None if record.unique_key is None else json_text(record.unique_key),
        "result_ttl": record.result_ttl, "replay_of": record.replay_of, "started_at": record.started_at,
        "finished_at": record.finished_at, "expires_at": record.expires_at,
        "result": _column_value("returning", record.returning),
        "traceback": _column_value("traceback", record.traceback),
        "cancel_reason": _column_value("cancel_reason", record.cancel_reason),
        "progress": _column_value("progress", record.progress), "cancel_requested": record.cancel_requested,
        "dead": record.dead, "epoch": record.epoch, "owner": json_text(record.owner),
    }  # fmt: skip


def changed_columns(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a record as values of columns; what is fenced is left out.

    Raises:
        ValueError: a record has no such field.
        EncodeError: a value has no JSON form.
    """
    found = {}
    for name, value in changes.items():
        column = _COLUMN_OF.get(name, name)
        if column not in RECORD:
            raise ValueError(f"a task record has no field {name!r}")
        if name not in FENCED_FIELDS:
            found[column] = _column_value(name, value)
    return found


def record_of(row: Sequence[Any]) -> TaskRecord:
    """The record in a row of `COLUMNS`.

    Raises:
        ValueError: somebody else wrote something in it that is not JSON.
    """
    (
        uuid, task_name, queue, priority, args, kwargs, created_at, updated_at, available_at, status, attempt,
        deliveries, retry, extra, digest, unique_key, result_ttl, replay_of, started_at, finished_at, expires_at,
        result, traceback, cancel_reason, progress, cancel_requested, dead, epoch, owner,
    ) = row  # fmt: skip
    return TaskRecord(
        uuid=uuid, task_name=task_name, queue=queue, priority=priority, args=tuple(decode(args)),
        kwargs=decode(kwargs), created_at=created_at, updated_at=updated_at, available_at=available_at,
        status=STATUSES[status], attempt=attempt, deliveries=deliveries, retry=retry, extra=decode(extra),
        digest=decode(digest), unique_key=_decoded(unique_key), result_ttl=result_ttl, replay_of=replay_of,
        started_at=started_at, finished_at=finished_at, expires_at=expires_at, returning=_decoded(result),
        traceback=_decoded(traceback), cancel_reason=_decoded(cancel_reason), progress=_decoded(progress),
        cancel_requested=cancel_requested, dead=dead, epoch=epoch, owner=decode(owner),
    )  # fmt: skip


def shown_record(row: Sequence[Any]) -> TaskRecord:
    """The record in a row, for reading: where it cannot be read, what can be told without its JSON."""
    try:
        return record_of(row)
    except ValueError as error:
        told = dict(zip(RECORD, row, strict=True))
        return TaskRecord(
            uuid=UUID(str(told["uuid"])), task_name=told["task_name"], status=STATUSES[told["status"]],
            created_at=told["created_at"], updated_at=told["updated_at"], available_at=told["available_at"],
            attempt=told["attempt"], deliveries=told["deliveries"], finished_at=told["finished_at"],
            expires_at=told["expires_at"], dead=told["dead"], epoch=told["epoch"],
            traceback=f"the stored record cannot be read: {error}",
        )  # fmt: skip


def _decoded(text: str | None) -> Any:
    return None if text is None else decode(text)
