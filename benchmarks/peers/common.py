"""What every contender answers to, and the client's side of the measurements: the same code for all.

A contender is a module of this folder, run in its own environment: `python -m benchmarks.peers.NAME VERB`.
It prints one line of JSON. Standard library only, since it is imported in the environments of the peers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
"""The store."""
OPTIONS: dict[str, Any] = json.loads(os.environ.get("BENCH_OPTIONS", "{}"))
"""What this run asks of the contender beyond its default."""
CROWD = 100
"""Callers at once."""
PAYLOAD = 1024
"""Bytes of the argument, and of the result, of the task `echo`."""
TASKS = ("empty", "echo", "empty_sync")
"""`empty` takes nothing and gives 1; `echo` gives its argument back; `empty_sync` is a plain function."""
EMPTY = 1
TEXT = "x" * PAYLOAD


def args_of(task: str) -> tuple[Any, ...]:
    """The arguments with which a task is added."""
    return (TEXT,) if task == "echo" else ()


def result_of(task: str) -> Any:
    """What it must give."""
    return TEXT if task == "echo" else EMPTY


class Peer(ABC):
    """One contender with an asynchronous client.

    Attributes:
        packages: the distributions whose versions are reported.
        bulk: whether it has a call that adds many tasks.
    """

    packages: ClassVar[tuple[str, ...]]
    bulk: ClassVar[bool] = False

    @abstractmethod
    async def open(self) -> None:
        """Connects the client."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnects it."""

    @abstractmethod
    async def add(self, task: str, *args: Any) -> str:
        """Adds one task; gives its id."""

    async def add_many(self, task: str, args: tuple[Any, ...], count: int) -> list[str]:
        """Adds many in one call (or as few as its documentation has it); gives their ids."""
        raise NotImplementedError

    @abstractmethod
    async def call(self, task: str, *args: Any) -> Any:
        """Adds one task and waits for its result, as fast as the contender can."""

    @abstractmethod
    async def stored(self, task_id: str) -> Any:
        """The stored result of a finished task, `None` where there is none yet."""

    @abstractmethod
    def worker(self) -> list[str]:
        """The command that starts one worker process, as a user would."""


class SyncPeer(ABC):
    """One contender whose client is not asynchronous; as `Peer`."""

    packages: ClassVar[tuple[str, ...]]
    bulk: ClassVar[bool] = False

    def add_many(self, task: str, args: tuple[Any, ...], count: int) -> list[str]:
        """Adds many in one call; gives their ids."""
        raise NotImplementedError

    @abstractmethod
    def add(self, task: str, *args: Any) -> str:
        """Adds one task; gives its id."""

    @abstractmethod
    def call(self, task: str, *args: Any) -> Any:
        """Adds one task and waits for its result."""

    @abstractmethod
    def stored(self, task_id: str) -> Any:
        """The stored result of a finished task, `None` where there is none yet."""

    @abstractmethod
    def worker(self) -> list[str]:
        """The command that starts one worker process, as a user would."""


class Segment:
    """Measures a stretch of work of this process; used as a context manager."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Segment:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu

    def figures(self) -> dict[str, float]:
        """For the report."""
        return {"count": self.count, "seconds": self.seconds, "cpu": self.cpu}


Figures = dict[str, Any]


async def fill(peer: Peer, task: str, one: int, crowd: int, bulk: int) -> Figures:
    """Adds tasks one by one, then by 100 callers at once, then in bulk."""
    args, found, ids = args_of(task), {}, []
    await peer.open()
    try:
        if one:
            with Segment(one) as segment:
                ids += [await peer.add(task, *args) for _ in range(one)]
            found["one"] = segment.figures()
        if crowd:
            left = iter(range(crowd))

            async def caller() -> None:
                ids.extend([await peer.add(task, *args) for _ in left])

            with Segment(crowd) as segment:
                await asyncio.gather(*(caller() for _ in range(CROWD)))
            found["crowd"] = segment.figures()
        if bulk:
            with Segment(bulk) as segment:
                ids += await peer.add_many(task, args, bulk)
            found["bulk"] = segment.figures()
    finally:
        await peer.close()
    return {**found, "ids": sample(ids)}


def fill_sync(peer: SyncPeer, task: str, one: int, crowd: int, bulk: int) -> Figures:
    """As `fill`; callers that are meant to be concurrent come one by one."""
    args, found, ids = args_of(task), {}, []
    if one + crowd:
        with Segment(one + crowd) as segment:
            ids += [peer.add(task, *args) for _ in range(one + crowd)]
        found["one"] = segment.figures()
    if bulk:
        with Segment(bulk) as segment:
            ids += peer.add_many(task, args, bulk)
        found["bulk"] = segment.figures()
    return {**found, "ids": sample(ids)}


def sample(ids: list[str]) -> list[str]:
    """Some of the ids, to look at their results later."""
    return ids[:: max(1, len(ids) // 20)]


async def roundtrip(peer: Peer, task: str, count: int) -> Figures:
    """The seconds of each round trip."""
    args, expected, seconds = args_of(task), result_of(task), []
    await peer.open()
    try:
        for number in range(-WARM_UP, count):
            began = time.perf_counter()
            got = await peer.call(task, *args)
            if number >= 0:
                seconds.append(time.perf_counter() - began)
            confirm(got, expected)
    finally:
        await peer.close()
    return {"seconds": seconds}


def roundtrip_sync(peer: SyncPeer, task: str, count: int) -> Figures:
    """As `roundtrip`."""
    args, expected, seconds = args_of(task), result_of(task), []
    for number in range(-WARM_UP, count):
        began = time.perf_counter()
        got = peer.call(task, *args)
        if number >= 0:
            seconds.append(time.perf_counter() - began)
        confirm(got, expected)
    return {"seconds": seconds}


WARM_UP = 10
PATIENCE = 5.0
"""Seconds that the results of the last executions may take to be stored."""


def confirm(got: Any, expected: Any) -> None:
    """A contender that gives a wrong result, or none, has no figures."""
    if got != expected:
        raise SystemExit(f"wrong result: {str(got)[:80]!r} instead of {str(expected)[:80]!r}")


async def check(peer: Peer, task: str, ids: list[str]) -> Figures:
    """Counts which of these tasks have their result stored."""
    stored = 0
    await peer.open()
    try:
        deadline = time.monotonic() + PATIENCE
        for each in ids:
            while (got := await peer.stored(each)) is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            stored += is_right(got, task)
    finally:
        await peer.close()
    return {"stored": stored}


def check_sync(peer: SyncPeer, task: str, ids: list[str]) -> Figures:
    """As `check`."""
    stored = 0
    deadline = time.monotonic() + PATIENCE
    for each in ids:
        while (got := peer.stored(each)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        stored += is_right(got, task)
    return {"stored": stored}


def is_right(got: Any, task: str) -> bool:
    """Whether there is a result; a wrong one ends the measurement."""
    if got is not None:
        confirm(got, result_of(task))
    return got is not None


def run(work: Coroutine[Any, Any, Figures]) -> Figures:
    """On uvloop, as the contenders' documentation advises where it speaks of it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main(make: Callable[[], Peer | SyncPeer]) -> None:
    """The command line of a contender."""
    import argparse  # of the client alone: a worker imports its tasks, and this with them

    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["worker", "fill", "roundtrip", "check", "versions"])
    parser.add_argument("--task", choices=TASKS, default="empty")
    for name in ("one", "crowd", "bulk", "count"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--ids", type=Path, help="a JSON file with a list of ids")
    options = parser.parse_args()
    peer = make()
    if options.verb == "worker":
        command = peer.worker()
        sys.stdout.flush()
        os.execvp(command[0], command)
    if options.verb == "versions":
        print(json.dumps({name: version(name) for name in peer.packages}))
        return
    numbers = (options.one, options.crowd, options.bulk if peer.bulk else 0)
    if options.verb == "fill" and not peer.bulk:
        numbers = (options.one, options.crowd + options.bulk, 0)
    figures: Figures
    if isinstance(peer, Peer):
        if options.verb == "fill":
            figures = run(fill(peer, options.task, *numbers))
        elif options.verb == "roundtrip":
            figures = run(roundtrip(peer, options.task, options.count))
        else:
            figures = run(check(peer, options.task, json.loads(options.ids.read_text())))
    elif options.verb == "fill":
        figures = fill_sync(peer, options.task, *numbers)
    elif options.verb == "roundtrip":
        figures = roundtrip_sync(peer, options.task, options.count)
    else:
        figures = check_sync(peer, options.task, json.loads(options.ids.read_text()))
    print(json.dumps(figures))
