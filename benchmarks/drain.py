"""qtasks alone, quickly: what a task costs in CPU and time: `python -m benchmarks.drain [redis|sqlite|both]`.

Adds tasks, drains them with a worker in a process of its own (`qtasks -A module:app run`, all settings at their
defaults), then measures round trips while it is idle. CPU is user and system time, which other processes on
the machine disturb far less than the time by the clock.

    --tasks 20000     waiting tasks of the drain
    --trips 300       round trips
    --repeat 3        repetitions; the last line is the median of each column
    --task empty      empty, echo (1 KiB arguments and results) or empty_sync (a plain function)
    --plugins 0       async plugins on a trigger of every task; --replace makes them replace its arguments
    --set NAME=VALUE  a setting of QueueConfig for worker and client (JSON), as `--set concurrency=50`
    --ceiling         the same protocol driven by hand instead (Redis only, no round trips)
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from benchmarks.contender import Contender, ContenderError
from benchmarks.contenders import CEILING, OURS
from benchmarks.peers.common import TASKS
from benchmarks.session import Plan, fresh, measure

COLUMNS = {
    "one by one /s": ("add_one", 1.0), "100 callers /s": ("add_crowd", 1.0), "bulk /s": ("add_bulk", 1.0),
    "bulk CPU µs": ("add_bulk_cpu", 1e6), "drain /s": ("drain", 1.0), "worker CPU µs": ("worker_cpu", 1e6),
    "server CPU µs": ("server_cpu", 1e6), "p50 ms": ("p50", 1e3), "p99 ms": ("p99", 1e3),
    "resident MB": ("resident", 1e-6), "bytes waiting": ("waiting_bytes", 1.0),
}  # fmt: skip


def settings(words: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as settings."""
    pairs = (word.partition("=") for word in words)
    return {name: json.loads(value) for name, _, value in pairs}


def show(label: str, figures: dict[str, float]) -> None:
    """One line of the table."""
    values = [figures.get(name, 0.0) * unit for name, unit in COLUMNS.values()]
    print(
        f"{label:<8}" + "".join(f"{value:>15,.{1 if value < 1000 else 0}f}" for value in values), flush=True
    )


def compare(store: str, options: argparse.Namespace) -> None:
    """All repetitions on one store."""
    few = min(2000, options.tasks // 5)
    plan = Plan(
        task=options.task, tasks=options.tasks, one=few, crowd=few, limit=120.0,
        trips=0 if options.ceiling else options.trips,
    )  # fmt: skip
    chosen = {"plugins": options.plugins, "replace": options.replace, "config": settings(options.set)}
    print(f"{store}: {options.tasks:,} tasks `{options.task}`, results stored")
    print(f"{'':<8}" + "".join(f"{name:>15}" for name in COLUMNS))
    rows, entry = [], CEILING if options.ceiling else OURS
    for number in range(1, options.repeat + 1):
        with fresh(store) as made, Contender(entry.module, entry.python(), made.url, chosen) as contender:
            rows.append(measure(contender, made, plan))
        if rows[-1]["executed"] != plan.tasks or rows[-1]["stored"] < 1:
            raise ContenderError(f"not all tasks were executed, or their results not stored: {rows[-1]}")
        show(f"run {number}", rows[-1])
    show("median", {name: statistics.median(row[name] for row in rows) for name in rows[0]})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", choices=["redis", "sqlite", "both"], nargs="?", default="both")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--trips", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--task", choices=TASKS, default="empty")
    parser.add_argument("--plugins", type=int, default=0)
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--ceiling", action="store_true")
    options = parser.parse_args()
    if options.ceiling:
        options.store = "redis"
    for store in ("redis", "sqlite") if options.store == "both" else (options.store,):
        compare(store, options)


if __name__ == "__main__":
    main()
