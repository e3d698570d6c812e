"""One experiment: producers and workers on a backend, faults while they work, then the judgement."""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.redis_server import RedisServer

from .check import Observer, Report, check, drained
from .faults import ALONE, faults_for
from .site import Site, wait_for

BACKENDS = ("sqlite", "redis", "redis+sqlite")


class Size(NamedTuple):
    """How large an experiment is: tasks, faults, workers."""

    tasks: int
    faults: int
    workers: int


SIZES = {"smoke": Size(300, 4, 2), "long": Size(6000, 30, 3), "soak": Size(60_000, 300, 3)}
STOP_SLACK = 5.0


class Experiment:
    """What the faults work on.

    Attributes:
        spoilt: uuids (hex) of rows that were made unreadable.
        words: what each worker is started with.
    """

    server: RedisServer

    def __init__(self, site: Site, size: Size, seed: int) -> None:
        self.site = site
        self.size = size
        self.seed = seed
        self.words: tuple[str, ...] = ()
        self.spoilt: set[str] = set()
        self.late: list[str] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self.producer: subprocess.Popen[bytes]

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM, and judges I10."""
        deadline = float(self.site.env["QTASKS_SHUTDOWN_TIMEOUT"]) + STOP_SLACK
        process.terminate()
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.late.append(f"I10: worker {process.pid} still runs {deadline} s after SIGTERM")
            self.site.kill(process)

    def revive(self) -> None:
        """Starts a worker for each that is gone."""
        for number, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.site.noted("kills", worker.pid, time.time())
                self.workers[number] = self.site.worker(*self.words)

    def produce(self, part: int) -> None:
        """Starts the producer of what is still to be acknowledged."""
        left = max(0, self.size.tasks - len(self.site.lines("acked")))
        pause = 0.3 * self.size.faults * 10 / self.size.tasks
        self.producer = self.site.producer(left, f"{self.seed}/{part}", CHAOS_PAUSE=pause, CHAOS_SECONDS=0.2)

    def restart_producer(self, drawn: random.Random) -> None:
        """kill -9 of the producer; the next one goes on."""
        self.producer.kill()
        self.producer.wait()
        self.produce(drawn.getrandbits(30))


@contextmanager
def _opened(backend: str, folder: Path, size: Size, seed: int, fault: str) -> Iterator[Experiment]:
    # Few deliveries are enough for poison; elsewhere no task may be written off for what chaos did.
    settings = {"max_deliveries": 3 if fault == "poison" else 50, "plugin_timeout": 0.5, "release_delay": 0.1}
    settings["release_max_delay"] = 0.5
    if backend == "sqlite":
        yield Experiment(Site(folder, **settings), size, seed)
        return
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        storage = folder / "storage.db" if backend == "redis+sqlite" else None
        experiment = Experiment(Site(folder, server.url(), storage, **settings), size, seed)
        experiment.server = server
        yield experiment


def run(backend: str, size: Size, seed: int, fault: str, folder: Path) -> Report:
    """Runs an experiment and judges it.

    Parameters:
        backend: one of `BACKENDS`.
        fault: a name, `mixed` or `none`.
        folder: an empty directory.
    """
    faults = faults_for(backend, fault)
    drawn = random.Random(seed)
    with _opened(backend, folder, size, seed, fault) as experiment:
        try:
            observer = Observer(experiment.site)
            with _watched(observer):
                _rage(experiment, faults, drawn)
                left = _calm(experiment)
            report = asyncio.run(check(experiment.site, observer))
        finally:
            experiment.site.close()
    report.left = left or report.left
    report.over += experiment.late
    report.lost = [
        line for line in report.lost if not any(uuid in line.replace("-", "") for uuid in experiment.spoilt)
    ]
    if not faults and report.repeats:
        report.over.append(f"I6: {report.repeats} repeated runs without a fault")
    return report


@contextmanager
def _watched(observer: Observer) -> Iterator[None]:
    async def watch() -> None:
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(event.set))
        ready.set()
        await observer.watch(event)

    stop: list = []
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(watch()))
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        stop[0]()
        thread.join()


def _rage(experiment: Experiment, faults: dict, drawn: random.Random) -> None:
    site = experiment.site
    experiment.produce(0)
    experiment.workers = [site.worker(*experiment.words) for _ in range(experiment.size.workers)]
    wait_for("the first tasks run", lambda: len(site.lines("runs")) > 5)
    for _ in range(experiment.size.faults if faults else 0):
        name = drawn.choice(sorted(faults))
        site.noted("faults", name, time.time())
        faults[name](experiment, drawn)
        experiment.revive()
        time.sleep(drawn.uniform(0.1, 0.6))


def _calm(experiment: Experiment) -> list[str]:
    site = experiment.site
    limit = 60 + experiment.size.tasks / 20

    def produced() -> bool:
        experiment.revive()
        return experiment.producer.poll() is not None

    wait_for("everything is acknowledged", produced, limit)
    reviving = threading.Event()

    def revive() -> None:
        while not reviving.wait(0.2):
            experiment.revive()

    thread = threading.Thread(target=revive)
    thread.start()
    try:
        left = asyncio.run(drained(site, limit))
    finally:
        reviving.set()
        thread.join()
    for worker in experiment.workers:
        experiment.stop(worker)
    return left


__all__ = ["ALONE", "BACKENDS", "SIZES", "Experiment", "Size", "run"]
