"""Raw rates of a backend's co-located steps, without worker, triggers and models: the floor under a worker.

`python -m benchmarks.backend memory|sqlite|URL [--tasks 20000] [--batch 100] [--repeat 3]`

One process adds all tasks in batches, then claims a batch, settles it with a result, claims the next,
one call after another, so nothing overlaps. CPU time is of the whole process with its threads; it
varies far less than the rates on a machine that others use too.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from uuid import uuid4

from qtasks.backends import Backend, backend_from_url
from qtasks.components.broker import Colocated
from qtasks.components.primitives import Outcome, Settle
from qtasks.schemas import TaskRecord, TaskStatusEnum

URLS: dict[str, Callable[[Path], str]] = {
    "memory": lambda folder: "memory://",
    "sqlite": lambda folder: f"sqlite:///{folder}/bench.db",
}


class Stopwatch:
    """Prints a rate when its block ends."""

    def __init__(self, what: str, tasks: int) -> None:
        self._what = what
        self._tasks = tasks

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(
            f"  {self._what:<14} {self._tasks / wall:>10,.0f}/s {cpu / self._tasks * 1e6:>8.1f} µs CPU each"
        )


async def measure(backend: Backend, tasks: int, batch: int) -> None:
    """One repetition on a fresh backend."""
    steps = backend.broker
    assert isinstance(steps, Colocated)
    for component in backend:
        await component.open()
    try:
        now = time.time()
        records = [
            TaskRecord(uuid=uuid4(), task_name="t", args=(n,), digest="d", created_at=now)
            for n in range(tasks)
        ]
        with Stopwatch("push", tasks):
            for begin in range(0, tasks, batch):
                await steps.add_and_push(records[begin : begin + batch], None)
        with Stopwatch("claim + settle", tasks):
            done = 0
            while started := await steps.claim_and_start(batch, ["default"], "bench", 30.0):
                changes = {
                    "status": TaskStatusEnum.SUCCESS, "updated_at": now, "finished_at": now,
                    "expires_at": now + 60, "returning": 1,
                }  # fmt: skip
                await steps.settle_and_ack(
                    [Settle(handle, Outcome.SUCCESS, dict(changes)) for handle, _ in started]
                )
                done += len(started)
        assert done == tasks
    finally:
        for component in reversed(backend):
            await component.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend", metavar=f"{'|'.join(sorted(URLS))}|URL", help="a URL names an empty store")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.backend}: {options.tasks:,} tasks in batches of {options.batch}, results stored")
    for number in range(1, options.repeat + 1):
        print(f"run {number}")
        folder: AbstractContextManager[str] = (
            nullcontext("") if options.backend == "memory" else tempfile.TemporaryDirectory()
        )
        with folder as name:
            url = URLS[options.backend](Path(name)) if options.backend in URLS else options.backend
            asyncio.run(measure(backend_from_url(url), options.tasks, options.batch))


if __name__ == "__main__":
    main()
