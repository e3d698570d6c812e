"""What a growing backlog does to qtasks: rates and latencies at 10^3 … 10^6 waiting tasks.

One server and one worker for all sizes. The worker is stopped by a signal (idle, so it holds nothing) while tasks are
added, and goes on to drain them: every drain is one of a worker that is warm, and that of 10^6 tasks shows whether its
memory stays flat. Round trips go through a queue of their own with a worker of its own, beside the backlog.

A run of growing backlogs takes minutes, so it also shows how the machine drifts meanwhile. `--turns` compares two sizes
fairly: each on a server of its own, in turns, so a machine that gets slower does so for both.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks import marks
from benchmarks.contender import Contender, ContenderError
from benchmarks.contenders import OURS
from benchmarks.session import Store, fresh, trips
from benchmarks.turns import Compared, compare

RATES = ("add_one", "add_crowd", "add_bulk", "drain")
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
TURNS = 15
COMPARED = (1_000, 1_000_000)
"""The sizes that are compared in turns."""


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

    def part(self, count: int) -> float:
        """Lets the worker execute so many and stops it at once, whatever it holds; the rate."""
        os.kill(self.main.workers[0].pid, signal.SIGCONT)
        seen = self.main.executed(count, LIMIT)
        os.kill(self.main.workers[0].pid, signal.SIGSTOP)
        marks.reset(self.main.folder)
        return seen.rate

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
    """One turn: tasks are added, and as many as the small backlog has then are executed, at each size; so each is of
    its size again. The rates, and the CPU seconds of the server for each added task.
    """
    before = store.cpu()
    rates = backlog.fill(**TURN)
    cpu = (store.cpu() - before) / sum(TURN.values())
    rates["drain"] = backlog.part(COMPARED[0] + sum(TURN.values()))
    backlog.fill(bulk=COMPARED[0])
    return {**rates, "add_cpu": cpu}


def in_turns() -> list[dict[str, float]]:
    """Two sizes, each on a server of its own with a worker of its own, of which one works at a time.

    Returns:
        The figures of each turn, with `waiting`, its size.
    """
    with ExitStack() as stack:
        lines: dict[int, tuple[Store, Backlog]] = {}
        for size in COMPARED:
            store = stack.enter_context(fresh("redis"))
            main = stack.enter_context(Contender(OURS.module, OURS.python(), store.url, {}))
            lines[size] = store, Backlog(main)
            lines[size][1].start()
            lines[size][1].fill(bulk=size)
        seen = []
        for number in range(TURNS):
            for size in COMPARED if number % 2 else COMPARED[::-1]:
                figures = {"waiting": size, **turn(*lines[size])}
                seen.append(figures)
                cells = ", ".join(f"{name} {figures[name]:,.0f}" for name in RATES)
                print(
                    f"turn {number + 1} beside {size:>9,}: {cells}, server {figures['add_cpu'] * 1e6:.1f} µs",
                    flush=True,
                )
        return seen


def compared(turns: list[dict[str, float]]) -> dict[str, Compared]:
    """What turns have shown, large to small, by the name of the figure; nothing where nothing was measured."""
    if not turns:
        return {}
    small, large = ([each for each in turns if each["waiting"] == size] for size in COMPARED)
    return {
        name: compare([each[name] for each in large], [each[name] for each in small])
        for name in (*RATES, "add_cpu")
    }


if __name__ == "__main__":
    if "--turns" in sys.argv:
        for name, seen in compared(in_turns()).items():
            unit, digits = (1e6, 1) if name == "add_cpu" else (1, 0)
            small, large = (f"{value * unit:,.{digits}f}" for value in (seen.other, seen.ours))
            print(f"{name:>9}: {small} to {large}, ratio {seen.ratio:.2f}")
    else:
        measure_all(tuple(int(word) for word in sys.argv[1:]) or (1_000, 10_000))
