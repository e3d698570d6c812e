"""The figures of one run as tables in Markdown, and its plot."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import backlog
from benchmarks.contenders import ALL, CEILING, ON_DISK, OURS, OURS_ON_DISK, OURS_SQLITE
from benchmarks.figures import Figures
from benchmarks.goals import goals
from benchmarks.suite import backlog_of
from benchmarks.turns import Compared, compared

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
VERDICTS = {True: "yes", False: "**no**", None: "–"}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float | None, unit: float = 1.0, digits: int = 0) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value * unit:,.{digits}f}"


def goal_table(found: dict[str, Any]) -> str:
    """Each goal and what came of it."""
    rows = [
        (goal.what, goal.measured, "–" if goal.value is None else f"{goal.value:.2f}", VERDICTS[goal.passed])
        for goal in goals(found)
        if found["size"]["repeat"] or goal.value is not None  # of turns alone only what they show
    ]
    return table(("Goal", "Measured", "Ratio or figure", "Reached"), rows)


def core_speed(found: dict[str, Any], contender: str) -> str:
    """How long a fixed piece of work took beside the basic sessions of a contender, the median in ms."""
    seen = [
        session["figures"][name]
        for session in found["sessions"]
        if (session["workload"], session["contender"]) == ("base", contender)
        for name in ("core_before", "core_after")
        if name in session["figures"]
    ]
    return number(statistics.median(seen) if seen else None, 1e3, 1)


def main_table(of: Figures, found: dict[str, Any]) -> str:
    """Everybody, the basic figures."""
    rows = []
    for entry in sorted((*ALL, *ON_DISK), key=lambda entry: -(of("drain", entry.name) or 0)):
        if of("drain", entry.name) is None:
            continue

        def cell(name: str, unit: float = 1.0, digits: int = 0, who: str = entry.name) -> str:
            return number(of(name, who), unit, digits)

        memory = f"{cell('resident', 1e-6)} ({cell('processes')})"
        name = f"**{entry.name}**" if entry in (OURS, OURS_SQLITE, OURS_ON_DISK) else entry.name
        trip = "–" if of("p50", entry.name) is None else f"{cell('p50', 1e3, 2)} / {cell('p99', 1e3, 2)}"
        likewise = OURS_ON_DISK if entry in ON_DISK else OURS_SQLITE if entry.store == "sqlite" else OURS
        ours, drain = of("drain", likewise.name), of("drain", entry.name)
        factor = "–" if ours is None or drain is None else f"{ours / drain:.1f}"
        rows.append((
            name, cell("add_one"), cell("add_crowd"), cell("add_bulk"), cell("drain"), factor, trip, memory,
            cell("waiting_bytes"), cell("worker_cpu", 1e6), cell("server_cpu", 1e6), entry.delivery,
            core_speed(found, entry.name),
        ))  # fmt: skip
    heads = (
        "", "add one by one, /s", "by 100 callers, /s", "in bulk, /s", "drain, /s", "qtasks is × as fast",
        "round trip p50 / p99, ms", "worker, MB (processes)", "bytes per waiting task", "worker CPU per task, µs",
        "server CPU per task, µs", "delivery", "core, ms",
    )  # fmt: skip
    return table(heads, rows)


def other_table(of: Figures) -> str:
    """Drains in the other workloads."""
    rows = []
    for entry in ALL:
        one, two = of("drain", entry.name), of("drain", entry.name, "two")
        payload, sync = of("drain", entry.name, "payload"), of("drain", entry.name, "sync")
        if (two or payload or sync) is None:
            continue
        if not entry.asynchronous and entry is not CEILING:
            sync = one  # its tasks are plain functions anyhow
        ratio = "–" if one is None or two is None else f"{number(two)} ({two / one:.2f} ×)"
        rows.append((entry.name, number(one), number(payload), number(sync), ratio))
    return table(("drain, tasks/s", "empty", "1 KiB in and out", "plain functions", "two workers"), rows)


def plugin_table(of: Figures, found: dict[str, Any]) -> str:
    """What plugins cost."""
    base = of("drain", OURS.name, "plugins")
    names = dict.fromkeys(s["contender"] for s in found["sessions"] if s["workload"] == "plugins")
    rows = []
    for name in names:
        drain = of("drain", name, "plugins")
        share = "–" if drain is None or base is None else f"{drain / base:.2f}"
        rows.append((name, number(drain), share, number(of("worker_cpu", name, "plugins"), 1e6, 1)))
    return table(
        ("with async plugins on a trigger of every task", "drain, /s", "× qtasks", "worker CPU, µs"), rows
    )


def chain_table(chain: dict[str, dict[str, float]]) -> str:
    """What firing a trigger costs."""
    heads = ("qtasks", "pluggy", "pluggy, awaited", "by hand")
    rows = [(label, *(number(figures.get(name)) for name in heads)) for label, figures in chain.items()]
    return table(("implementations, ns per call", *heads), rows)


def backlog_table(points: list[dict[str, Any]]) -> str:
    """What a backlog changes."""
    rows = [
        (f"{point['waiting']:,}", *(number(point[name]) for name in ("add_one", "add_crowd", "add_bulk", "drain")),
         f"{point['p50'] * 1e3:.2f} / {point['p99'] * 1e3:.2f}", number(point["memory"][-1][1], 1e-6))
        for point in points
    ]  # fmt: skip
    heads = (
        "waiting", "add one by one, /s", "by 100 callers, /s", "in bulk, /s", "drain, /s",
        "round trip beside it p50 / p99, ms", "worker after the drain, MB",
    )  # fmt: skip
    return table(heads, rows)


def pairs_table(seen: dict[str, Compared]) -> str:
    """What was compared in turns."""
    names = {
        "add_one": "add one by one, /s", "add_crowd": "by 100 callers, /s", "add_bulk": "in bulk, /s",
        "p50": "round trip p50, ms", "p99": "round trip p99, ms", "two": "drain by two worker processes, /s",
        "plugins": "drain with 3 async plugins, /s", "sqlite": "drain on SQLite with a sync to the disk, /s",
        "add_one_core": "add one by one, all on one core, /s", "p50_core": "round trip p50, all on one core, ms",
    }  # fmt: skip
    rows = []
    for name, each in seen.items():
        unit, digits = (1e3, 2) if name in ("p50", "p99", "p50_core") else (1.0, 0)
        other = f"{number(each.other, unit, digits)} ({each.against})"
        ratios = f"{each.ratio:.2f}", f"{each.lowest:.2f}", f"{each.highest:.2f}"
        rows.append((names[name], number(each.ours, unit, digits), other, *ratios, str(each.turns)))
    heads = (
        "medians of turns",
        "this",
        "against",
        "median of the ratios of a turn",
        "lowest",
        "highest",
        "turns",
    )
    return table(heads, rows)


def turns_table(turns: list[dict[str, float]]) -> str:
    """A small backlog and a large one, compared in turns."""
    found = backlog.compared(turns)
    names = {
        "add_one": "add one by one, /s", "add_crowd": "by 100 callers, /s", "add_bulk": "in bulk, /s",
        "drain": "drain, /s", "add_cpu": "server, µs per added task",
    }  # fmt: skip
    rows = []
    for name, label in names.items():
        unit, digits = (1e6, 1) if name == "add_cpu" else (1.0, 0)
        large, small = number(found[name].ours, unit, digits), number(found[name].other, unit, digits)
        rows.append((label, small, large, f"{found[name].ratio:.2f}"))
    heads = (
        "medians of turns",
        *(f"{size:,} waiting" for size in backlog.COMPARED),
        "median of the ratios of a turn",
    )
    return table(heads, rows)


def peer_backlog_table(of: Figures, sizes: Sequence[int]) -> str:
    """Drains of everybody from backlogs."""
    rows = [
        (entry.name, *(number(of("drain", entry.name, backlog_of(size))) for size in sizes))
        for entry in ALL
        if any(of("drain", entry.name, backlog_of(size)) is not None for size in sizes)
    ]
    return table(("drain, tasks/s, from a backlog of", *(f"{size:,}" for size in sizes)), rows)


def origin(found: dict[str, Any]) -> str:
    """Where the figures come from."""
    machine = found["machine"]
    versions = "; ".join(
        f"{name} {next(iter(parts.values()))} ("
        + ", ".join(f"{part} {v}" for part, v in list(parts.items())[1:])
        + ")"
        for name, parts in found["versions"].items()
    )
    failed = [session for session in found["sessions"] if session["error"]]
    size = found["size"]
    in_turns = {pair["workload"] for pair in found.get("pairs", [])}
    # Of a run that was cut short only the repetitions that it began count.
    repeated = 1 + max(
        (each["repetition"] for each in found["sessions"] if each["workload"] not in in_turns), default=-1
    )
    basic = f"{size['plan']['tasks']:,} waiting tasks, medians of {repeated} of {size['repeat']} repetitions"
    return (
        f"{found['began']}: {machine['cores']} cores of {machine['cpu']}, {machine['system']}, {machine['python']}, "
        f"{machine['server']} without persistence; {basic if size['repeat'] else 'nothing but turns'}, "
        f"{len(found['sessions'])} sessions of which {len(failed)} gave no figure.\n\n{versions}."
    )


def markdown(found: dict[str, Any], plot: str | None = None) -> str:
    """All of it."""
    of = Figures(found)
    parts = [origin(found), "### Goals", goal_table(found)]
    if seen := compared(found):
        parts += ["### In turns", pairs_table(seen)]
    measured = {session["workload"] for session in found["sessions"]}
    if "base" in measured:
        parts += ["### All contenders", main_table(of, found)]
    if measured & {"payload", "sync", "two"}:
        parts += ["### Other workloads", other_table(of), "### Plugins and the log", plugin_table(of, found)]
    if found.get("chain"):
        parts += ["### Firing a trigger", chain_table(found["chain"])]
    if found.get("backlog"):
        parts += ["### A growing backlog", backlog_table(found["backlog"])]
        if plot:
            parts.append(f"![Rates and latencies as the backlog grows]({plot})")
    if found.get("turns"):
        parts.append(turns_table(found["turns"]))
    if sizes := found["size"].get("peer_backlogs"):
        parts.append(peer_backlog_table(of, sizes))
    return "\n\n".join(parts)


def write_into(page: Path, text: str) -> None:
    """Puts the figures between the two marks of a page.

    Raises:
        ValueError: the page has no such marks.
    """
    old = page.read_text(encoding="utf-8")
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """The plot of the backlog, as SVG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "qtasks", "font.size": 9})
    from matplotlib import pyplot

    figure, (rates, trips) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    sizes = [point["waiting"] for point in points]
    labels = {
        "drain": "drain",
        "add_bulk": "add in bulk",
        "add_crowd": "add by 100 callers",
        "add_one": "one by one",
    }
    for name, label in labels.items():
        rates.plot(sizes, [point[name] for point in points], marker="o", markersize=3, label=label)
    for name in ("p50", "p99"):
        trips.plot(sizes, [point[name] * 1e3 for point in points], marker="o", markersize=3, label=name)
    for axes, title in ((rates, "tasks per second"), (trips, "round trip beside it, ms")):
        axes.set(xscale="log", xlabel="waiting tasks", title=title)
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, ncols=2, loc="upper center")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
