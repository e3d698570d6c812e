"""The application that the worker processes of the tests of `depends` run; it tells Redis what it opens and closes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from redis import Redis as SyncRedis
from redis.asyncio import Redis

from qtasks import QueueTasks, Router, TaskContext
from qtasks.plugins.depends import Depends, DependsPlugin

router = Router()
LOG = "test:log"
URL = os.environ.get("QTASKS_URL", "")


async def pool() -> AsyncIterator[Redis]:
    """One for each worker process."""
    async with Redis.from_url(URL) as client:
        await client.rpush(LOG, f"open pool {os.getpid()}")
        yield client
        await client.rpush(LOG, f"close pool {os.getpid()}")


Pool = Annotated[Redis, Depends(pool, scope="worker")]


async def session(pool: Pool, context: TaskContext) -> AsyncIterator[str]:
    """One for each run."""
    name = f"{context.uuid} {os.getpid()}"
    await pool.rpush(LOG, f"open session {name}")
    try:
        yield name
    finally:
        await pool.rpush(LOG, f"close session {name}")


def cursor(session: Annotated[str, Depends(session)]) -> Iterator[str]:
    """Inside of a session, by blocking code."""
    with SyncRedis.from_url(URL) as client:
        client.rpush(LOG, f"open cursor {session}")
        try:
            yield session
        finally:
            client.rpush(LOG, f"close cursor {session}")


Cursor = Annotated[str, Depends(cursor)]


@router.task(name="work", max_time=None)
async def work(how: str, cursor: Cursor) -> str:
    print(f"{how} began", flush=True)
    if how == "fail":
        raise ValueError
    if how == "hang":
        await asyncio.Event().wait()
    if how == "hang once" and not os.path.exists("hung"):
        open("hung", "w").close()
        await asyncio.Event().wait()
    return cursor


@router.task(name="late", max_time=0.05)
async def late(cursor: Cursor) -> None:
    await asyncio.Event().wait()


@router.task(name="plain")
def plain(how: str, cursor: Cursor) -> str:
    return cursor


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[DependsPlugin()])
    application.include_router(router)
    return application


app = make()
