"""One session: a fresh store, tasks added, drained by workers, their memory, round trips, results looked at."""

from __future__ import annotations

import ctypes.util
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contender import Contender, ContenderError
from benchmarks.marks import Marks
from tests.support.redis_server import RedisServer

WORDS = {"one": "add_one", "crowd": "add_crowd", "bulk": "add_bulk"}
JEMALLOC = ctypes.util.find_library("jemalloc")
"""The allocator of the server, as in the packages of Redis and Valkey for Linux; `None` where it is not installed. The
server of the wheel is built with that of the C library, which gets slower as a backlog grows (docs/performance.md)."""
LEFT = 0.2
"""Share of the tasks that must be left when the last worker joins in, for a rate of all of them."""
SETTLED = 0.3
"""Seconds until the server has tidied up after a client that is gone."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Parameters:
        task: `empty`, `echo` (1 KiB) or `empty_sync` (a plain function).
        tasks: how many wait when the workers start.
        one, crowd: how many of them are added one by one, and by 100 callers at once; the rest in bulk, where there
            is such a call.
        trips: round trips of single tasks, once the workers are idle.
        workers: worker processes, each started as its user would; without one, tasks are added and that is all.
        first: how many of them are added by a client of their own, before the memory of the rest is measured: scripts,
            groups and the like are then there already.
        limit: seconds after which a drain is cut; its rate is that of what was executed.
        one_core: whether client, server and worker share one core. No other one has to be woken then, which takes a
            virtual machine longer than all the rest of a single call.
    """

    task: str = "empty"
    tasks: int = 20_000
    one: int = 2_000
    crowd: int = 4_000
    first: int = 100
    trips: int = 500
    workers: int = 1
    limit: float = 30.0
    one_core: bool = False


class Store(NamedTuple):
    """A fresh store."""

    url: str
    server: RedisServer | None

    def memory(self) -> int:
        """Bytes that the server uses for what it keeps; 0 without a server."""
        if self.server is None:
            return 0
        with self.server.client() as client:
            used: int = client.info("memory")["used_memory"]
        return used

    def cpu(self) -> float:
        """CPU seconds that the server has used; 0 without a server."""
        if self.server is None:
            return 0.0
        with self.server.client() as client:
            found: dict[str, Any] = client.info("cpu")
        return float(found["used_cpu_user"] + found["used_cpu_sys"])


@contextmanager
def bound(one_core: bool) -> Iterator[None]:
    """Binds this process, and so all that it starts, to one core, or leaves it as it is."""
    allowed = os.sched_getaffinity(0)
    try:
        if one_core:
            os.sched_setaffinity(0, {max(allowed)})
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def fresh(kind: str) -> Iterator[Store]:
    """A store of this kind, `redis` or `sqlite`, empty and gone afterwards.

    Redis keeps nothing on disk, neither snapshots nor an append-only file, for all contenders alike.
    """
    if kind == "redis":
        with RedisServer(preload=JEMALLOC, appendonly="no") as server:
            yield Store(server.url(0), server)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            yield Store(f"sqlite:///{Path(folder) / 'bench.db'}", None)


def measure(contender: Contender, store: Store, plan: Plan) -> dict[str, float]:
    """One session of one contender; its figures: rates in tasks per second, times in seconds, memory in bytes.

    Raises:
        ContenderError: it failed; there are no figures then.
    """
    if plan.first:
        contender.client("fill", task=plan.task, one=plan.first)
    before, bulk = store.memory(), plan.tasks - plan.first - plan.one - plan.crowd
    added = contender.client("fill", task=plan.task, one=plan.one, crowd=plan.crowd, bulk=bulk)
    figures = {WORDS[name]: added[name]["count"] / added[name]["seconds"] for name in WORDS if name in added}
    figures |= {
        f"{WORDS[name]}_cpu": added[name]["cpu"] / added[name]["count"] for name in WORDS if name in added
    }
    if not plan.workers:
        return figures
    time.sleep(SETTLED)
    if store.server is not None:
        figures["waiting_bytes"] = (store.memory() - before) / (plan.tasks - plan.first)
    served = store.cpu()
    contender.start(plan.workers)
    seen = contender.executed(plan.tasks, plan.limit)
    if seen.count < 2:
        raise ContenderError(f"{contender.module} executed {seen.count} tasks: {contender.log()}")
    usage = contender.usage()
    figures |= {
        "drain": drained(contender, seen), "executed": seen.count, "resident": usage.resident,
        "worker_cpu": (usage.cpu - contender.cpu_before) / seen.count,
        "server_cpu": (store.cpu() - served) / seen.count,
        "proportional": usage.proportional, "processes": usage.processes,
    }  # fmt: skip
    if seen.count >= plan.tasks:
        figures["stored"] = contender.check(plan.task, added["ids"]) / len(added["ids"])
        if plan.trips:
            contender.prepare_for_trips()
            figures |= trips(contender.client("roundtrip", task=plan.task, count=plan.trips)["seconds"])
    contender.stop()
    return figures


def drained(contender: Contender, seen: Marks) -> float:
    """Executions per second of all workers: a second one that starts meanwhile takes its CPU from the first, so from
    when both are at work; from the first execution on where too little is left then to say anything."""
    joined = contender.joined
    if len(contender.workers) == 1 or joined is None or seen.count - joined.count < seen.count * LEFT:
        return seen.rate
    return seen.rate_since(joined)


def trips(seconds: list[float]) -> dict[str, float]:
    """The figures of round trips."""
    return {"p50": statistics.median(seconds), "p99": statistics.quantiles(seconds, n=100)[98]}
