"""What broker, storage and lease keeper send to the scripts and read from them, item by item."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias, TypeVar

from qtasks.components.primitives import DeliveryHandle, DropVerdict, HoldVerdict, Outcome, Settle
from qtasks.components.redis.records import (
    encode_lines,
    encode_outcome,
    encode_part,
    encode_token,
    is_plain,
)
from qtasks.ids import uuid_of
from qtasks.schemas import TaskRecord

CHUNK = 400
"""Items of one script call: longer batches are cut, so that no call keeps the server for long."""

PRIORITY_STEP = 2**45

_TOKEN = struct.Struct(">16sd")
_ENTRY = struct.Struct(">16scBIdddH")
_TIME = struct.Struct(">d")
_SETTLE = struct.Struct(">16sdcBdHB")
_NUMBERS = struct.Struct(">dddd")
_NACK = struct.Struct(">dId")
_SHORT = struct.Struct(">H")
_ADD = struct.Struct(">16sHh")
_OUTCOMES = {
    Outcome.SUCCESS: b"s", Outcome.ERROR: b"e", Outcome.CANCEL: b"c",
    Outcome.RETRY: b"r", Outcome.RELEASE: b"l",
}  # fmt: skip
_HELD = {ord("h"): HoldVerdict.HELD, ord("l"): HoldVerdict.LOST}
_DROPPED = {ord("d"): DropVerdict.DONE, ord("l"): DropVerdict.LOST}

_handle = DeliveryHandle._make

T = TypeVar("T")


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterable[Sequence[T]]:
    """The batch in parts that one call may take."""
    if len(items) <= size:
        return (items,) if items else ()
    return (items[i : i + size] for i in range(0, len(items), size))


def queues_of(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct queue names in a fixed order, so that their packed form is reused."""
    distinct = set(names)
    return tuple(sorted(distinct)) if len(distinct) > 1 else tuple(distinct)


def token(handle: DeliveryHandle) -> bytes:
    """A handle as the scripts that check its token take it."""
    return _TOKEN.pack(handle.uuid.bytes, handle.epoch) + handle.owner.encode()


def number(value: float | None) -> bytes:
    """A number, exact; `None` is never."""
    return b"inf" if value is None else repr(float(value)).encode()


def held(reply: bytes) -> list[HoldVerdict]:
    """Verdicts of extend.lua."""
    return [_HELD[code] for code in reply]


def dropped(reply: bytes) -> list[DropVerdict]:
    """Verdicts of ack.lua and nack.lua."""
    return [_DROPPED[code] for code in reply]


@lru_cache(256)
def entries_of(owner: str, queue: str) -> struct.Struct:
    """Claimed entries of one owner from one queue, each behind its uuid: these two are not read from each of them."""
    return struct.Struct(f"{_ENTRY.format}{len(owner.encode()) + len(queue)}x")


def handles_of(data: Sequence[bytes], owner: str, queues: Sequence[str]) -> list[DeliveryHandle]:
    """Claimed entries, of each queue as they stand one behind the other."""
    return [
        _handle(
            (uuid_of(uuid), int(epoch), owner, deliveries, restored == 1, queue,
             int(score // PRIORITY_STEP) - 128, available_at)
        )
        for queue, entries in zip(queues, data, strict=True)
        for uuid, _, restored, deliveries, score, epoch, available_at, _ in (
            entries_of(owner, queue).iter_unpack(entries)
        )
    ]  # fmt: skip


class HandedOver(NamedTuple):
    """What add_plain.lua tells: a delivery, when it began by the server's clock, and the record as it lies there."""

    handle: DeliveryHandle
    started_at: float
    value: bytes

    @classmethod
    def of(cls, message: bytes) -> HandedOver:
        """Of a message. Raises `ValueError`, `struct.error` for one that is none."""
        uuid, _, restored, deliveries, score, epoch, available_at, size = _ENTRY.unpack_from(message)
        owner_end = _ENTRY.size + size
        end = message.index(b"\n", owner_end)
        (started_at,) = _TIME.unpack_from(message, end + 1)
        handle = DeliveryHandle(
            uuid_of(uuid), int(epoch), message[_ENTRY.size : owner_end].decode(), deliveries, restored == 1,
            message[owner_end:end].decode(), int(score // PRIORITY_STEP) - 128, available_at,
        )  # fmt: skip
        return cls(handle, started_at, message[end + 1 + _TIME.size :])


def added(record: TaskRecord) -> tuple[bytes, bytes]:
    """A record for add.lua: its uuid with a token if it has one, and its part."""
    return record.uuid.bytes + encode_token(record), encode_part(record)


Addition: TypeAlias = tuple[TaskRecord, bytes, bytes]
"""A record on its way into add_plain.lua or add_push.lua, with its token and its part."""


def addition(record: TaskRecord) -> Addition:
    """Of a record. Its JSON is made before it meets other callers' records, so that a value without a JSON form fails
    for its own caller only.

    Raises:
        EncodeError: a value has no JSON form.
    """
    return record, encode_token(record), encode_part(record)


def is_plain_addition(token: bytes, part: bytes) -> bool:
    """Whether it is new and due at once, without a unique key: what add_plain.lua takes."""
    return not token and is_plain(part)


def place(record: TaskRecord, token: bytes, queues: Sequence[str]) -> bytes:
    """Where a record is queued, which the scripts are given before its part."""
    return _ADD.pack(record.uuid.bytes, queues.index(record.queue), record.priority) + token


def additions(records: Sequence[TaskRecord], queues: Sequence[str]) -> tuple[list[bytes], bool]:
    """The arguments of the scripts for records that meet no other caller's; and whether all are plain. There are many
    of these, so none of them is made an `Addition`.

    Raises:
        EncodeError: a value has no JSON form.
    """
    plain = True
    args: list[bytes] = []
    for record in records:
        token, part = encode_token(record), encode_part(record)
        plain = plain and is_plain_addition(token, part)
        args += (place(record, token, queues), part)
    return args, plain


def settled(settle: Settle, queues: Sequence[str]) -> list[bytes]:
    """A settle for settle.lua and settle_ack.lua.

    Raises:
        EncodeError, ValueError: its changes cannot be written.
    """
    handle, changes, nack = settle.handle, settle.changes, settle.nack
    expires = changes.get("expires_at")
    head = _SETTLE.pack(
        handle.uuid.bytes, handle.epoch, _OUTCOMES[settle.outcome], 1 if changes.get("dead") else 0,
        float("inf") if expires is None else expires, len(settle.then), 0 if nack is None else 1,
    )  # fmt: skip
    if settle.outcome.terminal:
        body = encode_outcome(changes)
    else:
        numbers, body = encode_lines(changes)
        head += _NUMBERS.pack(*numbers)
    if nack is not None:
        head += _NACK.pack(nack.delay, nack.deliveries, nack.min_epoch)
    owner = handle.owner.encode()
    args = [head + _SHORT.pack(len(owner)) + owner, body]
    if settle.then:
        args += additions(settle.then, queues)[0]
    return args
