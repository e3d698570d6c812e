"""The form in which a record lies in Redis (lua/storage.lua tells its parts), and the way back.

A record is written once: its times and its digest in binary, then a JSON list, `[task_name, queue, args, kwargs,
retry, priority, the other fields that are not at their default]`, which ends with the last one that says more than
`[], {}, 0, 0, {}`. What changes later follows line by line.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from qtasks.codec import Encoded, decode, encode, encode_once
from qtasks.components.primitives import FENCED_FIELDS
from qtasks.errors import EncodeError
from qtasks.schemas import TaskRecord, TaskStatusEnum, make_record

_log = logging.getLogger("qtasks.redis")

_HEAD = struct.Struct(">c6xBd")
_FLAGS, _DUE_LATER, _HAS_UNIQUE, _TEXT = 7, 1, 2, 4
_DIGEST = 16
_TIME = struct.Struct(">d")
_SHORT = struct.Struct(">H")
_LONGEST = 0xFFFF
_RUN = struct.Struct(">cdIddH")
_RES = struct.Struct(">ccBdH")
_PART = struct.Struct(">Bd16s")
_PART_HEAD = struct.Struct(">Bd")
_NEW = TaskStatusEnum.NEW
_STATUS = {b"s": TaskStatusEnum.SUCCESS, b"e": TaskStatusEnum.ERROR, b"c": TaskStatusEnum.CANCEL}
_STATUS_OF = {status.value: status for status in TaskStatusEnum}

RECORD_FIELDS = frozenset(field.name for field in fields(TaskRecord))
_LISTED = ("task_name", "queue", "args", "kwargs", "retry", "priority")
_IN_BINARY = ("available_at", "created_at", "digest", "unique_key")
_ELSEWHERE = frozenset({"uuid", "epoch", "owner", "status", "extra", "updated_at", *_LISTED, *_IN_BINARY})
_OTHER_FIELDS = tuple(field for field in fields(TaskRecord) if field.name not in _ELSEWHERE)
_OTHERS = tuple(field.name for field in _OTHER_FIELDS)
_DEFAULTS = tuple(field.default for field in _OTHER_FIELDS)
_others = attrgetter(*_OTHERS)
_IN_HEAD = frozenset({"status", "dead", "expires_at"})
"""What a finished record says before its JSON."""
_IN_HEAD_OR_FINISHED = _IN_HEAD | {"updated_at"}
_TIMES = ("available_at", "started_at", "updated_at", "deliveries")
"""What Lua keeps as numbers; -1 is no change, -2 is None."""


_CONVERTED = frozenset({"args", "status", "replay_of"})
_DAMAGE = (struct.error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What reading bytes that are no record, or JSON of another shape, can raise."""


class UnreadableError(ValueError):
    """The bytes are not a record."""


def encode_part(record: TaskRecord) -> bytes:
    """A new record, but for its sequence number, which the script puts before it.

    Raises:
        EncodeError: a value has no JSON form; a unique key is too long.
    """
    values = _others(record)
    if values == _DEFAULTS and not record.extra and record.updated_at == record.created_at:
        body = _encode_list(record, None)
    else:
        body = _encode_list(record, _others_of(record, values))
    available, created = record.available_at, record.created_at
    raw = _raw_digest(record.digest)
    if raw is not None and available == created and record.unique_key is None:
        return _PART.pack(0, available, raw) + body
    flags, more = 0, b""
    if available != created:
        flags, more = _DUE_LATER, _TIME.pack(created)
    if raw is None:
        flags, raw = flags | _TEXT, _sized("digest", record.digest.encode())
    more += raw
    if record.unique_key is not None:
        # Behind a sign: an empty key is a key.
        flags, more = flags | _HAS_UNIQUE, more + _sized("unique_key", b"=" + record.unique_key.encode())
    return _PART_HEAD.pack(flags, available) + more + body


def is_plain(part: bytes) -> bool:
    """Whether nobody named a time for this new record, and it has no unique key."""
    return not part[0] & (_DUE_LATER | _HAS_UNIQUE)


def _sized(name: str, text: bytes) -> bytes:
    if len(text) > _LONGEST:
        raise EncodeError(f"{name} takes {len(text)} bytes: Redis is given at most {_LONGEST}")
    return _SHORT.pack(len(text)) + text


def _raw_digest(digest: str) -> bytes | None:
    """A digest as its bytes; `None` for a text that is not just so many bytes in hexadecimal."""
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        return None
    return raw if len(raw) == _DIGEST and raw.hex() == digest else None


def encode_token(record: TaskRecord) -> bytes:
    """The token of a record that is added with one; nothing for a new task."""
    if record.status is _NEW and not record.epoch and not record.owner:
        return b""
    state = b"P" if record.status is TaskStatusEnum.PROCESS else b"N"
    owner = record.owner.encode()
    started = -2.0 if record.started_at is None else record.started_at
    return _RUN.pack(state, record.epoch, record.deliveries, started, record.updated_at, len(owner)) + owner


def _others_of(record: TaskRecord, values: tuple[Any, ...]) -> dict[str, Any] | None:
    others: dict[str, Any] = {}
    if record.updated_at != record.created_at:
        others["updated_at"] = record.updated_at
    if record.extra:
        others["extra"] = record.extra
    others.update(
        (name, value)
        for name, value, default in zip(_OTHERS, values, _DEFAULTS, strict=True)
        if value != default
    )
    return others or None


def _encode_list(record: TaskRecord, others: dict[str, Any] | None) -> bytes:
    values: list[Any]
    if others is not None:
        values = [record.args, record.kwargs, record.retry, record.priority]
        values.append(encode_object(others) if Encoded in map(type, others.values()) else others)
    elif record.priority != 0:
        values = [record.args, record.kwargs, record.retry, record.priority]
    elif record.retry != 0:
        values = [record.args, record.kwargs, record.retry]
    elif record.kwargs:
        values = [record.args, record.kwargs]
    elif record.args:
        values = [record.args]
    else:
        return _names(record.task_name, record.queue) + b"]"
    names = _names(record.task_name, record.queue)
    if Encoded in map(type, values):
        return b"%b,%b]" % (names, b",".join([encode(value) for value in values]))
    return b"%b,%b" % (names, encode_once(values)[1:])


@lru_cache(maxsize=1024)
def _names(task_name: str, queue: str) -> bytes:
    """How a list begins. An application has few pairs of these."""
    return encode_once([task_name, queue])[:-1]


def encode_object(values: Mapping[str, Any]) -> Encoded:
    """A JSON object of which some values may be JSON already.

    Raises:
        EncodeError: a value has no JSON form.
    """
    if Encoded not in map(type, values.values()):
        return encode(values)
    pairs = [b"%b:%b" % (encode(name), encode(value)) for name, value in values.items()]
    return Encoded(b"{%b}" % b",".join(pairs))


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
    if not RECORD_FIELDS.issuperset(changes):
        unknown = ", ".join(sorted(changes.keys() - RECORD_FIELDS))
        raise ValueError(f"a task record has no field {unknown}")


def encode_outcome(changes: Mapping[str, Any]) -> bytes:
    """The changes of a settle that ends a task, but for what stands before them in binary, and for an `updated_at`
    that is `finished_at`. (A status is an enum: as JSON it would cost more than all the rest.)

    Raises:
        ValueError, EncodeError: an unknown field; a value has no JSON form.
    """
    check_fields(changes)
    left_out = _IN_HEAD
    if "finished_at" in changes and changes.get("updated_at") == changes["finished_at"]:
        left_out = _IN_HEAD_OR_FINISHED
    left = {name: value for name, value in changes.items() if name not in left_out}
    return encode_object(left) if Encoded in map(type, left.values()) else encode_once(left)


def decode_open(uuid: UUID, value: bytes) -> TaskRecord:
    """An open record as it lies in `rec`, without its token.

    Raises:
        UnreadableError: it is damaged.
    """
    try:
        return _decode_body(uuid, value, len(value))
    except _DAMAGE as error:
        raise UnreadableError(f"the record of task {uuid} cannot be read: {error}") from error


def _decode_body(uuid: UUID, value: bytes, end: int) -> TaskRecord:
    magic, flags, available_at = _HEAD.unpack_from(value)
    if magic != b"R" or flags > _FLAGS:
        raise ValueError("it does not begin as a record does")
    at, created_at, unique_key = _HEAD.size, available_at, None
    if flags & _DUE_LATER:
        (created_at,) = _TIME.unpack_from(value, at)
        at += _TIME.size
    if flags & _TEXT:
        data, at = _text(value, at)
        digest = data.decode()
    else:
        digest = value[at : at + _DIGEST].hex()
        at += _DIGEST
    if flags & _HAS_UNIQUE:
        data, at = _text(value, at)
        unique_key = data[1:].decode()
    body, *lines = value[at:end].split(b"\n")
    listed = decode(body)
    if type(listed) is not list:
        raise ValueError("its list is none")
    count = len(listed)
    record = make_record(
        uuid=uuid, task_name=listed[0], queue=listed[1], priority=listed[5] if count > 5 else 0,
        args=tuple(listed[2]) if count > 2 else (), kwargs=listed[3] if count > 3 else {},
        created_at=created_at, updated_at=created_at, available_at=available_at,
        retry=listed[4] if count > 4 else 0, digest=digest, unique_key=unique_key,
    )  # fmt: skip
    if count > 6:
        _apply(record, listed[6])
    for line in lines:
        name, _, data = line.partition(b"\t")
        _apply(record, {name.decode(): decode(data)})
    return record


def _text(value: bytes, at: int) -> tuple[bytes, int]:
    (size,) = _SHORT.unpack_from(value, at)
    at += 2 + size
    return value[at - size : at], at


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
    except _DAMAGE as error:
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
        except _DAMAGE:
            record = TaskRecord(uuid=uuid, task_name="unreadable")
        apply_token(record, value[_RES.size : at])
        outcome = decode(value[last + 1 :])
        if "finished_at" in outcome:
            record.updated_at = outcome["finished_at"]
        _apply(record, outcome)
        record.status = _STATUS[status]
    except _DAMAGE as error:
        raise UnreadableError(f"the finished record of task {uuid} cannot be read: {error}") from error
    record.dead = bool(dead)
    record.expires_at = None if expires == float("inf") else expires
    return record


__all__ = [
    "EncodeError", "UnreadableError", "apply_token", "check_fields", "decode_finished", "decode_open",
    "decode_shown", "encode_lines", "encode_object", "encode_outcome", "encode_part", "encode_token",
    "is_plain",
]  # fmt: skip
