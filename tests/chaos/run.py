"""One experiment: producers and workers on a backend, faults while they work, then the judgement."""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import NamedTuple

from tests.support.redis_server import RedisServer, follows

from .check import Observer, Report, check, drained
from .faults import BACKENDS, Fault, faults_for
from .network import Network
from .site import Site, wait_for


class Size(NamedTuple):
    """How large an experiment is: tasks, faults, workers."""

    tasks: int
    faults: int
    workers: int


SIZES = {
    "smoke": Size(300, 4, 2),
    "alone": Size(400, 4, 3),
    "long": Size(10_000, 45, 3),
    "soak": Size(100_000, 500, 3),
}
STOP_SLACK = 5.0
DISK = 16
"""MiB of the small disk."""


class Experiment:
    """What the faults work on.

    Attributes:
        server, replica, network, db: the Redis server, its replica, the way to it, and the database there.
        file, disk: the SQLite file, and the small disk where it lies.
        spoilt: uuids (hex) of records that were made unreadable.
        sabotaged: whether a plugin has failed on purpose.
        broken: what must not be, as the faults saw it.
    """

    server: RedisServer
    network: Network
    replica: RedisServer | None = None
    db = 0
    disk: Path | None = None
    file: Path
    producer: subprocess.Popen[bytes]

    def __init__(self, backend: str, size: Size, seed: int) -> None:
        self.backend = backend
        self.size = size
        self.seed = seed
        self.site: Site
        self.spoilt: set[str] = set()
        self.sabotaged = False
        self.broken: list[str] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self._parts = self._shares = 0

    @property
    def lease(self) -> float:
        """Seconds."""
        return float(self.site.env["QTASKS_LEASE"])

    def worker(self, **env: object) -> subprocess.Popen[bytes]:
        """Starts a worker."""
        return self.site.worker(**env)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM, and judges I10."""
        deadline = float(self.site.env["QTASKS_SHUTDOWN_TIMEOUT"]) + STOP_SLACK
        process.terminate()
        try:
            process.wait(deadline)
            self.site.noted("stopped", process.pid, time.time())
        except subprocess.TimeoutExpired:
            self.broken.append(f"I10: worker {process.pid} still runs {deadline} s after SIGTERM")
            self.site.kill(process)

    def revive(self) -> None:
        """Starts a worker for each that is gone."""
        for number, worker in enumerate(self.workers):
            if worker.poll() is not None:
                if not self.site.known_killed(worker):
                    self.site.noted("kills", worker.pid, time.time())
                self.workers[number] = self.worker()

    def await_workers(self, *others: subprocess.Popen[bytes]) -> None:
        """Waits until all workers serve, or these: faults that come faster meet nobody."""
        pids = {str(worker.pid) for worker in others or self.workers}
        wait_for("the workers are up", lambda: pids <= {pid for pid, *_ in self.site.lines("workers")})

    def more(self) -> None:
        """Lets the producer add another share of the tasks; three belong to each fault, and one to the begin."""
        self._shares += 1
        self._release(self.size.tasks * self._shares // (3 * self.size.faults + 1))

    def complete(self, shares: int) -> None:
        """Releases up to so many shares; none twice."""
        while self._shares < shares:
            self.more()

    def _release(self, tasks: int) -> None:
        whole = self.site.dir / "released.new"
        whole.write_text(str(tasks))
        whole.rename(self.site.dir / "released")

    def shorten(self) -> None:
        """Ends the experiment with the tasks that are released by now."""
        self.size = self.size._replace(tasks=int((self.site.dir / "released").read_text()))
        self.restart_producer()

    def produce(self, **env: object) -> None:
        """Starts the producer of what is still to be acknowledged."""
        already = len(self.site.lines("acked"))
        self._parts += 1
        self.producer = self.site.producer(
            max(0, self.size.tasks - already), f"{self.seed}/{self._parts}",
            CHAOS_ALREADY=already, CHAOS_PAUSE=0.03, CHAOS_SECONDS=0.2, **env,
        )  # fmt: skip

    def restart_producer(self, **env: object) -> None:
        """kill -9 of the producer; the next one goes on."""
        self.producer.kill()
        self.producer.wait()
        self.produce(**env)

    def add(self, name: str, drawn: random.Random, **env: object) -> None:
        """Adds one task of a kind beside the others, and waits until it is acknowledged."""
        one = self.site.producer(1, drawn.random(), CHAOS_NAMES=name, CHAOS_ALREADY=-1, **env)
        one.wait(60)


@contextmanager
def _opened(
    backend: str, folder: Path, size: Size, seed: int, faults: Collection[str]
) -> Iterator[Experiment]:
    # Few deliveries are enough for poison; elsewhere no task may be written off for what chaos did.
    settings: dict[str, object] = {
        "max_deliveries": 3 if "poison" in faults else 60, "plugin_timeout": 0.5, "release_delay": 0.1,
        "release_max_delay": 0.5,
    }  # fmt: skip
    experiment = Experiment(backend, size, seed)
    with ExitStack() as stack:
        place = folder
        if "disk" in faults:
            place = experiment.disk = stack.enter_context(small_disk(folder / "disk"))
        experiment.file = place / "queue.db"
        url, storage = f"sqlite:///{experiment.file}", None
        if backend != "sqlite":
            url = _redis(experiment, stack, settings, with_replica="promote" in faults)
            storage = experiment.file if backend == "redis+sqlite" else None
        experiment.site = Site(folder, url, storage, **settings)
        stack.callback(experiment.site.close)
        yield experiment


def _redis(
    experiment: Experiment, stack: ExitStack, settings: dict[str, object], *, with_replica: bool
) -> str:
    def started(**options: str) -> RedisServer:
        server = RedisServer(appendonly="yes", appendfsync="always", **options)
        # Not `with server`: the one that is master at the end need not be the one that was made first.
        stack.callback(server.__exit__)
        server.start()
        return server

    experiment.server = started()
    if with_replica:
        experiment.replica = started(replicaof=f"127.0.0.1 {experiment.server.port}")
        follows(experiment.replica)
        if experiment.backend == "redis":
            # Otherwise the storage is the truth, and what a failover takes from the broker is pushed again.
            settings["durability"] = "replica"
    experiment.network = stack.enter_context(Network(experiment.server.port))
    return f"redis://127.0.0.1:{experiment.network.port}/0?socket_timeout=1"


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A small tmpfs. Needs the right to mount, which root has in most containers too.

    Raises:
        PermissionError: this user, or this machine, does not allow it.
    """
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(path)], capture_output=True, text=True
    )
    if made.returncode:
        raise PermissionError(f"no small disk can be mounted: {made.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def applicable(backend: str, name: str) -> dict[str, Fault]:
    """The faults of a run, without those that this machine does not allow."""
    faults = faults_for(backend, name)
    if "disk" in faults and not _may_mount():
        del faults["disk"]
    return faults


def _may_mount() -> bool:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk"):
                return True
        except (PermissionError, FileNotFoundError):
            return False


def run(
    backend: str, size: Size, seed: int, fault: str, folder: Path, minutes: float | None = None
) -> Report:
    """Runs an experiment and judges it.

    Parameters:
        backend: one of `BACKENDS`.
        fault: a name, `mixed` or `none`.
        folder: an empty directory.
        minutes: after which no more faults and tasks come.
    """
    faults = applicable(backend, fault)
    drawn = random.Random(seed)
    with _opened(backend, folder, size, seed, faults) as experiment:
        observer = Observer(experiment.site)
        with _watched(observer):
            _rage(experiment, faults, drawn, minutes)
            left = _calm(experiment)
        report = asyncio.run(
            check(experiment.site, observer, spoilt=experiment.spoilt, sabotaged=experiment.sabotaged)
        )
    report.left = left or report.left
    report.over += experiment.broken
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


def _rage(
    experiment: Experiment, faults: dict[str, Fault], drawn: random.Random, minutes: float | None
) -> None:
    site = experiment.site
    until = inf if minutes is None else time.monotonic() + 60 * minutes
    count = experiment.size.faults if faults else 0
    experiment.more()
    experiment.produce()
    experiment.workers = [experiment.worker() for _ in range(experiment.size.workers)]
    wait_for("the first tasks run", lambda: len(site.lines("runs")) > 5)
    for number in range(count):
        if time.monotonic() > until:
            experiment.shorten()
            break
        name = drawn.choice(sorted(faults))
        experiment.complete(3 * number + 2)
        time.sleep(drawn.uniform(0.1, 0.5))
        began = time.time()
        site.noted("faults", name, began)
        faults[name].act(experiment, drawn)
        if faults[name].away:
            site.noted("away", began, time.time())
        experiment.complete(3 * number + 4)
        experiment.revive()


def _calm(experiment: Experiment) -> list[str]:
    site = experiment.site
    limit = 300 + experiment.size.tasks / 10
    experiment.complete(3 * experiment.size.faults + 1)

    def produced() -> bool:
        experiment.revive()
        if experiment.producer.poll() not in (0, None):
            experiment.produce()
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


__all__ = ["BACKENDS", "SIZES", "Experiment", "Size", "run"]
