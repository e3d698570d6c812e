"""arq, as its documentation has it; more jobs at once, a short poll delay, uvloop and hiredis."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, URL, Peer, main

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

POLL = 0.001
"""Seconds between two looks for jobs, and for a result; the default of 0.5 s would decide every figure."""


async def empty(ctx: Any) -> int:
    """Does nothing."""
    tick()
    return EMPTY


async def echo(ctx: Any, text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


async def empty_sync(ctx: Any) -> int:
    """A plain function in a thread, as the documentation advises; arq itself takes coroutines only."""
    return await asyncio.to_thread(plain)


def plain() -> int:
    """The plain function."""
    tick()
    return EMPTY


class WorkerSettings:
    """What the command `arq` reads."""

    functions = (empty, echo, empty_sync)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 100
    poll_delay = POLL


LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": "WARNING"}}}


class Arq(Peer):
    """The client. It has no call that adds many jobs at once."""

    packages = ("arq", "redis", "hiredis", "uvloop")

    async def open(self) -> None:
        self.pool = await create_pool(WorkerSettings.redis_settings)

    async def close(self) -> None:
        await self.pool.aclose()

    async def add(self, task: str, *args: Any) -> str:
        return (await self._enqueue(task, args)).job_id

    async def call(self, task: str, *args: Any) -> Any:
        return await (await self._enqueue(task, args)).result(timeout=30, poll_delay=POLL)

    async def _enqueue(self, task: str, args: tuple[Any, ...]) -> Job:
        job = await self.pool.enqueue_job(task, *args)
        assert job is not None
        return job

    async def stored(self, task_id: str) -> Any:
        info = await Job(task_id, self.pool).result_info()
        return None if info is None else info.result

    def worker(self) -> list[str]:
        return [
            sys.executable, "-m", "arq", "--custom-log-dict", "benchmarks.peers.arq.LOGGING",
            "benchmarks.peers.arq.WorkerSettings",
        ]  # fmt: skip


if __name__ == "__main__":
    main(Arq)
