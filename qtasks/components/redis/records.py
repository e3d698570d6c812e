"""The form in which a record lies in Redis (lua/storage.lua tells its parts), and the way back.

A record is written once as a JSON list, `[task_name, queue, priority, created_at, args, kwargs, the
other fields that are not at their default]`; what changes later follows line by line.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any
from uuid import UUID

from qtasks.codec import Encoded, decode, encode
from qtasks.components.primitives import FENCED_FIELDS
from qtasks.errors import EncodeError
from qtasks.schemas import TaskRecord, TaskStatusEnum

_log = logging.getLogger("qtasks.redis")

_HEAD = struct.Struct(">cddH")
_SHORT = struct.Struct(">H")
_RUN = struct.Struct(">cdIddH")
_RES = struct.Struct(">ccBdH")
_PART = struct.Struct(">dH")
_STATUS = {b"s": TaskStatusEnum.SUCCESS, b"e": TaskStatusEnum.ERROR, b"c": TaskStatusEnum.CANCEL}
_STATUS_OF = {status.value: status for status in TaskStatusEnum}

RECORD_FIELDS = frozenset(field.name for field in fields(TaskRecord))
_LISTED = ("task_name", "queue", "priority", "created_at", "args", "kwargs")
_ELSEWHERE = frozenset({"uuid", "available_at", "digest", "unique_key", "epoch", "owner", "status", *_LISTED})
_OTHER_FIELDS = tuple(
    field
    for field in fields(TaskRecord)
    if field.name not in _ELSEWHERE and field.name not in ("extra", "updated_at", "retry")
)
_OTHERS = tuple(field.name for field in _OTHER_FIELDS)
_DEFAULTS = tuple(field.default for field in _OTHER_FIELDS)
_others = attrgetter(*_OTHERS)
_IN_HEAD = frozenset({"status", "dead", "expires_at"})
"""What a finished record says before its JSON."""
_TIMES = ("available_at", "started_at", "updated_at", "deliveries")
"""What Lua keeps as numbers; -1 is no change, -2 is None."""


_CONVERTED = frozenset({"args", "status", "replay_of"})


class UnreadableError(ValueError):
    """The bytes are not a record."""


def encode_part(record: TaskRecord) -> bytes:
    """A new record, but for its sequence number, which the script puts before it.

    Raises:
        EncodeError: a value has no JSON form.
    """
    others: dict[str, Any] = {}
    if record.updated_at != record.created_at:
        others["updated_at"] = record.updated_at
    if record.extra:
        others["extra"] = record.extra
    if record.retry is not None:
        others["retry"] = record.retry
    values = _others(record)
    if values != _DEFAULTS:
        others.update(
            (name, value)
            for name, value, default in zip(_OTHERS, values, _DEFAULTS, strict=True)
            if value != default
        )
    body = _encode_list(
        [
            record.task_name,
            record.queue,
            record.priority,
            record.created_at,
            record.args,
            record.kwargs,
            others,
        ]
    )
    digest = record.digest.encode()
    unique = (record.unique_key or "").encode()
    if record.unique_key is not None:
        unique = b"=" + unique  # an empty key is a key
    return b"%b%b%b%b%b" % (
        _PART.pack(record.available_at, len(digest)), digest, _SHORT.pack(len(unique)), unique, body,
    )  # fmt: skip


def encode_token(record: TaskRecord) -> bytes:
    """The token of a record that is added with one; nothing for a new task."""
    if not record.epoch and not record.owner and record.status is TaskStatusEnum.NEW:
        return b""
    state = b"P" if record.status is TaskStatusEnum.PROCESS else b"N"
    owner = record.owner.encode()
    started = -2.0 if record.started_at is None else record.started_at
    return _RUN.pack(state, record.epoch, record.deliveries, started, record.updated_at, len(owner)) + owner


def _encode_list(values: list[Any]) -> bytes:
    others = values[6]
    if type(values[4]) is Encoded or type(values[5]) is Encoded or Encoded in set(map(type, others.values())):
        values = values[:6]
        return b"[%b,%b]" % (b",".join([encode(value) for value in values]), encode_object(others))
    return encode(values)


def encode_object(values: Mapping[str, Any]) -> bytes:
    """A JSON object of which some values may be JSON already.

    Raises:
        EncodeError: a value has no JSON form.
    """
    if Encoded not in set(map(type, values.values())):
        return encode(values)
    return b"{%b}" % b",".join([b"%b:%b" % (encode(name), encode(value)) for name, value in values.items()])


def encode_lines(changes: Mapping[str, Any]) -> tuple[tuple[float, float, float, float], bytes]:
    """Changes of an open record: the numbers that Lua keeps, and a line for each other field.

    Raises:
        ValueError, EncodeError: an unknown field; a value has no JSON form.
    """
    check_fields(changes)
    numbers = tuple(_number(changes[name]) if name in changes else -1.0 for name in _TIMES)
    lines = [
        b"%b\t%b" % (name.encode(), encode(value))
        for name, value in changes.items()
        if name not in FENCED_FIELDS and name not in _TIMES
    ]
    return numbers, b"\n".join(lines)  # type: ignore[return-value]


def _number(value: Any) -> float:
    return -2.0 if value is None else float(value)


def check_fields(changes: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a field that a record does not have."""
    if not changes.keys() <= RECORD_FIELDS:
        unknown = ", ".join(sorted(changes.keys() - RECORD_FIELDS))
        raise ValueError(f"a task record has no field {unknown}")


def encode_outcome(changes: Mapping[str, Any]) -> bytes:
    """The changes of a settle that ends a task, but for what stands before them in binary, and for an `updated_at`
    that is `finished_at`. (A status is an enum: as JSON it would cost more than all the rest.)

    Raises:
        ValueError, EncodeError: an unknown field; a value has no JSON form.
    """
    check_fields(changes)
    written = {name: value for name, value in changes.items() if name not in _IN_HEAD}
    if "finished_at" in written and written.get("updated_at") == written["finished_at"]:
        del written["updated_at"]
    return encode_object(written)


def decode_open(uuid: UUID, value: bytes) -> TaskRecord:
    """An open record as it lies in `rec`, without its token.

    Raises:
        UnreadableError: it is damaged.
    """
    try:
        return _decode_body(uuid, value, len(value))
    except (struct.error, ValueError, TypeError, KeyError, IndexError) as error:
        raise UnreadableError(f"the record of task {uuid} cannot be read: {error}") from error


def _decode_body(uuid: UUID, value: bytes, end: int) -> TaskRecord:
    magic, _, available_at, size = _HEAD.unpack_from(value)
    if magic != b"R":
        raise ValueError("it does not begin as a record does")
    at = _HEAD.size + size
    digest = value[_HEAD.size : at].decode()
    (size,) = _SHORT.unpack_from(value, at)
    at += 2 + size
    unique = value[at - size : at].decode()
    lines = value[at:end].split(b"\n") if value.find(b"\n", at, end) >= 0 else (value[at:end],)
    task_name, queue, priority, created_at, args, kwargs, others = decode(lines[0])
    record = TaskRecord(
        uuid=uuid, task_name=task_name, queue=queue, priority=priority, args=tuple(args), kwargs=kwargs,
        created_at=created_at, updated_at=created_at, available_at=available_at, digest=digest,
        unique_key=unique[1:] if unique else None,
    )  # fmt: skip
    if others:
        _apply(record, others)
    for line in lines[1:]:
        name, _, data = line.partition(b"\t")
        _apply(record, {name.decode(): decode(data)})
    return record


def _apply(record: TaskRecord, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if name in _CONVERTED:
            if name == "args":
                value = tuple(value)
            elif name == "status":
                value = _STATUS_OF[value]
            elif value is not None:
                value = UUID(value)
        if name in RECORD_FIELDS:  # a field of a later version is left alone
            setattr(record, name, value)


def apply_token(record: TaskRecord, token: bytes) -> None:
    """Adds what `run` knows of a record: PROCESS, its token and its start."""
    if not token:
        return
    state, epoch, deliveries, started, updated, size = _RUN.unpack_from(token)
    record.epoch = int(epoch)
    record.owner = token[_RUN.size : _RUN.size + size].decode()
    record.deliveries = deliveries
    record.started_at = None if started < 0 else started
    record.updated_at = updated
    if state == b"P":
        record.status = TaskStatusEnum.PROCESS


def decode_shown(uuid: UUID, kind: bytes, value: bytes, token: bytes, cancel: bytes) -> TaskRecord | None:
    """A record as the reading scripts give it; `None` where there is none, or it is damaged (and logged)."""
    if not kind:
        return None
    try:
        if kind == b"F":
            return decode_finished(uuid, value)
        record = decode_open(uuid, value)
        apply_token(record, token)
        if cancel:
            record.cancel_requested = True
            record.cancel_reason = decode(cancel)
    except (UnreadableError, struct.error, ValueError) as error:
        _log.error("%s", error)
        return None
    return record


def decode_finished(uuid: UUID, value: bytes) -> TaskRecord:
    """A finished record as it lies in `res`. One whose arguments were damaged shows its outcome still.

    Raises:
        UnreadableError: it is damaged beyond that.
    """
    try:
        magic, status, dead, expires, size = _RES.unpack_from(value)
        if magic != b"F":
            raise ValueError("it does not begin as a finished record does")
        at = _RES.size + size
        last = value.rindex(b"\n", at)
        try:
            record = _decode_body(uuid, value[at:last], last - at)
        except (struct.error, ValueError, TypeError, KeyError, IndexError):
            record = TaskRecord(uuid=uuid, task_name="unreadable")
        apply_token(record, value[_RES.size : at])
        outcome = decode(value[last + 1 :])
        if "finished_at" in outcome:
            record.updated_at = outcome["finished_at"]
        _apply(record, outcome)
    except (struct.error, ValueError, TypeError, KeyError) as error:
        raise UnreadableError(f"the finished record of task {uuid} cannot be read: {error}") from error
    record.status = _STATUS[status]
    record.dead = bool(dead)
    record.expires_at = None if expires == float("inf") else expires
    return record


__all__ = [
    "EncodeError", "UnreadableError", "apply_token", "check_fields", "decode_finished", "decode_open",
    "decode_shown", "encode_lines", "encode_object", "encode_outcome", "encode_part", "encode_token",
]  # fmt: skip
