"""What qtasks costs a Redis server, counted by the server (`INFO commandstats`): `python -m benchmarks.redis_commands`.

Round trips per task over 1,000 tasks, added one by one, by 100 callers, and in bulk; and commands per second of a
worker and of a waiting client that have nothing to do. It starts a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import redis

from qtasks import QueueTasks, TaskRequest
from tests.support.redis_server import RedisServer

TASKS = 1000
DIRECT = ("evalsha", "script|load", "ping", "subscribe", "hscan", "info", "select")
"""What the backend sends. The other commands of the statistics run inside of scripts, but for one HMGET a second of a
worker that runs tasks, which looks for requests to cancel them."""

Step = Callable[[], Awaitable[object]]


def counted(client: redis.Redis) -> Counter[str]:
    """Calls by command."""
    stats = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})


async def measure(client: redis.Redis, step: Step) -> tuple[Counter[str], float]:
    """What the server was sent meanwhile, and how long it took."""
    before, began = counted(client), time.monotonic()
    await step()
    seconds = time.monotonic() - began
    found = counted(client) - before
    found["info"] -= 1
    return Counter({name: found[name] for name in DIRECT if found[name] > 0}), seconds


def application(url: str) -> QueueTasks:
    """One with a task that does nothing."""
    app = QueueTasks("cost", url)

    @app.task(name="noop")
    async def noop() -> int:
        return 1

    return app


async def one_by_one(app: QueueTasks) -> None:
    """One caller, one task at a time."""
    for _ in range(TASKS):
        await app.add_task("noop")


async def callers(app: QueueTasks) -> None:
    """100 callers at once, one task at a time each."""
    left = iter(range(TASKS))

    async def caller() -> None:
        for _ in left:
            await app.add_task("noop")

    await asyncio.gather(*(caller() for _ in range(100)))


async def bulk(app: QueueTasks) -> None:
    """100 tasks per call."""
    for _ in range(TASKS // 100):
        await app.add_tasks([TaskRequest(task_name="noop")] * 100)


async def round_trips(client: redis.Redis, url: str) -> None:
    """Of enqueueing, and of running what was enqueued."""
    app = application(url)
    async with app:
        for name, adding in (("one by one", one_by_one), ("100 callers", callers), ("bulk of 100", bulk)):
            for what, step in (
                (f"add, {name}", partial(adding, app)),
                ("run", partial(app.serve, until_idle=True)),
            ):
                found, seconds = await measure(client, step)
                show(what, found, found["evalsha"] / TASKS, "round trips per task", seconds)


async def rest(client: redis.Redis, url: str, seconds: float) -> None:
    """Of an idle worker, then of a client that waits for a result."""
    app = application(url)

    async def wait() -> None:
        await asyncio.sleep(seconds)

    serving = asyncio.create_task(app.serve())
    await asyncio.sleep(5)  # what it looks at when it starts
    found, took = await measure(client, wait)
    show("idle worker", found, sum(found.values()) / took, "commands per second", took)
    await app.stop()
    await serving
    async with app:
        task = await app.add_task("noop", delay=3600)
        waiting = asyncio.create_task(task.wait_result())
        await asyncio.sleep(1)
        found, took = await measure(client, wait)
        show("waiting client", found, sum(found.values()) / took, "commands per second", took)
        waiting.cancel()


def show(what: str, found: Counter[str], figure: float, unit: str, seconds: float) -> None:
    """One line."""
    print(f"{what:22} {figure:7.3f} {unit:22} {seconds:6.1f} s  {dict(found)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rest", type=float, default=60.0, help="seconds at rest")
    options = parser.parse_args()
    with RedisServer(appendonly="yes", appendfsync="everysec") as server, server.client() as client:
        asyncio.run(round_trips(client, server.url()))
        asyncio.run(rest(client, server.url(), options.rest))


if __name__ == "__main__":
    main()
