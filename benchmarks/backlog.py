"""What a growing backlog does to qtasks: rates and latencies at 10^3 … 10^6 waiting tasks.

One server and one worker for all sizes. The worker is stopped by a signal (idle, so it holds nothing) while tasks are
added, and goes on to drain them: every drain is one of a worker that is warm, and that of 10^6 tasks shows whether its
memory stays flat. Round trips go through a queue of their own with a worker of its own, beside the backlog.
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
from benchmarks.session import fresh, trips

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


@dataclass
class Backlog:
    """The measurement.

    Parameters:
        main: adds to the backlog and drains it.
        aside: another queue and its worker.
    """

    main: Contender
    aside: Contender
    points: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        """Starts and warms the two workers."""
        self.aside.start()
        self.main.client("fill", bulk=WARM)
        self.main.start()
        self.main.executed(WARM, LIMIT)
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

    def at(self, size: int) -> None:
        """Measures at one size; drains of small ones several times, since they are over so soon."""
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


if __name__ == "__main__":
    measure_all(tuple(int(word) for word in sys.argv[1:]) or (1_000, 10_000))
