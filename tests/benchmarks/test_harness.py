"""The benchmark still measures: one session of qtasks, the ceiling by hand, and goals and report from given figures.

The peers are left out, and qtasks runs as it is installed here: `python -m benchmarks` makes an environment for each.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import backlog, marks, report, suite
from benchmarks import contender as contender_module
from benchmarks.contender import Contender
from benchmarks.contenders import ALL, CEILING, ON_DISK, OURS, OURS_ON_DISK, OURS_SQLITE, PEERS, Entry
from benchmarks.environments import REQUIREMENTS
from benchmarks.figures import Figures
from benchmarks.goals import Goal, goals
from benchmarks.session import Plan, bound, drained, fresh, measure
from benchmarks.turns import Pair, Side, compared, pairs
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize(
    ("store", "first", "trips"),
    [
        pytest.param("redis", 0, 0, id="short"),
        pytest.param("redis", 5, 3, id="redis", marks=pytest.mark.nightly),
        pytest.param("sqlite", 5, 3, id="sqlite", marks=pytest.mark.nightly),
    ],
)
def test_a_session_executes_and_stores_everything(store: str, first: int, trips: int) -> None:
    plan = Plan(tasks=120, one=5, crowd=20, first=first, trips=trips)
    with fresh(store) as made, Contender("qtasks", sys.executable, made.url, {"plugins": 1}) as contender:
        figures = measure(contender, made, plan)
    assert (figures["executed"], figures["stored"], figures["processes"]) == (120, 1.0, 1)
    assert figures["resident"] > 10e6
    assert ("waiting_bytes" in figures) == (store == "redis")
    assert ("p99" in figures) == bool(trips)
    assert not contender.folder.exists()


@pytest.fixture
def ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with RedisServer(appendonly="no") as server:
        monkeypatch.setenv(marks.FOLDER, str(tmp_path))
        monkeypatch.setattr(marks, "_record", marks._first)
        from benchmarks.peers import ceiling as module

        monkeypatch.setattr(module, "URL", server.url(0))
        yield module


async def test_the_ceiling_speaks_the_protocol_of_today(ceiling: Any, tmp_path: Path) -> None:
    client = ceiling.Ceiling()
    await client.open()
    try:
        ids = [await client.add("empty"), *await client.add_many("echo", ("text",), 3)]
        assert await ceiling.drain_batch(client.link) == 4
        assert await ceiling.drain_batch(client.link) == 0
        assert [await client.stored(each) for each in ids] == [1, "text", "text", "text"]
    finally:
        await client.close()
    assert marks.read(tmp_path).count == 4
    marks.reset(tmp_path)
    assert marks.read(tmp_path).count == 0


def test_each_contender_has_requirements_and_qtasks_is_installed_without_extras() -> None:
    for entry in ALL:
        path = REQUIREMENTS / f"{entry.requirements or entry.module}.txt"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines, entry.name
        assert (lines == ["-e ."]) == (entry in (OURS, OURS_SQLITE, CEILING)), entry.name


FIGURES = {
    "add_one": 100.0, "add_crowd": 100.0, "drain": 100.0, "p50": 0.004, "p99": 0.008, "resident": 60e6,
    "waiting_bytes": 400.0, "processes": 1.0, "worker_cpu": 1e-4, "server_cpu": 1e-4,
}  # fmt: skip


def run_with(**ours: float) -> dict[str, Any]:
    """The raw figures of a run in which qtasks differs from all others, who are alike."""
    sessions = []
    for workload in ("base", "two", "plugins"):
        for entry in (*ALL, *ON_DISK):
            own = entry in (OURS, OURS_SQLITE, OURS_ON_DISK)
            figures = {**FIGURES, **(ours if own else {})}
            # Three repetitions: the median must not see the outlier.
            for number, factor in enumerate((1.0, 1.0, 1000.0)):
                changed = {**figures, "drain": figures["drain"] * factor}
                sessions.append({
                    "workload": workload, "contender": entry.name, "repetition": number, "figures": changed,
                    "error": None,
                })  # fmt: skip
    three: dict[str, Any] = {
        "workload": "plugins",
        "contender": "qtasks, 3 reading",
        "repetition": 0,
        "error": None,
    }
    sessions.append({**three, "figures": {"drain": 0.8 * ours.get("drain", 100.0)}})
    point = {"p50": 0.001, "p99": 0.002, "memory": [(n, 40_000_000) for n in range(20)]}
    rates = dict.fromkeys(("add_one", "add_crowd", "add_bulk", "drain", "add_cpu"), 100.0)
    # The machine is at half its speed in the second turn, and drains from the large backlog are slower in each.
    turns = [
        {"waiting": waiting, **{name: rate * speed for name, rate in rates.items()}, "drain": drain * speed}
        for speed in (1.0, 0.5, 1.0)
        for waiting, drain in ((1_000, 100.0), (1_000_000, 79.0))
    ]
    return {
        "began": "2000-01-01", "size": {"plan": {"tasks": 10}, "repeat": 3}, "sessions": sessions,
        "machine": {"cores": 2, "cpu": "cpu", "system": "os", "python": "py", "server": "redis"},
        "versions": {"qtasks": {"qtasks": "1", "redis": "2"}},
        "chain": {
            "0 def": {"qtasks": 100.0, "pluggy": 1000.0}, "3 async def": {"qtasks": 500.0, "pluggy, awaited": 1000.0}
        },
        "backlog": [{**point, **rates, "waiting": size} for size in (1_000, 1_000_000)],
        "turns": turns,
    }  # fmt: skip


def test_goals_are_reached_or_not_by_the_medians_of_one_run() -> None:
    fast = run_with(
        add_one=140.0, add_crowd=400.0, add_bulk=400.0, drain=1000.0, p50=0.002, p99=0.0056, resident=50e6,
        waiting_bytes=500.0,
    )  # fmt: skip
    failed = [goal.what for goal in goals(fast) if goal.passed is False]
    assert [what.partition(":")[0] for what in failed] == [
        "drain by two worker processes, one",  # both alike
        "worst rate at 10^6 waiting tasks, that at 10^3",  # 79 of 100
    ]
    slow = run_with(
        add_one=139.0, add_crowd=399.0, add_bulk=399.0, drain=599.0, p50=0.0051, p99=0.0057, resident=51e6,
        waiting_bytes=501.0,
    )  # fmt: skip
    reached = [goal.what.partition(":")[0] for goal in goals(slow) if goal.passed]
    assert reached == [
        "drain on Redis, protocol by hand", "drain with 3 async plugins on a trigger of every task, without",
        "trigger without a plugin, ns, plain pluggy", "chain of 3 async plugins, ns, pluggy awaited",
        reached[-1],
    ]  # fmt: skip
    assert reached[-1].startswith("its memory over 10^6 tasks")


def test_what_two_cores_allow_is_said_beside_what_two_workers_reach() -> None:
    # 50 µs of a worker and 30 of the server: 20,000 by one, and 25,000 by two on two cores.
    found = run_with(drain=20_000.0, worker_cpu=50e-6, server_cpu=30e-6)
    (goal,) = [goal for goal in goals(found) if "two worker processes" in goal.what]
    assert (goal.value, goal.passed) == (1.0, False)
    for text in ("one: ≥ 1.6 ", "or 0.85 of what 2 cores allow, if that is less: 1.06"):
        assert text in goal.what
    for text in ("2 cores without a pause allow 1.25", "of which 0.80 is reached"):
        assert text in goal.measured


class Workers(Contender):
    """Two workers that are no processes: each has executed what `marked` says of it."""

    def marked(self, number: int, count: float, first: float, last: float, cpu: float) -> None:
        (self.folder / f"{number}.marks").write_bytes(struct.pack("4d", count, first, last, cpu))


def test_a_drain_by_two_workers_is_measured_from_when_both_are_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contender_module, "_tree", lambda pid: iter([pid]))
    monkeypatch.setattr(contender_module, "_cpu", lambda pid: 7.0)
    with Workers("qtasks", sys.executable, "unused") as two:
        two.workers = [SimpleNamespace(pid=1, poll=lambda: None), SimpleNamespace(pid=2, poll=lambda: None)]  # type: ignore[list-item]
        try:
            two.marked(1, 100, 10.0, 11.0, 3.0)
            two.executed(100, 30.0)
            assert two.joined is None
            assert two.cpu_before == 3.0 + 7.0, "what the other one has used so far is its start"
            two.marked(2, 20, 12.0, 12.5, 4.0)
            seen = two.executed(120, 30.0)
            assert two.joined == seen
            assert two.cpu_before == 3.0 + 4.0
            two.marked(1, 300, 10.0, 14.5, 3.0)
            seen = two.executed(300, 30.0)
            assert drained(two, seen) == (320 - 120) / (14.5 - 12.5)
            two.marked(1, 110, 10.0, 14.5, 3.0)
            seen = marks.read(two.folder)
            assert drained(two, seen) == seen.rate, "too little is left to say anything"
        finally:
            two.workers = []


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    for goal in goals({"sessions": [], "chain": {}, "backlog": []}):
        assert (goal.passed, goal.measured) == (None, "not measured")


def test_the_report_goes_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_into(page, report.markdown(run_with(drain=1000.0)))
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n\n2000-01-01")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    dash = report.number(None)
    assert f"| **qtasks** | 100 | 100 | {dash} | 1,000 | 1.0 | 4.00 / 8.00 | 60 (1) | 400 |" in text
    assert f"| {CEILING.name} |" in text
    assert "| drain, /s | 100 | 79 | 0.79 |" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no lines"):
        report.write_into(page, "text")


def test_a_slow_phase_of_the_machine_meets_both_halves_of_a_turn() -> None:
    found = backlog.compared(run_with()["turns"][:4])
    assert (found["drain"].other, found["add_one"].ours) == (75.0, 75.0)
    assert (found["drain"].ratio, found["add_one"].ratio) == (0.79, 1.0)
    assert backlog.compared([]) == {}


def in_turns(kind: str, ours: list[dict[str, float]], other: list[dict[str, float]]) -> dict[str, Any]:
    """The raw figures of a run of one kind of pair, with these figures in each turn."""
    (pair,) = pairs((kind,), Figures({"sessions": []}), [peer for peer in PEERS if peer.name == "saq"])
    sessions = [
        {
            "workload": pair.workload,
            "contender": side.entry.name,
            "repetition": turn,
            "figures": each,
            "error": None,
        }
        for side, turns in ((pair.ours, ours), (pair.other, other))
        for turn, each in enumerate(turns)
    ]
    return {"sessions": sessions, "pairs": [pair.saved()], "machine": {"cores": 2}}


def goal_of(found: dict[str, Any], what: str) -> Goal:
    (goal,) = [goal for goal in goals(found) if what in goal.what]
    return goal


def test_a_goal_is_judged_by_the_median_of_the_ratios_of_a_turn() -> None:
    # The second turn met slow cores, the third one became slow between its halves, the fourth has one half only.
    ours = [{"add_one": value} for value in (6_850.0, 3_800.0, 3_500.0)] + [{"add_one": 9_000.0}]
    saq = [{"add_one": value} for value in (4_281.0, 2_375.0, 4_300.0)] + [{}]
    found = in_turns("add", ours, saq)
    seen = compared(found)["add_one"]
    assert (seen.ours, seen.other, seen.turns, seen.against) == (3_800.0, 4_281.0, 3, "saq")
    assert [round(value, 2) for value in (seen.ratio, seen.lowest, seen.highest)] == [1.6, 0.81, 1.6]
    goal = goal_of(found, "add one by one, fastest async peer: ")
    assert (goal.value, goal.passed) == (seen.ratio, True), "the medians alone would say 0.89"
    assert goal.measured == "3,800 against 4,281 (saq); in 3 turns 0.81 to 1.60"
    assert goal_of(found, "add by 100 callers").passed is None


def test_turns_count_more_than_the_medians_of_the_repetitions() -> None:
    found = run_with(drain=1000.0)
    turns = in_turns("sqlite", [{"drain": 700.0}] * 2, [{"drain": 100.0}] * 2)
    assert goal_of(found, "drain on SQLite, huey as it is by default").passed
    found |= {"pairs": turns["pairs"], "sessions": found["sessions"] + turns["sessions"]}
    goal = goal_of(found, "drain on SQLite, huey as it is by default")
    assert (goal.value, goal.passed) == (7.0, False)
    assert (
        "| drain on SQLite with a sync to the disk, /s | 700 | 100 (huey, SQLite, default) | 7.00 | 7.00 | 7.00 | 2 |"
        in report.markdown(found)
    )


def test_unlike_durability_is_told_and_not_judged() -> None:
    goal = goal_of(run_with(drain=1000.0), "not of like durability")
    assert (goal.value, goal.passed) == (10.0, None)
    assert "would leave 1250 µs for a task" in goal.measured


def test_what_calls_cost_on_one_core_is_told_and_not_judged() -> None:
    found = in_turns("core", [{"add_one": 8_000.0}], [{"add_one": 4_000.0}])
    goal = goal_of(found, "add one by one, fastest async peer, all on one core (not judged)")
    assert (goal.value, goal.passed) == (2.0, None)
    assert goal.measured == "8,000 against 4,000 (saq); in 1 turns 2.00 to 2.00"
    assert goal_of(found, "add one by one, fastest async peer: ").passed is None
    text = report.pairs_table(compared(found))
    assert "| add one by one, all on one core, /s | 8,000 | 4,000 (saq) | 2.00 | 2.00 | 2.00 | 1 |" in text


def test_a_session_on_one_core_leaves_the_others_to_the_next() -> None:
    before = os.sched_getaffinity(0)
    with bound(True):
        assert len(os.sched_getaffinity(0)) == 1
        child = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
        assert subprocess.run(child, capture_output=True, check=True).stdout.strip() == b"1"
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("two", "server", "needed", "reached"),
    [
        # One worker drains 32,100; with two a task takes 34 µs of a worker. With 12 of the server two cores allow
        # 43,478, that is 1.35 times one worker, and 0.85 of it is 1.15.
        pytest.param(37_400.0, 12e-6, 1.15, True, id="as far as the cores allow"),
        pytest.param(36_500.0, 12e-6, 1.15, False, id="not so far"),
        # A server that takes nothing leaves both cores to the workers: 1.83 times one worker, and 0.85 of it is 1.55.
        pytest.param(49_000.0, 0.1e-6, 1.55, False, id="cores that allow much are to be used"),
    ],
)
def test_two_workers_must_reach_most_of_what_the_cores_allow(
    two: float, server: float, needed: float, reached: bool
) -> None:
    # The machine is at half its speed in the second turn: rates are halved, and CPU takes twice as long.
    ours = [
        {"drain": two * speed, "worker_cpu": 34e-6 / speed, "server_cpu": server / speed}
        for speed in (1.0, 0.5, 1.0)
    ]
    goal = goal_of(
        in_turns("two", ours, [{"drain": 32_100.0 * speed} for speed in (1.0, 0.5, 1.0)]), "two worker"
    )
    assert goal.needed is not None
    assert (round(goal.needed, 2), goal.passed) == (needed, reached)
    assert goal.value == two / 32_100.0


def test_two_workers_need_never_reach_more_than_the_goal() -> None:
    ours = [{"drain": 52_000.0, "worker_cpu": 20e-6, "server_cpu": 1e-6}]
    goal = goal_of(in_turns("two", ours, [{"drain": 32_100.0}]), "two worker")
    assert (goal.needed, goal.passed) == (1.6, True)


def test_a_pair_is_made_for_the_best_peer_and_its_sides_change_places() -> None:
    def best(**figures: dict[str, float]) -> Figures:
        return Figures({
            "sessions": [{"workload": "base", "contender": name, "figures": each} for name, each in figures.items()]
        })  # fmt: skip

    of = best(
        arq={"add_one": 3.0, "add_crowd": 5.0, "p50": 2.0, "p99": 4.0}, huey={"add_one": 9.0, "p50": 1.0, "p99": 5.0},
        saq={"add_one": 2.0, "add_crowd": 6.0}, streaq={"add_one": 1.0, "add_bulk": 8.0},
    )  # fmt: skip
    found = {pair.workload: pair for pair in pairs(("add", "trip"), of, PEERS)}
    assert {workload: pair.judged for workload, pair in found.items()} == {
        "turns:add, saq": {"add_crowd": ("add_crowd", "add_crowd")},
        "turns:add, arq": {"add_one": ("add_one", "add_one")},  # the fastest of those that are asynchronous
        "turns:add, huey": {"add_bulk": ("add_bulk", "add_one")},  # its fastest way to add many
        "turns:trip, arq": {"p99": ("p99", "p99")},
        "turns:trip, huey": {"p50": ("p50", "p50")},
    }
    bulk = found["turns:add, huey"]
    assert bulk.sides(0) == (bulk.ours, bulk.other)
    assert bulk.sides(1) == (bulk.other, bulk.ours)
    assert (bulk.other.plan.one, bulk.other.plan.crowd) == (8_000, 0)
    assert (bulk.ours.plan.one, bulk.ours.plan.tasks) == (0, 40_100)
    alone = {pair.workload: pair for pair in pairs(("core",), of, PEERS)}
    assert {workload: (pair.other.entry.name, [*pair.judged]) for workload, pair in alone.items()} == {
        "turns:core, add_one": ("arq", ["add_one_core"]),
        "turns:core, p50": ("huey", ["p50_core"]),
    }
    assert all(side.plan.one_core for pair in alone.values() for side in pair.sides(0))
    assert pairs(("add", "trip", "core"), of, []) == []


def test_a_run_of_turns_alone_saves_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Plan(tasks=30, first=0, one=5, crowd=5, workers=0)
    here = OURS._replace(requirements="here")
    monkeypatch.setattr(Entry, "python", lambda entry: sys.executable)
    pair = Pair(
        "turns:add, other",
        Side(here, short),
        Side(here._replace(name="other"), short),
        {"add_one": ("add_one",) * 2},
    )
    monkeypatch.setattr(suite, "pairs", lambda kinds, of, peers: [pair])
    path = tmp_path / "figures.json"
    found = suite.Run(suite.only_turns(("add",), 1), (), path)()
    sessions = json.loads(path.read_text())["sessions"]
    assert [(each["contender"], each["repetition"]) for each in sessions] == [("qtasks", 0), ("other", 0)]
    assert all(0 < each["figures"][name] < 1 for each in sessions for name in ("core_before", "core_after"))
    assert "drain" not in sessions[0]["figures"]
    text = report.markdown(found)
    assert "nothing but turns, 2 sessions of which 0 gave no figure" in text
    assert "| round trip" not in text


@pytest.mark.nightly
def test_a_turn_leaves_both_backlogs_at_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (20, 2_000)
    monkeypatch.setattr(backlog, "COMPARED", sizes)
    monkeypatch.setattr(backlog, "TURN", {"one": 5, "crowd": 20, "bulk": 20})
    monkeypatch.setattr(backlog, "TURNS", 2)
    monkeypatch.setattr(backlog, "WARM", 50)
    turns = backlog.in_turns()
    assert [turn["waiting"] for turn in turns] == [2_000, 20, 20, 2_000]
    assert all(rate > 0 for turn in turns for rate in turn.values())


def test_the_chain_is_measured_against_its_yardsticks(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import chain

    monkeypatch.setattr(chain, "CALLS", 3)
    monkeypatch.setattr(chain, "ROUNDS", 1)
    figures = asyncio.run(chain.table())
    assert list(figures) == [f"{n} {kind}" for kind in ("def", "async def") for n in (0, 1, 3, 10)]
    assert set(figures["3 def"]) == {"qtasks", "pluggy", "pluggy, awaited", "by hand"}
    assert set(figures["3 async def"]) == {"qtasks", "pluggy, awaited", "by hand"}
    assert all(value > 0 for row in figures.values() for value in row.values())
