"""Runs a contender in its environment: its client for one measurement, its workers beside it, what they use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import marks

ROOT = Path(__file__).resolve().parent.parent
CLIENT_TIMEOUT = 300.0
START_TIMEOUT = 60.0
QUIET = 5.0
"""Seconds without an execution after which a drain counts as over."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class ContenderError(RuntimeError):
    """A contender did not do what was asked of it: the measurement has no figure."""


class Usage(NamedTuple):
    """What a tree of processes uses now.

    Attributes:
        resident: bytes, shared pages counted in each process (what `ps` and `top` show).
        proportional: bytes, each shared page divided by the processes that share it.
        cpu: seconds of user and system time so far.
    """

    processes: int
    resident: int
    proportional: int
    cpu: float


@dataclass
class Contender:
    """One contender with the settings of one run.

    Parameters:
        module: its module in `benchmarks.peers`.
        python: the interpreter of its environment.
        url: its store.
        options: what the run asks beyond the default.
        for_trips: what it is told besides for round trips, where its quickest way to a result would slow a drain down.

    Attributes:
        folder: its marks and logs; gone with it.
        workers: the processes that were started.
        joined: the marks when each of the workers had executed something; `None` while one has not.
        cpu_before: CPU seconds of the workers before the first execution of each.
    """

    module: str
    python: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)
    for_trips: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.workers: list[subprocess.Popen[bytes]] = []
        self.joined: marks.Marks | None = None
        self.cpu_before = 0.0

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Client -----------------------------------------------------------------------------

    def client(self, verb: str, **options: Any) -> dict[str, Any]:
        """Runs one measurement of the client; gives its figures.

        Raises:
            ContenderError: it failed, or gave a wrong result.
        """
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        done = subprocess.run(
            [*self._command(verb), *words], cwd=ROOT, env=self._environment(), capture_output=True,
            text=True, timeout=CLIENT_TIMEOUT, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ContenderError(f"{self.module} {verb}: {done.stderr.strip()[-2000:]}")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def check(self, task: str, ids: list[str]) -> int:
        """Sees that the results of these tasks are stored; gives how many are.

        Raises:
            ContenderError: more than one in ten is not. (Some peers lose a few: SAQ sweeps as it starts, and
                aborts what it has just taken.)
        """
        path = self.folder / "ids.json"
        path.write_text(json.dumps(ids))
        stored = int(self.client("check", task=task, ids=path)["stored"])
        if stored < 0.9 * len(ids):
            raise ContenderError(f"{self.module} stored {stored} of {len(ids)} results")
        return stored

    def _command(self, verb: str) -> list[str]:
        return [self.python, "-m", f"benchmarks.peers.{self.module}", verb]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ, "BENCH_URL": self.url, "BENCH_OPTIONS": json.dumps(self.options),
            marks.FOLDER: str(self.folder), "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    # --- Workers ----------------------------------------------------------------------------

    def start(self, number: int = 1) -> None:
        """Starts worker processes, each with the command of its user."""
        with (self.folder / "worker.log").open("ab") as log:
            for _ in range(number):
                self.workers.append(
                    subprocess.Popen(
                        self._command("worker"), cwd=ROOT, env=self._environment(), stdin=subprocess.DEVNULL,
                        stdout=log, stderr=log, start_new_session=True,
                    )
                )  # fmt: skip

    def prepare_for_trips(self) -> None:
        """Starts a worker anew where round trips need other settings."""
        if self.for_trips:
            self.stop()
            self.options = {**self.options, **self.for_trips}
            self.start()

    def stop(self) -> None:
        """Ends the workers, with all that they started."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(5)
            # The session is the worker's own: nobody else is in this group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.workers.clear()

    def executed(self, count: int, limit: float) -> marks.Marks:
        """Waits until this many tasks were executed, or for some seconds from the first one, or until nothing
        more is executed.

        Raises:
            ContenderError: a worker ended, or nothing was executed within the time to start.
        """
        began = time.monotonic()
        while True:
            seen = marks.read(self.folder)
            now = time.monotonic()
            if seen.count and self.joined is None:
                # Until the last one is at work, what it has used is its start.
                self.cpu_before = seen.cpu_before + self._cpu_of_others(seen.pids)
                if all(not seen.pids.isdisjoint(_tree(worker.pid)) for worker in self.workers):
                    self.joined = seen
            if seen.count >= count or (seen.count and (now > seen.first + limit or now > seen.last + QUIET)):
                return seen
            if not seen.count and now - began > START_TIMEOUT:
                raise ContenderError(f"{self.module} executed nothing in {START_TIMEOUT:g} s: {self.log()}")
            for worker in self.workers:
                if worker.poll() is not None:
                    raise ContenderError(f"{self.module}: the worker ended: {self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        """The end of what the workers wrote."""
        return (self.folder / "worker.log").read_text(errors="replace")[-2000:]

    def _cpu_of_others(self, executing: frozenset[int]) -> float:
        """CPU seconds so far of processes that execute nothing themselves, as a parent of workers."""
        return sum(_cpu(pid) for pid in self._pids() if pid not in executing)

    def _pids(self) -> list[int]:
        return [pid for worker in self.workers for pid in _tree(worker.pid)]

    def usage(self) -> Usage:
        """What the workers use now, with all their children."""
        pids = self._pids()
        cpu = sum(map(_cpu, pids))
        memory = {"Rss": 0, "Pss": 0}
        for pid in pids:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in memory:
                        memory[name] += int(value.split()[0]) * 1024
        return Usage(len(pids), memory["Rss"], memory["Pss"], cpu)


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):  # it may have gone meanwhile
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK
    return 0.0


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended
            for child in children.read_text().split():
                yield from _tree(int(child))


def until(look: Callable[[], bool], told: str, seconds: float = 30.0) -> None:
    """Waits until something is true.

    Raises:
        ContenderError: it did not come about.
    """
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise ContenderError(f"{told}: not within {seconds:g} s")
        time.sleep(0.01)
