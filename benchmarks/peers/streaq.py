"""streaQ, with the concurrency of its own benchmarks, uvloop and hiredis."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

from streaq import Worker

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, URL, Peer, main

POLL = 0.0005
"""Seconds between two looks for a result."""

worker: Worker[Any] = Worker(redis_url=URL, concurrency=32, anyio_kwargs={"use_uvloop": True})


# `silent`: the worker logs no line per task, as with the others.
@worker.task(name="empty", silent=True)
async def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


@worker.task(name="echo", silent=True)
async def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


@worker.task(name="empty_sync", silent=True)
def empty_sync() -> int:
    """A plain function, which runs in a thread."""
    tick()
    return EMPTY


TASKS: dict[str, Any] = {"empty": empty, "echo": echo, "empty_sync": empty_sync}


class Streaq(Peer):
    """The client."""

    packages = ("streaq", "coredis", "hiredis", "uvloop")
    bulk = True

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        await self.stack.enter_async_context(worker)

    async def close(self) -> None:
        await self.stack.aclose()

    async def add(self, task: str, *args: Any) -> str:
        return str((await TASKS[task].enqueue(*args)).id)

    async def add_many(self, task: str, args: tuple[Any, ...], count: int) -> list[str]:
        ids: list[str] = []
        for begin in range(0, count, 1000):
            tasks = [TASKS[task].enqueue(*args) for _ in range(min(1000, count - begin))]
            await worker.enqueue_many(tasks)
            ids += [str(each.id) for each in tasks]
        return ids

    async def call(self, task: str, *args: Any) -> Any:
        task_id = await self.add(task, *args)
        while (result := await self.stored(task_id)) is None:
            await asyncio.sleep(POLL)
        return result

    async def stored(self, task_id: str) -> Any:
        # Its own `result()` takes 0.1 s more, which it waits for the end of its subscription.
        data = await worker.redis.get(worker.results_key + task_id)
        return None if data is None else (await worker.deserialize(data))["r"]

    def worker(self) -> list[str]:
        return [sys.executable, "-m", "streaq", "run", "benchmarks.peers.streaq:worker"]


if __name__ == "__main__":
    main(Streaq)
