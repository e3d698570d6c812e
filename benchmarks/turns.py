"""Comparisons in turns: two sides measured one right after the other, judged by the median of the ratios of a turn.

The cores of a machine may run at another speed a minute later, and medians of sessions that are minutes apart then say
more of the machine than of the contenders. In a turn both sides are neighbours in time, and the side that comes first
is another one in each turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.contenders import HUEY_ON_DISK, OURS, OURS_ON_DISK, Entry, with_plugins
from benchmarks.figures import Figures
from benchmarks.session import Plan

KINDS = ("add", "trip", "core", "two", "plugins", "sqlite")
"""What is compared in turns."""
WITHOUT_BASE = {
    "add_one": ("saq", "add_one"),
    "add_crowd": ("saq", "add_crowd"),
    "add_bulk": ("streaq", "add_bulk"),
    "p50": ("huey", "p50"),
    "p99": ("huey", "p99"),
}
"""Peer and figure that each goal is compared with where the run did not measure which is the best."""
FIRST = 100
OUR_ADDS = {"add_one": 10_000, "add_crowd": 30_000, "add_bulk": 40_000}
THEIR_ADDS = {"add_one": 8_000, "add_crowd": 10_000, "add_bulk": 10_000}
"""Half a second of each at least; two of adding one by one, whose rate changes with each waking of a process."""
TRIPS = Plan(tasks=1_000, one=100, crowd=100, trips=2_000)
DRAIN = Plan(tasks=40_000, one=0, crowd=0, trips=0)
OURS_TO_DISK, HUEYS_TO_DISK = 20_000, 6_000
"""Tasks of a drain on SQLite: a second of ours, three of huey."""


class Side(NamedTuple):
    """One side of a pair: a contender under a name that the other side does not have, what is measured, and options."""

    entry: Entry
    plan: Plan
    options: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Pair:
    """Two sides that take turns.

    Parameters:
        workload: the name of their sessions.
        ours: the side whose figures are divided.
        other: that by whose figures they are.
        judged: by goal, the figure of each side.
    """

    workload: str
    ours: Side
    other: Side
    judged: dict[str, tuple[str, str]]

    def sides(self, turn: int) -> tuple[Side, Side]:
        """Both, in the order of this turn."""
        return (self.other, self.ours) if turn % 2 else (self.ours, self.other)

    def saved(self) -> dict[str, Any]:
        """What the raw figures tell of it."""
        return {
            "workload": self.workload, "ours": self.ours.entry.name, "other": self.other.entry.name,
            "judged": self.judged,
        }  # fmt: skip


def rivals(of: Figures, peers: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """By goal, the peer to beat and its figure: the best by the medians of the run, else one that is known to be."""
    names = [peer.name for peer in peers]
    alike = [peer.name for peer in peers if peer.asynchronous]
    # Where a peer has no bulk call, its fastest way to add many is the figure to beat.
    ways = [(way, best) for way in THEIR_ADDS if (best := of.best(way, names))]
    found = {
        "add_one": ("add_one", of.best("add_one", alike)),
        "add_crowd": ("add_crowd", of.best("add_crowd", names)),
        "add_bulk": max(ways, key=lambda way: way[1][1], default=("", None)),
        "p50": ("p50", of.best("p50", names, more=False)),
        "p99": ("p99", of.best("p99", names, more=False)),
    }
    chosen = {
        goal: (best[0], figure) if best else WITHOUT_BASE[goal] for goal, (figure, best) in found.items()
    }
    return {goal: rival for goal, rival in chosen.items() if rival[0] in names}


def adding(ways: set[str], numbers: dict[str, int]) -> Plan:
    """Adds tasks in some ways; no worker."""
    one, crowd, bulk = (numbers[way] if way in ways else 0 for way in ("add_one", "add_crowd", "add_bulk"))
    return Plan(tasks=FIRST + one + crowd + bulk, first=FIRST, one=one, crowd=crowd, workers=0)


def against_peers(kinds: Sequence[str], of: Figures, peers: Sequence[Entry]) -> Iterator[Pair]:
    """Adding and round trips: a pair for each peer that is the best in something."""
    for kind in ("add", "trip"):
        beaten: dict[str, dict[str, tuple[str, str]]] = {}
        for goal, (peer, figure) in rivals(of, peers).items():
            if kind in kinds and (goal in OUR_ADDS) == (kind == "add"):
                beaten.setdefault(peer, {})[goal] = (goal, figure)
        for entry in (peer for peer in peers if peer.name in beaten):
            judged = beaten[entry.name]
            ours, theirs = TRIPS, TRIPS
            if kind == "add":
                ours = adding(set(judged), OUR_ADDS)
                theirs = adding({figure for _, figure in judged.values()}, THEIR_ADDS)
            yield Pair(f"turns:{kind}, {entry.name}", Side(OURS, ours), Side(entry, theirs), judged)


def on_one_core(of: Figures, peers: Sequence[Entry]) -> Iterator[Pair]:
    """One call after the other where client, server and worker share a core, so that no other one is woken."""
    plans = {
        "add_one": [adding({"add_one"}, of_side) for of_side in (OUR_ADDS, THEIR_ADDS)],
        "p50": [TRIPS, TRIPS],
    }
    best = rivals(of, peers)
    for goal in (goal for goal in plans if goal in best):
        peer, figure = best[goal]
        ours, theirs = (replace(plan, one_core=True) for plan in plans[goal])
        entry = next(entry for entry in peers if entry.name == peer)
        yield Pair(
            f"turns:core, {goal}", Side(OURS, ours), Side(entry, theirs), {f"{goal}_core": (goal, figure)}
        )


def pairs(kinds: Sequence[str], of: Figures, peers: Sequence[Entry]) -> list[Pair]:
    """The pairs of some kinds.

    Parameters:
        kinds: of `KINDS`.
        of: the medians so far.
        peers: those that take part.
    """
    one, workers = (OURS._replace(name=f"qtasks, {number}") for number in ("one worker", "two workers"))
    plugged, options = with_plugins(3)
    drains = [
        ("two", Side(workers, replace(DRAIN, workers=2)), Side(one, DRAIN)),
        ("plugins", Side(plugged, DRAIN, options), Side(OURS, DRAIN)),
        ("sqlite", Side(OURS_ON_DISK, replace(DRAIN, tasks=OURS_TO_DISK)),
         Side(HUEY_ON_DISK, replace(DRAIN, tasks=HUEYS_TO_DISK))),
    ]  # fmt: skip
    return [
        *against_peers(kinds, of, peers),
        *(on_one_core(of, peers) if "core" in kinds else ()),
        *(
            Pair(f"turns:{kind}", ours, other, {kind: ("drain", "drain")})
            for kind, ours, other in drains
            if kind in kinds
        ),
    ]


class Compared(NamedTuple):
    """One figure of two sides.

    Attributes:
        ours, other: the medians.
        ratio: the median of the ratios of a turn, ours to the other. What slows the machine down for a while does so
            for both halves of a turn, and for the ratio it does not matter.
        lowest, highest: of these ratios.
        turns: how many there were.
        against: who the other is.
    """

    ours: float
    other: float
    ratio: float
    lowest: float
    highest: float
    turns: int
    against: str = ""


def compare(ours: Sequence[float], other: Sequence[float], against: str = "") -> Compared:
    """Compares the figures of both sides, turn by turn."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    median = statistics.median
    return Compared(
        median(ours), median(other), median(ratios), min(ratios), max(ratios), len(ratios), against
    )


def by_turn(found: dict[str, Any], pair: dict[str, Any]) -> list[tuple[dict[str, float], dict[str, float]]]:
    """The figures of both sides of a pair, for each turn in which both have some."""
    sides: dict[str, dict[int, dict[str, float]]] = {pair["ours"]: {}, pair["other"]: {}}
    for session in found["sessions"]:
        if session["workload"] == pair["workload"] and session["figures"]:
            sides[session["contender"]][session["repetition"]] = session["figures"]
    ours, other = sides.values()
    return [(ours[turn], other[turn]) for turn in sorted(ours.keys() & other.keys())]


def compared(found: dict[str, Any]) -> dict[str, Compared]:
    """What the turns of a run have shown, by goal; nothing where nothing was measured in turns."""
    result = {}
    for pair in found.get("pairs", []):
        turns = by_turn(found, pair)
        for goal, (own, theirs) in pair["judged"].items():
            seen = [(ours[own], other[theirs]) for ours, other in turns if own in ours and theirs in other]
            if seen:
                result[goal] = compare(*zip(*seen, strict=True), against=pair["other"])
    return result


class Cores(NamedTuple):
    """What the cores allow two workers, medians of the turns.

    Attributes:
        worker, server: CPU seconds per task with two workers.
        allowed: what the cores would drain without a pause at these, as a multiple of one worker.
        share: how much of that two workers reach.
    """

    worker: float
    server: float
    allowed: float
    share: float


def allowed(turns: Sequence[tuple[dict[str, float], dict[str, float]]], cores: int) -> Cores:
    """What some cores allow, from the figures of two workers and of one, turn by turn: the workers and the server
    share the cores, and the server can use one only."""
    most = [
        min(cores / (two["worker_cpu"] + two["server_cpu"]), 1 / two["server_cpu"]) / one["drain"]
        for two, one in turns
    ]
    reached = [two["drain"] / one["drain"] for two, one in turns]
    median = statistics.median
    return Cores(
        median(two["worker_cpu"] for two, _ in turns),
        median(two["server_cpu"] for two, _ in turns),
        median(most),
        median(a / b for a, b in zip(reached, most, strict=True)),
    )
