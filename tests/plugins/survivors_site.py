"""The application of the long test: chains, limits, schedules and dependencies together, in workers that are killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from redis.asyncio import Redis

from qtasks import QueueTasks, Router, TaskContext
from qtasks.plugins.chain import ChainPlugin
from qtasks.plugins.depends import Depends, DependsPlugin
from qtasks.plugins.limits import Limit, LimitsPlugin
from qtasks.plugins.unique import UniquePlugin

router = Router()
LOG = "test:log"
URL = os.environ.get("QTASKS_URL", "")
INTERVAL = 0.2


async def redis() -> AsyncIterator[Redis]:
    async with Redis.from_url(URL) as client:
        yield client


Client = Annotated[Redis, Depends(redis, scope="worker")]


async def place(client: Client, context: TaskContext) -> AsyncIterator[None]:
    """Tells when the code of a run begins and ends."""
    await client.rpush(LOG, f"begin {context.uuid} {os.getpid()}")
    yield
    await client.rpush(LOG, f"end {context.uuid} {os.getpid()}")


@router.task(name="add", retry=3, retry_delay=0, extra={"limits": Limit(concurrency=3)})
async def add(a: int, b: int, place: Annotated[None, Depends(place)]) -> int:
    await asyncio.sleep(0.01)
    return a + b


@router.task(name="total")
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@router.every(INTERVAL, catch_up="all", most=1000)
@router.task(name="tick")
async def tick() -> None: ...


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    plugins = [ChainPlugin(), DependsPlugin(), LimitsPlugin(), UniquePlugin()]
    application = QueueTasks(url=url, plugins=plugins)
    application.include_router(router)
    return application


app = make()
