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
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender
from benchmarks.peers.common import TASKS
from tests.support.redis_server import RedisServer

COLUMNS = {
    "one by one": "/s", "100 callers": "/s", "bulk": "/s", "bulk CPU": "µs", "drain": "/s", "worker CPU": "µs",
    "server CPU": "µs", "p50": "ms", "p99": "ms", "resident": "MB",
}  # fmt: skip


def measure(contender: Contender, options: argparse.Namespace, server: RedisServer | None) -> list[float]:
    """One repetition: a figure per column."""
    few = min(2000, options.tasks // 5)
    filled = contender.client("fill", task=options.task, one=few, crowd=few, bulk=options.tasks - 2 * few)
    served = server_cpu(server)
    contender.start()
    seen = contender.executed(options.tasks, 120)
    contender.check(options.task, filled["ids"])
    served = server_cpu(server) - served
    usage = contender.usage()
    trips = contender.client("roundtrip", task=options.task, count=options.trips)["seconds"]
    contender.stop()
    rates = [filled[name]["count"] / filled[name]["seconds"] for name in ("one", "crowd", "bulk")]
    cpu = (usage.cpu - seen.cpu_before) / seen.count * 1e6
    return [
        *rates, filled["bulk"]["cpu"] / filled["bulk"]["count"] * 1e6, seen.rate, cpu,
        served / seen.count * 1e6, statistics.median(trips) * 1e3, statistics.quantiles(trips, n=100)[98] * 1e3,
        usage.resident / 1e6,
    ]  # fmt: skip


def server_cpu(server: RedisServer | None) -> float:
    """Seconds of CPU time that the server has used."""
    if server is None:
        return 0.0
    with server.client() as client:
        found: dict[str, Any] = client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def settings(words: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as settings."""
    pairs = (word.partition("=") for word in words)
    return {name: json.loads(value) for name, _, value in pairs}


def show(label: str, figures: list[float]) -> None:
    """One line of the table."""
    print(f"{label:<8}" + "".join(f"{figure:>15,.{1 if figure < 1000 else 0}f}" for figure in figures))


def compare(store: str, options: argparse.Namespace) -> None:
    """All repetitions on one store."""
    chosen = {"plugins": options.plugins, "replace": options.replace, "config": settings(options.set)}
    print(f"{store}: {options.tasks:,} tasks `{options.task}`, results stored")
    print(f"{'':<8}" + "".join(f"{f'{name} {unit}':>15}" for name, unit in COLUMNS.items()))
    rows = []
    for number in range(1, options.repeat + 1):
        on_redis = store == "redis"
        served: AbstractContextManager[RedisServer | None] = (
            RedisServer(appendonly="no") if on_redis else nullcontext()
        )
        with served as server, tempfile.TemporaryDirectory() as folder:
            url = server.url(0) if server else f"sqlite:///{Path(folder) / 'bench.db'}"
            with Contender("qtasks", sys.executable, url, chosen) as contender:
                rows.append(measure(contender, options, server))
        show(f"run {number}", rows[-1])
    show("median", [statistics.median(column) for column in zip(*rows, strict=True)])


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
    options = parser.parse_args()
    for store in ("redis", "sqlite") if options.store == "both" else (options.store,):
        compare(store, options)


if __name__ == "__main__":
    main()
