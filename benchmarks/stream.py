"""What an item of a stream costs, to store and to read, beside the same items in one result.

`python -m benchmarks.stream [memory] [sqlite] [redis] [--items 20000] [--repeat 3]`

One process is client and worker, on the default event loop. Time runs from `add_task` to the result, and
then over reading the stored items back; CPU time is of this process with its threads, without a Redis
server's. Every repetition is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

from qtasks import QueueTasks
from tests.support.redis_server import RedisServer

BACKENDS = ("memory", "sqlite", "redis")


async def numbers(items: int) -> AsyncIterator[int]:
    """Yields on the event loop."""
    for number in range(items):
        yield number


def numbers_in_a_thread(items: int) -> Iterator[int]:
    """Yields in a thread."""
    yield from range(items)


class Cost:
    """Prints what each item took."""

    def __init__(self, what: str, items: int) -> None:
        self._what, self._items = what, items

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(f"  {self._what:34} {1e6 * wall / self._items:6.1f} µs {1e6 * cpu / self._items:6.1f} µs CPU")


async def read(app: QueueTasks, uuid: UUID) -> int:
    """Reads a stream to its end; how many items it had."""
    return len([item async for item in app.stream(uuid)])


async def measure(url: str, items: int, repeat: int) -> None:
    """All repetitions on one store."""
    app = QueueTasks("stream", url)
    app.task(name="stream", stream=True)(numbers)
    app.task(name="stream-in-a-thread", stream=True)(numbers_in_a_thread)
    app.task(name="not-a-stream")(numbers)
    async with app:
        serving = asyncio.create_task(app.serve())
        for number in range(repeat):
            print(f" run {number + 1}")
            for name in app.tasks:
                with Cost(f"{name}: to the result", items):
                    task = await app.add_task(name, args=(items,), timeout=600)
                assert len(task.returning) == items, task.traceback
                if app.tasks[name].stream:
                    with Cost(f"{name}: read", items):
                        assert await read(app, task.uuid) == items
        await app.stop()
        await serving


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=", ".join(BACKENDS))
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for backend in options.backends or BACKENDS:
            match backend:
                case "memory":
                    url = "memory://"
                case "sqlite":
                    url = f"sqlite:///{folder}/stream.db"
                case "redis":
                    url = stack.enter_context(RedisServer(appendonly="no")).url()
                case _:
                    parser.error(f"{backend!r} is none of {', '.join(BACKENDS)}")
            print(f"{backend}: {options.items:,} items")
            asyncio.run(measure(url, options.items, options.repeat))


if __name__ == "__main__":
    main()
