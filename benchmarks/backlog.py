"""What a growing backlog does to qtasks: rates and latencies at 10^3 … 10^6 waiting tasks.

One server and one worker for all sizes. The worker is stopped by a signal (idle, so it holds nothing) while tasks are
added, and goes on to drain them: every drain is one of a worker that is warm, and that of 10^6 tasks shows whether its
memory stays flat. Round trips go through a queue of their own with a worker of its own, beside the backlog.

`--turns` compares two sizes, each on a server of its own, in turns: a machine that gets slower does so for both.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import marks
from benchmarks.contender import Contender, ContenderError
from benchmarks.contenders import OURS
from benchmarks.session import Store, fresh, trips

DRAIN = 20_000
"""Executions over which a rate is taken, where so many wait."""
ADDED = {"one": 1_000, "crowd": 5_000, "bulk": 10_000}
"""Tasks added to a backlog to measure the rates."""
TRIPS = 300
WARM = 5_000
LIMIT = 300.0
"""Seconds for one drain at most."""
SAMPLES = 20
"""Looks at the worker's memory in one drain."""
TURN = {"one": 500, "crowd": 3_000, "bulk": 6_000}
"""Tasks added in one turn."""
TURNS = 7


@dataclass
class Backlog:
    """The measurement.

    Parameters:
        main: adds to the backlog and drains it.
        aside: another queue and its worker, for `at`.
    """

    main: Contender
    aside: Contender | None = None
    points: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        """Starts and warms the workers."""
        self.main.client("fill", bulk=WARM)
        self.main.start()
        self.main.executed(WARM, LIMIT)
        if self.aside is not None:
            self.aside.start()
            self.aside.client("roundtrip", count=20)
        self._stop_worker()

    def _stop_worker(self) -> None:
        time.sleep(0.5)  # until the last results are written: then it holds nothing
        os.kill(self.main.workers[0].pid, signal.SIGSTOP)
        marks.reset(self.main.folder)

    def fill(self, **numbers: int) -> dict[str, float]:
        """Adds tasks while the worker stands; gives the rates."""
        added = self.main.client("fill", **numbers)
        return {f"add_{name}": added[name]["count"] / added[name]["seconds"] for name in numbers}

    def drain(self, count: int) -> tuple[float, list[tuple[int, int]]]:
        """Lets the worker execute everything.

        Returns:
            The rate of the first executions, and how the resident memory went with their number.

        Raises:
            ContenderError: not everything was executed.
        """
        os.kill(self.main.workers[0].pid, signal.SIGCONT)
        rate = self.main.executed(min(count, DRAIN), LIMIT).rate
        memory = []
        for step in range(1, SAMPLES + 1):
            seen = self.main.executed(count * step // SAMPLES, LIMIT)
            memory.append((seen.count, self.main.usage().resident))
        if seen.count < count:
            raise ContenderError(f"executed {seen.count:,} of {count:,}: {self.main.log()}")
        self._stop_worker()
        return rate, memory

    def first(self, count: int) -> float:
        """Lets the worker go, until it has executed so many; the rate of these. It is not stopped again."""
        os.kill(self.main.workers[0].pid, signal.SIGCONT)
        return self.main.executed(count, LIMIT).rate

    def at(self, size: int) -> None:
        """Measures at one size; drains of small ones several times, since they are over so soon."""
        assert self.aside is not None
        self.fill(bulk=size)
        figures = self.fill(**ADDED)
        figures |= trips(self.aside.client("roundtrip", count=TRIPS)["seconds"])
        rate, memory = self.drain(size + sum(ADDED.values()))
        if size <= DRAIN:
            rates = []
            for _ in range(min(10, 2 * DRAIN // size)):
                self.fill(bulk=size)
                rates.append(self.drain(size)[0])
            rate = statistics.median(rates)
        self.points.append({"waiting": size, **figures, "drain": rate, "memory": memory})
        shown = {name: value * (1e3 if name in ("p50", "p99") else 1) for name, value in figures.items()}
        cells = ", ".join(f"{name} {value:,.1f}" for name, value in {**shown, "drain": rate}.items())
        print(f"backlog {size:>9,}: {cells}", flush=True)


def measure_all(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """The figures at each size."""
    with (
        fresh("redis") as store,
        Contender(OURS.module, OURS.python(), store.url, {}) as main,
        Contender(OURS.module, OURS.python(), store.url, {"queue": "aside"}) as aside,
    ):
        backlog = Backlog(main, aside)
        backlog.start()
        for size in sizes:
            backlog.at(size)
        return backlog.points


def turn(store: Store, backlog: Backlog) -> dict[str, float]:
    """The rates of adding to a backlog, and the CPU of the server for each added task, in µs."""
    before = store.cpu()
    rates = backlog.fill(**TURN)
    return {**rates, "server µs": (store.cpu() - before) / sum(TURN.values()) * 1e6}


def in_turns(small: int, large: int) -> None:
    """Prints the rates at two sizes, measured in turns, their medians and ratios.

    The small backlog is drained after each turn, and filled again; the large one at the end, of which the first
    executions count: as many as a turn of the small one has.
    """
    with (
        fresh("redis") as store_small,
        fresh("redis") as store_large,
        Contender(OURS.module, OURS.python(), store_small.url, {}) as worker_small,
        Contender(OURS.module, OURS.python(), store_large.url, {}) as worker_large,
    ):
        lines = {
            small: (store_small, Backlog(worker_small)),
            large: (store_large, Backlog(worker_large)),
        }
        for size, (_, backlog) in lines.items():
            backlog.start()
            backlog.fill(bulk=size)
        seen: dict[int, list[dict[str, float]]] = {small: [], large: []}
        for number in range(TURNS):
            for size in (small, large) if number % 2 else (large, small):
                store, backlog = lines[size]
                figures = turn(store, backlog)
                if size == small:
                    figures["drain"] = backlog.drain(size + sum(TURN.values()))[0]
                    backlog.fill(bulk=size)
                elif number == TURNS - 1:
                    figures["drain"] = backlog.first(small + sum(TURN.values()))
                seen[size].append(figures)
                cells = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())
                print(f"turn {number + 1}, {size:>9,} waiting: {cells}", flush=True)
        for name in seen[small][0]:
            low, high = (
                statistics.median(f[name] for f in seen[size] if name in f) for size in (small, large)
            )
            print(f"median {name}: {low:,.1f} at {small:,}, {high:,.1f} at {large:,}, ratio {high / low:.2f}")


if __name__ == "__main__":
    if "--turns" in sys.argv:
        in_turns(1_000, 1_000_000)
    else:
        measure_all(tuple(int(word) for word in sys.argv[1:]) or (1_000, 10_000))
