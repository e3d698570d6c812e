"""The clocks of the processes that chaos runs; everything that asks `time.time` sees them.

That of the machine may be wrong, for all of its processes alike: the seconds stand in a file that they map. That of one
process may jump besides: with `CHAOS_CLOCK=seed` in its environment twice a second, by up to an hour ahead or back. The
second is what another machine with a wrong clock would be; an SQLite file is not shared with another machine, so it
keeps to the clock of its own, as a Redis server does. What is written down keeps to `wall`.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
from pathlib import Path

wall = time.time
"""The clock that is always right."""

FARTHEST = 3600.0
_OFFSET = struct.Struct("d")


def set_machine(folder: Path, seconds: float) -> None:
    """From now on the clock of the machine is wrong by so much, for the processes of this site."""
    with (folder / "clock").open("r+b" if (folder / "clock").exists() else "w+b") as file:
        file.write(_OFFSET.pack(seconds))


def _mapped() -> mmap.mmap | None:
    path = Path(os.environ.get("CHAOS_DIR", "")) / "clock"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)


_wrong = _mapped()


def machine() -> float:
    """The time by the clock of the machine."""
    return wall() if _wrong is None else wall() + _OFFSET.unpack_from(_wrong)[0]


def jumping(seed: str) -> float:
    """The time as a clock has it that jumps."""
    drawn = random.Random(f"{seed}/{int(time.monotonic() * 2)}")
    return machine() + drawn.choice((0.0, drawn.uniform(-FARTHEST, FARTHEST)))


if "CHAOS_CLOCK" in os.environ:
    _seed = os.environ["CHAOS_CLOCK"]
    time.time = lambda: jumping(_seed)
elif _wrong is not None:
    time.time = machine
