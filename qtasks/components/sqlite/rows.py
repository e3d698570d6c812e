"""A record as columns, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from qtasks.codec import decode, encode
from qtasks.components.primitives import FENCED_FIELDS
from qtasks.components.sqlite.schema import CANCEL, ERROR, NEW, PROCESS, SUCCESS
from qtasks.components.sqlite.sql import blob
from qtasks.ids import uuid_of
from qtasks.schemas import TaskRecord, TaskStatusEnum, make_record

STATUS: Final = {
    NEW: TaskStatusEnum.NEW,
    PROCESS: TaskStatusEnum.PROCESS,
    SUCCESS: TaskStatusEnum.SUCCESS,
    ERROR: TaskStatusEnum.ERROR,
    CANCEL: TaskStatusEnum.CANCEL,
}
CODE: Final = {status: code for code, status in STATUS.items()}

RECORD: Final = (
    "status", "epoch", "owner", "attempt", "deliveries", "created_at", "updated_at", "available_at",
    "unique_key", "payload", "started_at", "finished_at", "expires_at", "result", "traceback",
    "cancel_reason", "cancel_requested", "dead", "progress",
)  # fmt: skip
"""The columns of the storage's half."""

RECORD_COLUMNS: Final = "uuid, " + ", ".join(RECORD)
"""What `record_of` reads."""

_PAYLOAD: Final = (
    "task_name", "queue", "priority", "args", "kwargs", "extra", "retry", "digest", "result_ttl", "replay_of",
)  # fmt: skip
_IN_PAYLOAD: Final = frozenset(_PAYLOAD)
_JSON: Final = frozenset({"returning", "progress"})
_FLAGS: Final = frozenset({"cancel_requested", "dead"})
_FIELDS: Final = frozenset(field.name for field in fields(TaskRecord))

_COLUMN: Final = {"returning": "result"}
"""Fields whose columns have another name: `returning` is a keyword of SQL."""

UNREADABLE: Final = "?"
"""The task name of a record whose payload cannot be read."""

DAMAGE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What JSON of another shape can raise."""


_AT_START: Final = tuple(
    field
    for field in fields(TaskRecord)
    if field.name not in {"uuid", "created_at", "updated_at", "available_at", *_PAYLOAD}
)
_at_start = attrgetter(*(field.name for field in _AT_START))
_AT_START_VALUES: Final = tuple(field.default for field in _AT_START)

payload_fields: Final = attrgetter(*_PAYLOAD)


def payload_of(record: TaskRecord) -> bytearray:
    """The fields that seldom change, as JSON."""
    return blob(encode(payload_fields(record)))


def fresh_values(record: TaskRecord) -> tuple[Any, ...] | None:
    """The values of `FRESH`; `None` for a record that is not new, or has a unique key.

    Raises:
        EncodeError: a field has no JSON form.
    """
    if _at_start(record) != _AT_START_VALUES:
        return None
    return (record.created_at, record.updated_at, record.available_at, payload_of(record))


def unfolded(fresh: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of `RECORD` for a new record, from those of `FRESH`."""
    *times, payload = fresh
    return (NEW, 0, "", 0, 0, *times, None, payload, *(None,) * 6, 0, 0, None)


def record_values(record: TaskRecord) -> tuple[Any, ...]:
    """The values of `RECORD`.

    Raises:
        EncodeError: a field has no JSON form.
    """
    return (
        CODE[record.status], record.epoch, record.owner, record.attempt, record.deliveries,
        record.created_at, record.updated_at, record.available_at, record.unique_key, payload_of(record),
        record.started_at, record.finished_at, record.expires_at,
        None if record.returning is None else encode(record.returning), record.traceback,
        record.cancel_reason, int(record.cancel_requested), int(record.dead),
        None if record.progress is None else encode(record.progress),
    )  # fmt: skip


def record_of(row: Sequence[Any]) -> TaskRecord:
    """The record in a row of `RECORD_COLUMNS`.

    Raises:
        ValueError: the payload is not what `payload_of` writes.
    """
    (
        uuid, status, epoch, owner, attempt, deliveries, created_at, updated_at, available_at, unique_key,
        payload, started_at, finished_at, expires_at, returning, traceback, cancel_reason, cancel_requested,
        dead, progress,
    ) = row  # fmt: skip
    try:
        task_name, queue, priority, args, kwargs, extra, retry, digest, result_ttl, replay_of = decode(
            payload
        )
        record = make_record(
            uuid=uuid_of(uuid), task_name=task_name, queue=queue, priority=priority, args=tuple(args),
            kwargs=kwargs, created_at=created_at, updated_at=updated_at, available_at=available_at,
            status=STATUS[status], attempt=attempt, deliveries=deliveries, retry=retry, extra=extra,
            digest=digest, unique_key=unique_key, result_ttl=result_ttl, started_at=started_at,
            finished_at=finished_at, expires_at=expires_at, traceback=traceback, cancel_reason=cancel_reason,
            cancel_requested=cancel_requested != 0, dead=dead != 0, epoch=epoch, owner=owner,
        )  # fmt: skip
        if replay_of is not None:
            record.replay_of = UUID(replay_of)
        if returning is not None:
            record.returning = decode(returning)
        if progress is not None:
            record.progress = decode(progress)
    except DAMAGE as error:
        raise ValueError(f"the stored record cannot be read: {error}") from error
    return record


def first_started(
    uuid: UUID, payload: Any, created_at: float, available_at: float, epoch: int, owner: str, now: float
) -> TaskRecord:
    """The record of a task as its first delivery starts.

    Parameters:
        payload: what `payload_of` wrote, decoded.

    Raises:
        errors of `DAMAGE`: it is something else.
    """
    task_name, queue, priority, args, kwargs, extra, retry, digest, result_ttl, replay_of = payload
    return make_record(
        uuid=uuid, task_name=task_name, queue=queue, priority=priority, args=tuple(args), kwargs=kwargs,
        created_at=created_at, updated_at=now, available_at=available_at, status=TaskStatusEnum.PROCESS,
        deliveries=1, retry=retry, extra=extra, digest=digest, result_ttl=result_ttl,
        replay_of=None if replay_of is None else UUID(replay_of), started_at=now, epoch=epoch, owner=owner,
    )  # fmt: skip


def shown_record(row: Sequence[Any]) -> TaskRecord:
    """The record in a row, for reading: where it cannot be read, what can be told without its payload."""
    try:
        return record_of(row)
    except ValueError as error:
        uuid, status, epoch, owner, attempt, deliveries, created_at, updated_at, available_at = row[:9]
        return TaskRecord(
            uuid=UUID(bytes=uuid), task_name=UNREADABLE, status=STATUS[status], epoch=epoch, owner=owner,
            attempt=attempt, deliveries=deliveries, created_at=created_at, updated_at=updated_at,
            available_at=available_at, finished_at=row[12], expires_at=row[13],
            traceback=row[15] or str(error), dead=row[18] != 0,
        )  # fmt: skip


class _Plan(NamedTuple):
    """How changes of these fields are written.

    Attributes:
        columns: the names of columns to be set.
        fields: the field of each of them.
        converted: where among them are fields that are not stored as they are, and whether as JSON.
        payload: changed fields that lie in the payload.
    """

    columns: tuple[str, ...]
    fields: tuple[str, ...]
    converted: tuple[tuple[int, bool], ...]
    payload: tuple[str, ...]


@lru_cache(1024)
def _plan(names: tuple[str, ...]) -> _Plan:
    if not _FIELDS.issuperset(names):
        raise ValueError(f"a task record has no field {', '.join(sorted({*names} - _FIELDS))}")
    written = [name for name in names if name not in FENCED_FIELDS]
    own = [name for name in written if name not in _IN_PAYLOAD]
    return _Plan(
        tuple(_COLUMN.get(name, name) for name in own),
        tuple(own),
        tuple((at, name in _JSON) for at, name in enumerate(own) if name in _JSON | _FLAGS),
        tuple(name for name in written if name in _IN_PAYLOAD),
    )


class Changes:
    """Changes of a record, prepared for its columns.

    Attributes:
        columns: the names of columns to be set, and
        values: what they are set to.
        payload: changed fields that lie in the payload, which has to be read for it.
    """

    __slots__ = ("columns", "payload", "values")

    def __init__(self, changes: Mapping[str, Any]) -> None:
        plan = _plan(tuple(changes))
        self.columns = plan.columns
        values = [changes[name] for name in plan.fields]
        for at, as_json in plan.converted:
            if values[at] is not None:
                values[at] = blob(encode(values[at])) if as_json else int(values[at])
        self.values = tuple(values)
        self.payload: dict[str, Any] | None = None
        if plan.payload:
            self.payload = {name: changes[name] for name in plan.payload}
            for value in self.payload.values():
                encode(value)  # fails here, at the caller, and not inside the transaction

    def patched(self, payload: bytes) -> bytes:
        """The payload with the changes applied.

        Raises:
            ValueError: the stored payload cannot be read.
        """
        stored = dict(zip(_PAYLOAD, decode(payload), strict=True))
        return encode(tuple((stored | (self.payload or {})).values()))


def digest_of(payload: bytes) -> str | None:
    """The digest in a payload; `None` where it cannot be read."""
    try:
        return str(dict(zip(_PAYLOAD, decode(payload), strict=True))["digest"])
    except DAMAGE:
        return None
