"""The clock of a process that chaos runs. With `CHAOS_CLOCK=seed` in its environment it jumps, twice a second, by up
to an hour ahead or back: everything that asks `time.time` sees that. What is written down keeps to `wall`.
"""

from __future__ import annotations

import os
import random
import time

wall = time.time
"""The clock that does not jump."""

FARTHEST = 3600.0


def jumping(seed: str) -> float:
    """The time as a clock has it that jumps."""
    drawn = random.Random(f"{seed}/{int(time.monotonic() * 2)}")
    return wall() + drawn.choice((0.0, 0.0, drawn.uniform(-FARTHEST, FARTHEST)))


if "CHAOS_CLOCK" in os.environ:
    _seed = os.environ["CHAOS_CLOCK"]
    time.time = lambda: jumping(_seed)
