"""The application that the worker processes of the tests of `limits` run. Its tasks tell Redis what they do."""

from __future__ import annotations

import asyncio
import os
import time

from redis.asyncio import Redis

from qtasks import QueueTasks, Router, current_task
from qtasks.plugins.limits import Limit, LimitsPlugin

router = Router()
LOG = "test:log"


async def tell(what: str) -> None:
    """Writes a line into a log that all processes share; Redis gives it its order."""
    redis = Redis.from_url(current_task().app.url)
    async with redis:
        await redis.rpush(LOG, f"{what} {os.getpid()} {time.time()}")


@router.task(name="both", extra={"limits": Limit(concurrency=2)})
async def both() -> None:
    await tell("begin")
    await asyncio.sleep(0.02)
    await tell("end")


@router.task(name="hold", extra={"limits": Limit(concurrency=1, name="hold")})
async def hold() -> None:
    """The first one never ends."""
    await tell("hold")
    print("holding", flush=True)
    await asyncio.Event().wait()


@router.task(name="next", extra={"limits": Limit(concurrency=1, name="hold")})
async def next_one() -> int:
    return os.getpid()


@router.task(name="slowly", extra={"limits": Limit(rate=10, burst=2)})
async def slowly() -> float:
    return time.time()


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[LimitsPlugin()])
    application.include_router(router)
    return application


app = make()
