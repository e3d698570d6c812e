"""The goals: each figure of one run beside what it must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from benchmarks.backlog import RATES, compared
from benchmarks.contenders import (
    AT_LEAST,
    CEILING,
    HUEY_ON_DISK,
    HUEY_SQLITE,
    OURS,
    OURS_ON_DISK,
    OURS_SQLITE,
    PEERS,
)
from benchmarks.suite import medians

FLAT_FROM, FLAT = 4, 1.1
"""A worker's memory is flat if from this look on it grows by less than this factor."""


class Goal(NamedTuple):
    """One goal and what came of it.

    Attributes:
        what: the figure.
        measured: it, with what it is compared with.
        value: the ratio or figure that counts; `None` was not measured.
        needed: what it must be.
        more: whether more is better.
    """

    what: str
    measured: str
    value: float | None
    needed: float
    more: bool

    @property
    def passed(self) -> bool | None:
        """Whether it is reached; `None` if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.needed if self.more else self.value <= self.needed


class Figures:
    """The medians of one run, asked for by workload, contender and name."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._medians = medians(found)

    def __call__(self, name: str, contender: str = OURS.name, workload: str = "base") -> float | None:
        """One figure; `None` where it was not measured."""
        return self._medians.get(workload, {}).get(contender, {}).get(name)

    def best(self, name: str, peers: Iterable[str], *, more: bool = True) -> tuple[str, float] | None:
        """The best of some peers, and its figure."""
        known = [(peer, value) for peer in peers if (value := self(name, peer)) is not None]
        if not known:
            return None
        choose: Callable[..., tuple[str, float]] = max if more else min
        return choose(known, key=lambda pair: pair[1])


def against(
    what: str, ours: float | None, other: tuple[str, float] | None, needed: float, *, more: bool = True,
    unit: float = 1.0, digits: int = 0,
) -> Goal:  # fmt: skip
    """A goal that is a ratio."""
    sign = "≥" if more else "≤"
    text = f"{what}: {sign} {needed:g} ×"
    if ours is None or other is None:
        return Goal(text, "not measured", None, needed, more)
    name, value = other
    measured = f"{ours * unit:,.{digits}f} against {value * unit:,.{digits}f} ({name})"
    return Goal(text, measured, ours / value, needed, more)


def drains(of: Figures, cores: int) -> list[Goal]:
    """Running tasks."""
    ours = of("drain")
    safe = [peer.name for peer in PEERS if peer.delivery == AT_LEAST]
    ceiling, zero = of("drain", CEILING.name), of("drain", OURS.name, "plugins")
    sqlite, trip = of("drain", OURS_SQLITE.name), of("p50", OURS_SQLITE.name)
    return [
        against("drain on Redis, fastest at-least-once peer", ours, of.best("drain", safe), 10),
        against("drain on Redis, fastest peer of all", ours, of.best("drain", names()), 6),
        against("drain on Redis, protocol by hand", ours, ceiling and (CEILING.name, ceiling), 0.3),
        against(
            "drain with 3 async plugins on a trigger of every task, without",
            of("drain", "qtasks, 3 reading", "plugins"), zero and ("no plugin", zero), 0.7,
        ),
        two_workers(of, cores),
        against(
            "drain on SQLite, huey on SQLite without a sync to disk", sqlite, of.best("drain", [HUEY_SQLITE.name]), 8,
        ),
        against(
            "the same at like durability, both with fsync", of("drain", OURS_ON_DISK.name),
            of.best("drain", [HUEY_ON_DISK.name]), 8,
        ),
        Goal(
            "round trip p50 on SQLite: ≤ 5 ms", "not measured" if trip is None else f"{trip * 1e3:.2f} ms",
            None if trip is None else trip * 1e3, 5.0, False,
        ),
    ]  # fmt: skip


def two_workers(of: Figures, cores: int) -> Goal:
    """Two worker processes, and what the cores allow: workers and server share them."""
    one, two = of("drain"), of("drain", OURS.name, "two")
    goal = against("drain by two worker processes, one", two, one and ("one process", one), 1.6)
    worker, server = of("worker_cpu", OURS.name, "two"), of("server_cpu", OURS.name, "two")
    if one is None or worker is None or server is None:
        return goal
    most = min(cores / (worker + server), 1 / server)
    return goal._replace(
        measured=f"{goal.measured}; {worker * 1e6:.0f} µs of a worker and {server * 1e6:.0f} of the server per task: "
        f"{cores} cores without a pause allow {most:,.0f}, {most / one:.2f} ×"
    )


def names() -> list[str]:
    """All peers on Redis."""
    return [peer.name for peer in PEERS]


def clients(of: Figures) -> list[Goal]:
    """Adding tasks, and waiting for one."""
    asynchronous = [peer.name for peer in PEERS if peer.asynchronous]
    recording = [peer.name for peer in PEERS if peer.record]
    # Where a peer has no bulk call, its fastest way to add many is the figure to beat.
    many = [pair for name in ("add_bulk", "add_crowd", "add_one") if (pair := of.best(name, names()))]
    return [
        against("add one by one, fastest async peer", of("add_one"), of.best("add_one", asynchronous), 1.4),
        against("add by 100 callers, fastest peer", of("add_crowd"), of.best("add_crowd", names()), 4),
        against(
            "add in bulk, fastest way of any peer", of("add_bulk"), max(many, key=lambda p: p[1], default=None), 4
        ),
        against(
            "round trip p50, ms, best peer", of("p50"), of.best("p50", names(), more=False), 0.5, more=False,
            unit=1e3, digits=2,
        ),
        against(
            "round trip p99, ms, best peer", of("p99"), of.best("p99", names(), more=False), 0.7, more=False,
            unit=1e3, digits=2,
        ),
        against(
            "bytes per waiting task, leanest peer with a record", of("waiting_bytes"),
            of.best("waiting_bytes", recording, more=False), 1.25, more=False,
        ),
    ]  # fmt: skip


def triggers(chain: dict[str, dict[str, float]]) -> list[Goal]:
    """Firing a trigger."""

    def ratio(what: str, label: str, other: str, needed: float) -> Goal:
        figures = chain.get(label, {})
        theirs = figures.get(other)
        return against(
            what, figures.get("qtasks"), None if theirs is None else (other, theirs), needed, more=False
        )

    return [
        ratio("trigger without a plugin, ns, plain pluggy", "0 def", "pluggy", 0.25),
        ratio("chain of 3 async plugins, ns, pluggy awaited", "3 async def", "pluggy, awaited", 0.6),
    ]


def growth(of: Figures, points: list[dict[str, Any]], turns: list[dict[str, float]]) -> list[Goal]:
    """A million waiting tasks, and the memory of the worker.

    The rates are compared in turns. The growing backlog takes minutes from one size to the other, in which the machine
    changes by more than the goal allows.
    """
    resident = of("resident")
    found = compared(turns)
    ratios = {name: found[name].ratio for name in RATES} if found else {}
    worst = min(ratios, key=lambda name: ratios[name], default=None)
    large = next((point for point in points if point["waiting"] == 1_000_000), None)
    looks = [resident for _, resident in large["memory"][FLAT_FROM:]] if large else []
    return [
        Goal(
            "worst rate at 10^6 waiting tasks, that at 10^3: ≥ 0.8 ×",
            ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()) or "not measured",
            ratios[worst] if worst else None, 0.8, True,
        ),
        Goal(
            "resident memory of the worker: ≤ 50 MB",
            "not measured" if resident is None else f"{resident / 1e6:.1f} MB",
            None if resident is None else resident / 1e6, 50.0, False,
        ),
        Goal(
            f"its memory over 10^6 tasks, last look to look {FLAT_FROM + 1}: ≤ {FLAT:g} ×",
            f"{looks[0] / 1e6:.1f} to {looks[-1] / 1e6:.1f} MB" if looks else "not measured",
            max(looks) / looks[0] if looks else None, FLAT, False,
        ),
    ]  # fmt: skip


def goals(found: dict[str, Any]) -> list[Goal]:
    """All goals, from the raw figures of one run."""
    of = Figures(found)
    cores = found.get("machine", {}).get("cores") or 1
    return [
        *drains(of, cores), *clients(of), *triggers(found.get("chain", {})),
        *growth(of, found.get("backlog", []), found.get("turns", [])),
    ]  # fmt: skip
