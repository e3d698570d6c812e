"""Places where crash tests kill the process: `QTASKS_FAILPOINT="name"` or `"name:n"` (its n-th hit)."""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("QTASKS_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def _kill(name: str) -> None:
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _nothing(name: str) -> None:
    pass


hit = _kill if _name else _nothing
"""`hit("name")` marks a place."""
