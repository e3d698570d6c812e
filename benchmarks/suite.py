"""The run: every workload with every contender, interleaved, repeated, saved as it goes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import backlog, chain
from benchmarks.contender import Contender, ContenderError
from benchmarks.contenders import (
    ALL,
    CEILING,
    LOGGING,
    ON_DISK,
    OURS,
    OURS_SQLITE,
    PEERS,
    Entry,
    with_plugins,
)
from benchmarks.cores import core_seconds
from benchmarks.figures import Figures
from benchmarks.session import Plan, bound, fresh, measure
from benchmarks.turns import KINDS, pairs

TRIES = 2
"""Attempts at one session; a second failure is written down and the run goes on."""


@dataclass(frozen=True)
class Size:
    """How long it takes.

    Parameters:
        repeat: repetitions of each session; none leaves the turns alone.
        plan: what a session measures, but for its task and its workers.
        backlogs: numbers of waiting tasks as the backlog grows.
        peer_backlogs: the same with the peers, once: drains only, and cut, since some would take an hour.
        workloads: which are measured with the peers too; qtasks itself is measured in all.
        compared: what is compared in turns, of `KINDS`, and `backlog`: a small one and a large one.
        turns: turns of each pair.
    """

    repeat: int
    plan: Plan
    backlogs: tuple[int, ...]
    peer_backlogs: tuple[int, ...] = ()
    workloads: tuple[str, ...] = ("base", "payload", "sync", "two")
    compared: tuple[str, ...] = ("backlog", *KINDS)
    turns: int = 7


CUT = 8.0
"""Seconds after which a drain is cut, but for that of the basic workload."""
FULL = Size(3, Plan(), (1_000, 10_000, 100_000, 1_000_000), (1_000, 100_000))
QUICK = Size(
    1,
    Plan(tasks=8_000, one=1_000, crowd=2_000, trips=100, limit=12.0),
    (1_000, 10_000, 100_000),
    (),
    ("base",),
    compared=(),
)


def only_turns(kinds: tuple[str, ...], turns: int) -> Size:
    """Nothing but comparisons in turns."""
    return replace(FULL, repeat=0, backlogs=(), peer_backlogs=(), workloads=(), compared=kinds, turns=turns)


@dataclass
class Session:
    """What one session gave, or why it gave nothing."""

    workload: str
    contender: str
    repetition: int
    figures: dict[str, float] = field(default_factory=dict)
    error: str | None = None


def workloads(plan: Plan, peers: tuple[Entry, ...], chosen: tuple[str, ...]) -> dict[str, list[Any]]:
    """Each workload: its sessions as (contender, options, plan), in the order of the first repetition."""
    everyone = [entry for entry in ALL if entry not in PEERS or entry in peers]
    ours = [OURS, CEILING, OURS_SQLITE]

    def those(workload: str, entries: list[Entry]) -> list[Entry]:
        return entries if workload in chosen else [entry for entry in entries if entry in ours]

    short = replace(plan, trips=0, limit=min(CUT, plan.limit))
    payload, sync, two = (
        replace(short, task="echo"),
        replace(short, task="empty_sync"),
        replace(short, workers=2),
    )
    # At our rates one worker would be through with half of them before the other one is at work.
    longer = replace(two, tasks=2 * two.tasks)
    plugged = [with_plugins(n) for n in (1, 3, 10)] + [with_plugins(3, replace=True)]
    return {
        "base": [(entry, {}, plan) for entry in (*those("base", everyone), *ON_DISK)],
        "payload": [(entry, {}, payload) for entry in those("payload", everyone)],
        "sync": [(entry, {}, sync) for entry in those("sync", everyone) if entry.asynchronous],
        "plugins": [(entry, options, short) for entry, options in [(OURS, {}), *plugged, LOGGING]],
        "two": [(entry, {}, longer if entry in ours else two) for entry in those("two", everyone)],
    }


class Run:
    """One run of the benchmark.

    Parameters:
        size: how long it takes.
        peers: the peers that take part.
        path: where the raw figures are saved, after each session.
    """

    def __init__(self, size: Size, peers: tuple[Entry, ...], path: Path) -> None:
        self.size = size
        self.peers = peers
        self.path = path
        self.sessions: list[Session] = []
        self.found: dict[str, Any] = {"began": now(), "size": asdict(size), "machine": machine()}

    def __call__(self) -> dict[str, Any]:
        """Measures everything; gives what was saved."""
        self.found["versions"] = self._versions()
        # What is measured once comes first: a run that is cut short has whole repetitions at least.
        self.found["chain"] = chain.measure_all() if self.size.repeat else {}
        self.found["backlog"] = backlog.measure_all(self.size.backlogs) if self.size.backlogs else []
        self.found["turns"] = backlog.in_turns() if "backlog" in self.size.compared else []
        self._measure(self._peer_backlogs())
        for repetition in range(self.size.repeat):
            self._measure(self._repetition(repetition))
        self._measure(self._turns())
        self.found["ended"] = now()
        self.save()
        return self.found

    def _measure(self, sessions: Iterator[Session]) -> None:
        for session in sessions:
            self.sessions.append(session)
            self.save()
            tell(session)

    def _versions(self) -> dict[str, dict[str, str]]:
        found = {}
        for entry in (OURS, *self.peers):
            with Contender(entry.module, entry.python(), "redis://unused") as contender:
                found[entry.name] = contender.client("versions")
        return found

    def _repetition(self, repetition: int) -> Iterator[Session]:
        for workload, sessions in workloads(self.size.plan, self.peers, self.size.workloads).items():
            # Another order each time, so that nobody always comes after the same one.
            turn = repetition * 3 % len(sessions)
            for entry, options, plan in sessions[turn:] + sessions[:turn]:
                if entry is CEILING:
                    plan = replace(plan, trips=0)
                yield attempt(Session(workload, entry.name, repetition), entry, options, plan)

    def _peer_backlogs(self) -> Iterator[Session]:
        for waiting in self.size.peer_backlogs:
            plan = Plan(tasks=waiting, one=100, crowd=100, trips=0, limit=CUT)
            for entry in (OURS, *self.peers):
                yield attempt(Session(backlog_of(waiting), entry.name, 0), entry, {}, plan)

    def _turns(self) -> Iterator[Session]:
        # They come last: who the best peer is shows in the repetitions. Each pair has its turn before one has its next,
        # so that a slow phase does not meet all turns of one.
        found = pairs(
            self.size.compared, Figures({"sessions": [asdict(each) for each in self.sessions]}), self.peers
        )
        self.found["pairs"] = [pair.saved() for pair in found]
        for turn in range(self.size.turns):
            for pair in found:
                for side in pair.sides(turn):
                    session = Session(pair.workload, side.entry.name, turn)
                    yield attempt(session, side.entry, side.options, side.plan)

    def save(self) -> None:
        """Writes what is known so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {**self.found, "sessions": [asdict(session) for session in self.sessions]}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(whole, indent=1))
        part.replace(self.path)
        self.found["sessions"] = whole["sessions"]


def backlog_of(waiting: int) -> str:
    """The workload of a drain from a backlog of this size."""
    return f"{waiting:,} waiting"


def attempt(session: Session, entry: Entry, options: Mapping[str, Any], plan: Plan) -> Session:
    """Measures one session; a failure is repeated once, then written down."""
    for _ in range(TRIES):
        try:
            with (
                bound(plan.one_core),
                fresh(entry.store) as store,
                Contender(
                    entry.module,
                    entry.python(),
                    store.url,
                    {**entry.options, **options},
                    dict(entry.for_trips),
                ) as contender,
            ):
                before = core_seconds()
                figures = measure(contender, store, plan)
                session.figures = {**figures, "core_before": before, "core_after": core_seconds()}
                session.error = None
                return session
        except (ContenderError, subprocess.TimeoutExpired) as error:
            session.error = str(error)
    return session


def tell(session: Session) -> None:
    """One line as the run goes on."""
    figures = session.figures
    shown = [
        f"{name} {figures[key] * unit:,.{digits}f}"
        for name, key, unit, digits in (
            ("one", "add_one", 1, 0), ("crowd", "add_crowd", 1, 0), ("bulk", "add_bulk", 1, 0),
            ("drain", "drain", 1, 0), ("p50", "p50", 1e3, 2), ("p99", "p99", 1e3, 2), ("MB", "resident", 1e-6, 0),
            ("bytes", "waiting_bytes", 1, 0), ("core", "core_after", 1e3, 0),
        )
        if key in figures
    ]  # fmt: skip
    what = session.error.splitlines()[-1][:200] if session.error else ", ".join(shown)
    print(f"{session.repetition + 1} {session.workload:<17} {session.contender:<22} {what}", flush=True)


def machine() -> dict[str, Any]:
    """What it ran on."""
    with fresh("redis") as store:
        assert store.server is not None
        with store.server.client() as client:
            info = client.info("server")
        mapped = Path(f"/proc/{store.server.pid}/maps").read_text()
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model, "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}", "architecture": platform.machine(),
        "python": f"{sys.implementation.name} {platform.python_version()}",
        "server": f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])} on "
        f"{'jemalloc' if 'jemalloc' in mapped else 'the allocator of the C library'}",
    }  # fmt: skip


def now() -> str:
    """The time."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_path() -> Path:
    """Where raw figures go unless somebody says otherwise."""
    return Path("build") / "benchmarks" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
