"""Taskiq with the stream broker of taskiq-redis, which acknowledges; uvloop, hiredis and orjson."""

from __future__ import annotations

import sys
from typing import Any

from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, URL, Peer, main

POLL = 0.0005
"""Seconds between two looks for a result; the default is 0.2 s."""

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(URL)
broker = RedisStreamBroker(URL).with_result_backend(results).with_serializer(ORJSONSerializer())


@broker.task(task_name="empty")
async def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


@broker.task(task_name="echo")
async def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


@broker.task(task_name="empty_sync")
def empty_sync() -> int:
    """A plain function, which runs in a thread."""
    tick()
    return EMPTY


TASKS: dict[str, Any] = {"empty": empty, "echo": echo, "empty_sync": empty_sync}


class Taskiq(Peer):
    """The client. It has no call that adds many tasks at once."""

    packages = ("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop", "orjson")

    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def add(self, task: str, *args: Any) -> str:
        return str((await TASKS[task].kiq(*args)).task_id)

    async def call(self, task: str, *args: Any) -> Any:
        added = await TASKS[task].kiq(*args)
        return (await added.wait_result(check_interval=POLL, timeout=30)).return_value

    async def stored(self, task_id: str) -> Any:
        if not await results.is_result_ready(task_id):
            return None
        return (await results.get_result(task_id)).return_value

    def worker(self) -> list[str]:
        return [
            sys.executable, "-m", "taskiq", "worker", "benchmarks.peers.taskiq:broker", "--workers", "1",
            "--max-async-tasks", "100", "--max-prefetch", "100", "--log-level", "WARNING",
        ]  # fmt: skip


if __name__ == "__main__":
    main(Taskiq)
