"""The invariants, checked by what the witness files say and what the public API shows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.components.sqlite import SQLiteStorage
from qtasks.config import QueueConfig
from qtasks.errors import BackendError
from qtasks.schemas import Task

from .recoveries import Back, backs
from .saboteur import excused, told
from .site import Site

POISON = ("exits", "segfaults")
RETRIES = {"flaky": 2}


@dataclass
class Report:
    """What one experiment showed. Times are in seconds.

    Attributes:
        lost: acknowledged, and not found, not terminal, or (unless written off) never run (I1).
        twice: tasks with more than one accepted end, or with a visible result that changed (I2, I3).
        left: entries and open records after quiescence (I4).
        over: tasks with too many failures (I5).
        repeats: runs beyond those that failures explain.
        back: how each task that a kill interrupted came back (I8).
        sabotage: what the saboteur did, as a sentence.
    """

    acked: int = 0
    faults: int = 0
    kills: int = 0
    dead: int = 0
    repeats: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    back: list[Back] = field(default_factory=list)
    sabotage: str = ""

    @property
    def failures(self) -> list[str]:
        """All that must not be."""
        return [*self.lost, *self.twice, *self.left, *self.over]


def client(site: Site, name: str = "chaos") -> QueueTasks:
    """A client application on the site's stores, without plugins of its own."""
    storage = site.env.get("CHAOS_STORAGE")
    lease = float(site.env["QTASKS_LEASE"])
    return QueueTasks(
        name,
        site.url,
        storage=SQLiteStorage(storage) if storage else None,
        config=QueueConfig(lease=lease),
    )


async def everything(app: QueueTasks) -> dict[str, Task]:
    """All tasks by uuid."""
    found: dict[str, Task] = {}
    cursor: str | None = None
    while True:
        tasks, cursor = await app.get_all(cursor, 1000)
        found.update({str(task.uuid): task for task in tasks})
        if cursor is None:
            return found


class Observer:
    """Looks at the store while chaos goes on: a result that was seen once must never change (I2)."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.seen: dict[str, tuple[Any, ...]] = {}
        self.changed: list[str] = []

    async def watch(self, until: asyncio.Event) -> None:
        """Looks every half second, and not more than a fourth of the time."""
        while not until.is_set():
            began = time.monotonic()
            with suppress(BackendError):
                async with client(self._site) as app:
                    self.look(await everything(app))
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), max(0.5, 3 * (time.monotonic() - began)))

    def look(self, tasks: dict[str, Task]) -> None:
        """Compares with what was seen before."""
        for uuid, task in tasks.items():
            if task.finished:
                shown = (task.status, task.returning, task.traceback, task.finished_at)
                if self.seen.setdefault(uuid, shown) != shown:
                    self.changed.append(f"I2: {uuid} changed from {self.seen[uuid]} to {shown}")


async def drained(site: Site, timeout: float) -> list[str]:
    """Waits until nothing is ready, delayed, leased or open; gives what is left after `timeout`."""
    deadline = asyncio.get_running_loop().time() + timeout
    left = ["I4: the store was never reached"]
    while asyncio.get_running_loop().time() < deadline:
        with suppress(BackendError):
            async with client(site) as app:
                left = await _left(app)
            if not left:
                return []
        await asyncio.sleep(0.2)
    return left


async def _left(app: QueueTasks) -> list[str]:
    counts = await app.storage.counts()
    left = [f"I4: {counts[name]} records are {name}" for name in ("new", "process") if counts[name]]
    for queue, size in (await app.broker.size()).items():
        left += [f"I4: queue {queue}: {size}"] if any(size) else []
    return left


async def check(
    site: Site, observer: Observer | None = None, *, spoilt: Collection[str] = (), sabotaged: bool = False
) -> Report:
    """Judges the experiment; everything is drained by now.

    Parameters:
        spoilt: uuids (hex) of records that were damaged: they are buried instead.
        sabotaged: whether a plugin failed on purpose: tasks may have ended in ERROR that names it.
    """
    report = Report(kills=len(site.lines("kills")), faults=len(site.lines("faults")))
    async with client(site) as app:
        tasks = await everything(app)
        report.left = await _left(app)
    if observer is not None:
        observer.look(tasks)
        report.twice += observer.changed
    acked = {words[0]: words[1] for words in site.lines("acked")}
    begins = Counter(uuid for uuid, what, _, _ in site.lines("runs") if what == "begin")
    report.acked = len(acked)
    for uuid, name in acked.items():
        if uuid.replace("-", "") in spoilt:
            continue
        _judge(report, uuid, name, tasks.get(uuid), begins[uuid], sabotaged=sabotaged)
    _judge_accepted(site, tasks, report)
    report.back = backs(site)
    if incidents := site.lines("sabotage"):
        report.sabotage = f"{told(incidents)}; {report.dead} tasks ended in ERROR for it"
    return report


def _judge(report: Report, uuid: str, name: str, task: Task | None, begun: int, *, sabotaged: bool) -> None:
    UUID(uuid)
    if task is None or not task.finished:
        report.lost.append(f"I1: {uuid} ({name}) is {task.status if task else 'gone'}")
        return
    dead = task.status.value == "error"
    report.dead += dead
    if not begun and not dead:
        report.lost.append(f"I1: {uuid} ({name}) is {task.status} and was never run")
    if dead and name not in POISON and not (sabotaged and excused(task.traceback or "")):
        report.lost.append(f"I1: {uuid} ({name}) is {task.status}: {task.traceback}")
    if task.attempt > RETRIES.get(name, 0) + 1:
        report.over.append(f"I5: {uuid} ({name}) failed {task.attempt} times")
    expected = task.attempt + (task.status.value == "success")
    report.repeats += max(0, begun - expected) if name not in POISON else 0


def _judge_accepted(site: Site, tasks: dict[str, Task], report: Report) -> None:
    ends: dict[str, list[str]] = {}
    for uuid, status, result in site.lines("accepted"):
        if status != "retry":
            ends.setdefault(uuid, []).append(f"{status} {result}")
    for uuid, accepted in ends.items():
        task = tasks.get(uuid)
        if len(accepted) > 1:
            report.twice.append(f"I3: {uuid} was accepted {len(accepted)} times: {accepted}")
        elif (
            task is not None and task.status.value == "success" and accepted[0] != f"success {task.returning}"
        ):
            report.twice.append(f"I2: {uuid} shows {task.returning}, accepted was {accepted[0]}")
