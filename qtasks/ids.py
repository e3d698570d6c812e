"""UUIDs, made without the checks that are for what people type: a fraction of the time of `uuid.UUID`, and several are
made for every task."""

from __future__ import annotations

import os
from struct import Struct
from uuid import UUID, SafeUUID

_new, _unknown = object.__new__, SafeUUID.unknown
# A UUID refuses to be changed; its slots do not.
_set_int, _set_is_safe = UUID.__dict__["int"].__set__, UUID.__dict__["is_safe"].__set__
_DRAWN = 256
_NUMBER = Struct("16s")
# What version 4 and its variant make of the two bytes that tell them.
_VERSION = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))


def uuid_of(data: bytes) -> UUID:
    """`UUID(bytes=data)`; `data` has 16 bytes."""
    uuid = _new(UUID)
    _set_int(uuid, int.from_bytes(data, "big"))
    _set_is_safe(uuid, _unknown)
    return uuid


class _Random:
    """Random numbers of the system, as UUIDs have them. They are drawn for many at once: a draw is a system call."""

    def __init__(self) -> None:
        self.forget()
        # A child process must not hand out what its parent hands out.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self.left: list[int] = []

    def draw(self) -> int:
        drawn = bytearray(os.urandom(16 * _DRAWN))
        drawn[6::16] = drawn[6::16].translate(_VERSION)
        drawn[8::16] = drawn[8::16].translate(_VARIANT)
        first, *self.left = [int.from_bytes(number, "big") for (number,) in _NUMBER.iter_unpack(drawn)]
        return first


_random = _Random()


def new_uuid() -> UUID:
    """`uuid.uuid4()`."""
    try:
        number = _random.left.pop()
    except IndexError:
        number = _random.draw()
    uuid = _new(UUID)
    _set_int(uuid, number)
    _set_is_safe(uuid, _unknown)
    return uuid
