"""SAQ, as its documentation has it; concurrency raised to that of the others, uvloop and hiredis."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, OPTIONS, URL, Peer, main

# The command `saq` makes its event loop after it has imported the settings.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

POLL = 0.0005
"""Seconds between two looks for a result; the default is 0.5 s."""


async def empty(ctx: Any) -> int:
    """Does nothing."""
    tick()
    return EMPTY


async def echo(ctx: Any, *, text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


def empty_sync(ctx: Any) -> int:
    """A plain function, which runs in a thread."""
    tick()
    return EMPTY


# Each of 100 jobs at once may need a connection; redis-py's pool ends at 100 if nobody says more.
queue = RedisQueue(Redis.from_url(URL, max_connections=500), max_concurrent_ops=100)
settings = {
    "queue": queue,
    "functions": [empty, echo, empty_sync],
    "concurrency": OPTIONS.get("concurrency", 100),
}


class Saq(Peer):
    """The client. It has no call that adds many jobs at once."""

    packages = ("saq", "redis", "hiredis", "uvloop")

    async def open(self) -> None:
        await queue.connect()

    async def close(self) -> None:
        await queue.disconnect()

    async def add(self, task: str, *args: Any) -> str:
        job = await queue.enqueue(task, **named(args))
        assert job is not None
        return str(job.key)

    async def call(self, task: str, *args: Any) -> Any:
        return await queue.apply(task, poll_interval=POLL, **named(args))

    async def stored(self, task_id: str) -> Any:
        job = await queue.job(task_id)
        return None if job is None else job.result

    def worker(self) -> list[str]:
        return [sys.executable, "-m", "saq", "benchmarks.peers.saq.settings"]


def named(args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments of a job are keyword arguments."""
    return {"text": args[0]} if args else {}


if __name__ == "__main__":
    main(Saq)
