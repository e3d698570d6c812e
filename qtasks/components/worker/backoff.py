"""How long to wait before a backend that is away is asked again."""

from __future__ import annotations

import asyncio
import random

FIRST, LONGEST = 0.05, 5.0


class Backoff:
    """50 ms, doubled with each failure up to 5 s, with jitter (DELIVERY.md, "Worker")."""

    def __init__(self) -> None:
        self._next = FIRST

    async def wait(self) -> None:
        """Waits, longer each time."""
        await asyncio.sleep(self._next * random.uniform(0.5, 1.0))
        self._next = min(self._next * 2, LONGEST)

    def reset(self) -> None:
        """The backend answered."""
        self._next = FIRST
