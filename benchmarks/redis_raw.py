"""Raw figures of the Redis backend, without triggers and models: `python -m benchmarks.redis_raw`.

It starts a server of its own. Beside each rate stands what a task costs the client and the server, since
the two share the machine: pushes, claims and settles in batches of 1 and 100, 100 callers at once, bytes per
waiting task. Then the layers of a single add, one call after the other: a PING, a script that does nothing, the script
that adds a task, and `add_task`. They take turns; here the server's share is all its CPU, waking included.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median

import redis

from benchmarks.peers.ceiling import addition
from benchmarks.session import JEMALLOC
from qtasks import QueueTasks
from qtasks.components.primitives import DeliveryHandle
from qtasks.components.redis import RedisBroker, RedisLink
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer

TASKS = {100: 20_000, 1: 4_000}
TURNS, CALLS = 5, 2_000


class Meter:
    """Measures a stretch of work by the wall, by this process and by the server."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()

    async def measure(self, name: str, tasks: int, work: Callable[[], Awaitable[None]]) -> None:
        """Runs the work and prints what it cost per task."""
        self.client.config_resetstat()
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        served = self.client.info("commandstats")["cmdstat_evalsha"]["usec"] / tasks
        print(
            f"{name:28} {tasks / wall:>9,.0f} /s   client {1e6 * cpu / tasks:5.1f} µs   server {served:5.1f} µs"
        )

    def memory(self) -> int:
        """Bytes that the server uses."""
        used: int = self.client.info("memory")["used_memory"]
        return used


async def batches(broker: RedisBroker, meter: Meter, size: int) -> None:
    """The way of tasks in batches of one size."""
    tasks = TASKS[size]
    records = [record(task_name="bench.noop", args=(1,), digest=os.urandom(16).hex()) for _ in range(tasks)]
    handles: list[DeliveryHandle] = []

    async def push() -> None:
        for i in range(0, tasks, size):
            await broker.add_and_push(records[i : i + size], None)

    async def claim() -> None:
        while len(handles) < tasks:
            handles.extend(
                [handle for handle, _ in await broker.claim_and_start(size, QUEUE, "bench", 600.0)]
            )

    async def settle() -> None:
        for i in range(0, tasks, size):
            await broker.settle_and_ack([success(handle) for handle in handles[i : i + size]])

    before = meter.memory()
    await meter.measure(f"push by {size}", tasks, push)
    print(f"{'bytes per waiting task':28} {(meter.memory() - before) / tasks:>9,.0f}")
    await meter.measure(f"claim and start by {size}", tasks, claim)
    await meter.measure(f"settle and ack by {size}", tasks, settle)


async def crowd(broker: RedisBroker, meter: Meter) -> None:
    """100 callers, one task at a time each."""
    records = iter([record(task_name="bench.noop", args=(1,)) for _ in range(20_000)])

    async def caller() -> None:
        for each in records:
            await broker.add_and_push([each], None)

    async def all_of_them() -> None:
        await asyncio.gather(*(caller() for _ in range(100)))

    await meter.measure("push, 100 callers", 20_000, all_of_them)


async def layers(server: RedisServer, client: redis.Redis) -> None:
    """What each layer of a single add costs."""
    app = QueueTasks("bench", server.url())
    figures: dict[str, list[tuple[float, ...]]] = {}

    @app.task(name="empty")
    async def empty() -> None:
        """Is never run."""

    def served() -> float:
        cpu = client.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    async with app:
        link = RedisLink(app.url)
        await link.open(link, app.name, app.config)
        sha = await link.command("SCRIPT", "LOAD", "return 1")
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "PING": lambda: link.command("PING"),
            "a script that does nothing": lambda: link.command("EVALSHA", sha, "0"),
            "add_plain by hand": lambda: link.run("add_plain", [b"", *addition("empty", ())[1:]], QUEUE),
            "add_task": lambda: app.add_task("empty"),
        }
        for turn in range(TURNS + 1):  # the first one warms up
            for name, step in steps.items():
                wall, cpu, theirs = time.perf_counter(), time.process_time(), served()
                for _ in range(CALLS):
                    await step()
                wall, cpu, theirs = time.perf_counter() - wall, time.process_time() - cpu, served() - theirs
                if turn:
                    figures.setdefault(name, []).append((wall, cpu, theirs))
        await link.close(link)
    for name, found in figures.items():
        wall, cpu, theirs = (1e6 * median(each) / CALLS for each in zip(*found, strict=True))
        print(f"{name:28} {wall:9.1f} µs   client {cpu:5.1f} µs   server {theirs:5.1f} µs")


async def main(server: RedisServer) -> None:
    """All of it."""
    meter = Meter(server)
    for size in TASKS:
        async with opened(server.url()) as (broker, _, _, _):
            await batches(broker, meter, size)
    async with opened(server.url()) as (broker, _, _, _):
        await crowd(broker, meter)
    await layers(server, meter.client)


if __name__ == "__main__":
    if sys.platform != "win32":
        import uvloop

        run = uvloop.run
    else:
        run = asyncio.run
    with RedisServer(preload=JEMALLOC, appendonly="no") as started:
        run(main(started))
