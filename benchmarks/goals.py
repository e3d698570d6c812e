"""The goals: each figure of one run beside what it must reach."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks import backlog
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
from benchmarks.figures import Figures
from benchmarks.turns import Compared, allowed, by_turn, compared, rivals

TWO, SHARE = 1.6, 0.85
"""What two workers must reach of one, or of what the cores allow, whichever is less."""
ON_SQLITE = 8
FLAT_FROM, FLAT = 4, 1.1
"""A worker's memory is flat if from this look on it grows by less than this factor."""


class Goal(NamedTuple):
    """One goal and what came of it.

    Attributes:
        what: the figure.
        measured: it, with what it is compared with.
        value: the ratio or figure that counts; `None` was not measured.
        needed: what it must be; `None` is told, and not judged.
        more: whether more is better.
    """

    what: str
    measured: str
    value: float | None
    needed: float | None
    more: bool

    @property
    def passed(self) -> bool | None:
        """Whether it is reached; `None` if it was not measured, or is not judged."""
        if self.value is None or self.needed is None:
            return None
        return self.value >= self.needed if self.more else self.value <= self.needed


def against(
    what: str, ours: float | None, other: tuple[str, float] | None, needed: float, *, turns: Compared | None = None,
    more: bool = True, unit: float = 1.0, digits: int = 0,
) -> Goal:  # fmt: skip
    """A goal that is a ratio: of medians, or that of turns where there were some."""
    text = f"{what}: {'≥' if more else '≤'} {needed:g} ×"
    how = ""
    if turns is not None:
        ours, other, how = turns.ours, (turns.against, turns.other), f"; {in_turns(turns)}"
    if ours is None or other is None:
        return Goal(text, "not measured", None, needed, more)
    name, value = other
    measured = f"{ours * unit:,.{digits}f} against {value * unit:,.{digits}f} ({name}){how}"
    return Goal(text, measured, turns.ratio if turns else ours / value, needed, more)


def in_turns(turns: Compared) -> str:
    """That a figure is one of turns."""
    return f"in {turns.turns} turns {turns.lowest:.2f} to {turns.highest:.2f}"


def drains(of: Figures, turns: dict[str, Compared]) -> list[Goal]:
    """Running tasks."""
    ours = of("drain")
    safe = [peer.name for peer in PEERS if peer.delivery == AT_LEAST]
    ceiling, zero = of("drain", CEILING.name), of("drain", OURS.name, "plugins")
    return [
        against("drain on Redis, fastest at-least-once peer", ours, of.best("drain", safe), 10),
        against("drain on Redis, fastest peer of all", ours, of.best("drain", names()), 6),
        against("drain on Redis, protocol by hand", ours, ceiling and (CEILING.name, ceiling), 0.3),
        against(
            "drain with 3 async plugins on a trigger of every task, without",
            of("drain", "qtasks, 3 reading", "plugins"), zero and ("no plugin", zero), 0.7, turns=turns.get("plugins"),
        ),
    ]  # fmt: skip


def two_workers(of: Figures, found: dict[str, Any], turns: Compared | None) -> Goal:
    """Two worker processes, as far as the cores allow: workers and server share them."""
    cores = found["machine"]["cores"] if "machine" in found else 1
    one, two = of("drain"), of("drain", OURS.name, "two")
    goal = against("drain by two worker processes, one", two, one and ("one process", one), TWO, turns=turns)
    pair = next((pair for pair in found.get("pairs", []) if "two" in pair["judged"]), None)
    if turns is not None and pair is not None:
        seen = allowed(by_turn(found, pair), cores)
    else:
        worker, server = of("worker_cpu", OURS.name, "two"), of("server_cpu", OURS.name, "two")
        if one is None or two is None or worker is None or server is None:
            return goal
        figures = {"drain": two, "worker_cpu": worker, "server_cpu": server}
        seen = allowed([(figures, {"drain": one})], cores)
    return goal._replace(
        what=f"{goal.what}, or {SHARE:g} of what {cores} cores allow, if that is less: {SHARE * seen.allowed:.2f} ×",
        measured=f"{goal.measured}; {seen.worker * 1e6:.0f} µs of a worker and {seen.server * 1e6:.0f} of the server "
        f"per task: {cores} cores without a pause allow {seen.allowed:.2f} ×, of which {seen.share:.2f} is reached",
        needed=min(TWO, SHARE * seen.allowed),
    )


def on_sqlite(of: Figures, turns: dict[str, Compared]) -> list[Goal]:
    """The same without a server."""
    quick = against(
        "drain on SQLite, qtasks as it is by default, huey with `OFF`", of("drain", OURS_SQLITE.name),
        of.best("drain", [HUEY_SQLITE.name]), ON_SQLITE,
    )  # fmt: skip
    unlike = quick._replace(
        what=f"{quick.what.partition(':')[0]} (not of like durability: not judged)", needed=None
    )
    if (best := of("drain", HUEY_SQLITE.name)) is not None:
        unlike = unlike._replace(
            measured=f"{unlike.measured}; {ON_SQLITE} × would leave {1e6 / best / ON_SQLITE:.0f} µs for a task"
        )
    trip = of("p50", OURS_SQLITE.name)
    return [
        against(
            "drain on SQLite, huey as it is by default, both with a sync to the disk", of("drain", OURS_ON_DISK.name),
            of.best("drain", [HUEY_ON_DISK.name]), ON_SQLITE, turns=turns.get("sqlite"),
        ),
        unlike,
        Goal(
            "round trip p50 on SQLite: ≤ 5 ms", "not measured" if trip is None else f"{trip * 1e3:.2f} ms",
            None if trip is None else trip * 1e3, 5.0, False,
        ),
    ]  # fmt: skip


def names() -> list[str]:
    """All peers on Redis."""
    return [peer.name for peer in PEERS]


def clients(of: Figures, turns: dict[str, Compared]) -> list[Goal]:
    """Adding tasks, and waiting for one."""
    recording = [peer.name for peer in PEERS if peer.record]
    best = rivals(of, PEERS)

    def to_beat(what: str, goal: str, needed: float, **how: Any) -> Goal:
        peer, figure = best[goal]
        value = of(figure, peer)
        other = None if value is None else (peer, value)
        return against(what, of(goal), other, needed, turns=turns.get(goal), **how)

    def on_one_core(what: str, name: str, needed: float, **how: Any) -> Goal:
        # Told, not judged: it says what the calls cost without the waking of another core.
        goal = against(what, None, None, needed, turns=turns.get(f"{name}_core"), **how)
        what = goal.what.replace(":", ", all on one core (not judged):")
        return goal._replace(what=what, needed=None)

    less: dict[str, Any] = {"more": False, "unit": 1e3, "digits": 2}
    return [
        to_beat("add one by one, fastest async peer", "add_one", 1.4),
        on_one_core("add one by one, fastest async peer", "add_one", 1.4),
        to_beat("add by 100 callers, fastest peer", "add_crowd", 4),
        to_beat("add in bulk, fastest way of any peer", "add_bulk", 4),
        to_beat("round trip p50, ms, best peer", "p50", 0.5, **less),
        on_one_core("round trip p50, ms, best peer", "p50", 0.5, **less),
        to_beat("round trip p99, ms, best peer", "p99", 0.7, **less),
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
    found = backlog.compared(turns)
    ratios = {name: found[name].ratio for name in backlog.RATES} if found else {}
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
    of, turns = Figures(found), compared(found)
    return [
        *drains(of, turns), two_workers(of, found, turns.get("two")), *on_sqlite(of, turns), *clients(of, turns),
        *triggers(found.get("chain", {})), *growth(of, found.get("backlog", []), found.get("turns", [])),
    ]  # fmt: skip
