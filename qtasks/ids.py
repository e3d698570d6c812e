"""UUIDs, made without the checks that are for what people type: half the time of `uuid.UUID`, and several are made
for every task."""

from __future__ import annotations

import os
from uuid import UUID, SafeUUID

_new, _set, _unknown = object.__new__, object.__setattr__, SafeUUID.unknown
_DRAWN = 256


def uuid_of(data: bytes) -> UUID:
    """`UUID(bytes=data)`; `data` has 16 bytes."""
    uuid = _new(UUID)
    _set(uuid, "int", int.from_bytes(data, "big"))
    _set(uuid, "is_safe", _unknown)
    return uuid


class _Random:
    """Random bytes of the system, drawn for many UUIDs at once: a draw is a system call."""

    def __init__(self) -> None:
        self.forget()
        # A child process must not hand out what its parent hands out.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._left: list[bytes] = []

    def __call__(self) -> bytes:
        try:
            return self._left.pop()
        except IndexError:
            drawn = os.urandom(16 * _DRAWN)
            self._left = [drawn[i : i + 16] for i in range(16, len(drawn), 16)]
            return drawn[:16]


_random = _Random()


def new_uuid() -> UUID:
    """`uuid.uuid4()`."""
    number = int.from_bytes(_random(), "big")
    uuid = _new(UUID)
    _set(uuid, "int", number & ~(0xC000 << 48 | 0xF000 << 64) | 0x8000 << 48 | 4 << 76)
    _set(uuid, "is_safe", _unknown)
    return uuid
