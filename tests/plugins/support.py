"""Waiting for what real processes do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from qtasks import QueueTasks
from tests.support.commands import WAIT, Running

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Looks again and again until there is something, for a bounded time."""
    async with asyncio.timeout(WAIT):
        while not (found := await look()):
            await asyncio.sleep(0.01)
    return found


async def workers_up(app: QueueTasks, count: int) -> None:
    """Returns when so many worker processes show signs of life."""

    async def enough() -> bool:
        return len(await app.global_config.servers()) >= count

    await until(enough)


async def said(workers: Sequence[Running], words: str) -> Running:
    """The worker that first wrote a line with these words."""

    async def one() -> Running | None:
        return next((each for each in workers if any(words in line for line in list(each.lines))), None)

    return await until(one)


async def kill(worker: Running) -> None:
    """kill -9; returns when the process is gone."""
    worker.signal(signal.SIGKILL)
    await asyncio.to_thread(worker.process.wait, WAIT)


def count(workers: Sequence[Running], words: str) -> int:
    """How many lines with these words all of them wrote."""
    return sum(words in line for each in workers for line in list(each.lines))
