"""How fast the cores are just now: the CPU time of a fixed piece of work, for those who read the figures."""

from __future__ import annotations

import os
import statistics
import time

ROUNDS = 300_000
"""Some 25 ms on a core of today."""


def core_seconds() -> float:
    """CPU seconds that a loop of Python takes on a core, the mean of all cores that this process may use."""
    allowed = os.sched_getaffinity(0)
    try:
        return statistics.mean(_on(core) for core in allowed)
    finally:
        os.sched_setaffinity(0, allowed)


def _on(core: int) -> float:
    os.sched_setaffinity(0, {core})  # of this thread alone
    began, value = time.thread_time(), 0
    for number in range(ROUNDS):
        value = (value * 3 + number) % 1_000_003
    return time.thread_time() - began
