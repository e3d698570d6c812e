"""Instructions that a Redis server takes for our scripts: `python -m benchmarks.redis_instructions`.

Counted by valgrind, so nothing else that runs on the machine disturbs it; two runs differ by a percent. They are those
inside EVALSHA, per task, in batches of 1, 10 and 100; `--waited` has a client that waits for each result. The last line
is of tasks that are handed to a worker at rest, with the settle that tells who waits.
It needs valgrind, and starts a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from qtasks.components.primitives import DeliveryHandle
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer, flavours
from tests.support.redis_worker import WAIT, Worker

TASKS = {100: 1000, 10: 200, 1: 100}
VALGRIND = 'exec valgrind --tool=callgrind --toggle-collect=evalShaCommand --callgrind-out-file={out} {server} "$@"\n'


class Counter:
    """Counts the instructions of a server that runs in valgrind.

    Parameters:
        pid: of the server.
        out: where valgrind writes what it counted.
    """

    def __init__(self, pid: int, out: Path) -> None:
        self._pid = pid
        self._out = out

    def _control(self, verb: str) -> None:
        subprocess.run(["callgrind_control", verb, str(self._pid)], check=True, capture_output=True)

    async def count(self, work: Callable[[], Awaitable[None]]) -> int:
        """What the work took."""
        self._control("-z")
        await work()
        self._control("-d")
        newest = max(self._out.parent.glob(f"{self._out.name}.*"), key=lambda path: int(path.suffix[1:]))
        found = re.search(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)
        assert found is not None, f"{newest} has no total"
        return int(found[1])


async def measure(server: RedisServer, counter: Counter, size: int, *, waited: bool) -> dict[str, float]:
    """Instructions per task of each step, in batches of one size."""
    tasks = TASKS[size]
    async with opened(server.url()) as (broker, _, _, link):
        records = [
            record(task_name="bench.noop", args=(1,), digest=os.urandom(16).hex()) for _ in range(tasks)
        ]
        handles: list[DeliveryHandle] = []

        async def add() -> None:
            for i in range(0, tasks, size):
                await broker.add_and_push(records[i : i + size], None)

        async def claim() -> None:
            for _ in range(0, tasks, size):
                handles.extend(
                    [handle for handle, _ in await broker.claim_and_start(size, QUEUE, "b" * 16, 600.0)]
                )

        async def wait() -> None:
            for handle in handles:
                await link.run("wait", [handle.uuid.bytes, b"bench:tell"])

        async def settle() -> None:
            for i in range(0, tasks, size):
                await broker.settle_and_ack([success(handle) for handle in handles[i : i + size]])

        steps = {"add": add, "claim": claim, **({"wait": wait} if waited else {}), "settle": settle}
        await broker.add_and_push([record()], None)  # loads the scripts
        ((handle, _),) = await broker.claim_and_start(size, QUEUE, "b" * 16, 600.0)
        await broker.settle_and_ack([success(handle)])
        return {name: await counter.count(step) / tasks for name, step in steps.items()}


async def measure_handed_over(server: RedisServer, counter: Counter) -> float:
    """Instructions of the two scripts of a round trip."""
    url, tasks = server.url(), 50
    async with opened(url) as (broker, *_), opened(url) as (client, _, _, link):
        worker = Worker(broker)
        await link.notifier.ensure(WAIT)

        async def trip(n: int) -> None:
            link.notifier.awaits = True
            await client.add_and_push([record(task_name="bench.noop", digest=os.urandom(16).hex())], None)
            handle, _ = await worker.gets(n)
            await broker.settle_and_ack([success(handle)])

        async def trips() -> None:
            for n in range(tasks):
                await trip(n + 2)

        await worker.rests()
        await trip(1)  # loads the scripts
        await worker.rests()
        return await counter.count(trips) / tasks


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--waited", action="store_true", help="a client waits for each result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counted"
        program = Path(folder) / "server"
        program.write_text("#!/bin/sh\n" + VALGRIND.format(out=out, server=flavours()[0]))
        program.chmod(0o755)
        with RedisServer(str(program), appendonly="no") as server:
            counter = Counter(server.pid, out)
            for size in TASKS:
                found = asyncio.run(measure(server, counter, size, waited=options.waited))
                print(f"by {size:<4}", *(f"{name} {count:>9,.0f}  " for name, count in found.items()))
            found_trip = asyncio.run(measure_handed_over(server, counter))
            print(f"handed over: add and settle {found_trip:,.0f}")


if __name__ == "__main__":
    main()
