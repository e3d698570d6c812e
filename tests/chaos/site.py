"""A place where chaos happens: a directory with stores and witness files, and the processes that work there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .clock import set_machine

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """Starts, stops and watches the processes of one experiment; it ends only what it started.

    Parameters:
        folder: an empty directory.
        url: of the store; the default is an SQLite file in the directory.
        storage: path of an SQLite storage beside another broker.
        settings: settings of the application (`lease=1.5`).
    """

    def __init__(
        self, folder: Path, url: str | None = None, storage: Path | None = None, **settings: object
    ) -> None:
        self.dir = folder
        set_machine(folder, 0.0)
        self.url = url or f"sqlite:///{folder / 'queue.db'}"
        settings = {"lease": 2, "shutdown_timeout": 3, "concurrency": 10, "reconcile_interval": 2, **settings}
        settings.setdefault("reconcile_age", 1)
        self.env = {
            **os.environ,
            **{f"QTASKS_{name.upper()}": str(value) for name, value in settings.items()},
            "CHAOS_DIR": str(folder),
            "CHAOS_URL": self.url,
            "PYTHONPATH": str(ROOT),
        }
        if storage is not None:
            self.env["CHAOS_STORAGE"] = str(storage)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, role: str, **env: object) -> subprocess.Popen[bytes]:
        """Starts a worker or a producer; `env` is added to its environment."""
        with (self.dir / f"{role}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.job", role],
                env={**self.env, **{name: str(value) for name, value in env.items()}},
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self, **env: object) -> subprocess.Popen[bytes]:
        """Starts a worker."""
        return self.start("worker", **env)

    def producer(self, tasks: int, seed: object, **env: object) -> subprocess.Popen[bytes]:
        """Starts a producer of so many tasks."""
        return self.start("producer", CHAOS_TASKS=tasks, CHAOS_SEED=seed, **env)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """kill -9, and waits until it is gone."""
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            self.noted("kills", process.pid, time.time())
        process.wait()

    def known_killed(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether its end is written down."""
        return any(int(pid) == process.pid for pid, _ in self.lines("kills"))

    def noted(self, name: str, *words: object) -> None:
        """Adds a line to a witness file."""
        with (self.dir / name).open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def lines(self, name: str) -> list[list[str]]:
        """The whole lines of a witness file, split into words."""
        path = self.dir / name
        if not path.exists():
            return []
        text = path.read_text()
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]

    def begun(self, process: subprocess.Popen[bytes] | None = None) -> set[str]:
        """The tasks that have begun a run (in this process) and not ended it."""
        open_runs: set[tuple[str, str]] = set()
        for uuid, what, pid, _ in self.lines("runs"):
            (open_runs.add if what == "begin" else open_runs.discard)((uuid, pid))
        return {uuid for uuid, pid in open_runs if process is None or int(pid) == process.pid}

    def close(self) -> None:
        """Ends what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def site(folder: Path, **options: object) -> Iterator[Site]:
    """A site whose processes are ended at the end."""
    made = Site(folder, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def wait_for(what: str, condition: Callable[[], object], timeout: float = 120.0) -> None:
    """Waits until something is true.

    Raises:
        TimeoutError: it did not become true.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {timeout} s not seen: {what}")
        time.sleep(0.02)
