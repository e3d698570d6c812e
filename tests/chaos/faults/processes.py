"""Faults of workers and producers: killed, stopped, blocked, poisoned, with clocks that jump."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

from ..clock import set_machine

if TYPE_CHECKING:
    from ..run import Experiment

FAILPOINTS = (
    "worker.after_claim",
    "worker.before_run",
    "worker.before_settle",
    "sqlite.before_commit",
    "sqlite.after_commit_before_reply",
)
"""Where a process on SQLite kills itself; those of the commit are where an SQLite file is written at all."""

SPLIT_FAILPOINTS = (
    "delivery.stored_not_pushed",
    "delivery.claimed_not_started",
    "delivery.settled_not_acked",
)
"""Between the two stores, where there are two."""


def kill_worker(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of a worker at any moment; another takes its place."""
    experiment.site.kill(drawn.choice(experiment.workers))
    experiment.revive()
    experiment.await_workers()


def kill_all(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of all workers at once; there is nobody who could restore anything until others take their place."""
    for worker in experiment.workers:
        experiment.site.kill(worker)
    experiment.revive()
    experiment.await_workers()


def failpoint(experiment: Experiment, drawn: random.Random) -> None:
    """A worker that kills itself at a named place takes the place of one that stops in good order."""
    places = FAILPOINTS if experiment.backend != "redis" else FAILPOINTS[:3]
    if experiment.backend == "redis+sqlite":
        places += SPLIT_FAILPOINTS
    point = f"{drawn.choice(places)}:{drawn.randint(1, 10)}"
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    doomed = experiment.worker(QTASKS_FAILPOINT=point)
    experiment.await_workers(doomed)
    experiment.more()
    until = time.monotonic() + 5
    while doomed.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    if doomed.poll() is not None:
        experiment.site.noted("kills", doomed.pid, time.time())
    experiment.site.kill(doomed)
    experiment.workers[number] = experiment.worker()


def pause(experiment: Experiment, drawn: random.Random) -> None:
    """A worker stands still beyond its lease, and comes back."""
    worker = drawn.choice(experiment.workers)
    began = time.time()
    worker.send_signal(signal.SIGSTOP)
    time.sleep(experiment.lease * drawn.uniform(1.3, 1.8))
    worker.send_signal(signal.SIGCONT)
    experiment.site.noted("paused", worker.pid, began, time.time())


def terminate(experiment: Experiment, drawn: random.Random) -> None:
    """SIGTERM under load: it must be gone within the deadline + 5 s (I10)."""
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    experiment.workers[number] = experiment.worker()


def kill_producer(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of the producer while it adds; where there are two stores, half the time just between them."""
    point = f"delivery.stored_not_pushed:{drawn.randint(1, 5)}"
    if experiment.backend == "redis+sqlite" and drawn.random() < 0.5:
        experiment.restart_producer(QTASKS_FAILPOINT=point)
        until = time.monotonic() + 3
        while experiment.producer.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
    experiment.restart_producer()


def block(experiment: Experiment, drawn: random.Random) -> None:
    """A task that blocks the event loop of its worker beyond the lease."""
    experiment.add("blocking", drawn, CHAOS_SECONDS=experiment.lease * 4)


def poison(experiment: Experiment, drawn: random.Random) -> None:
    """A task that ends its process, by `os._exit` or a segmentation fault."""
    experiment.add(drawn.choice(["exits", "segfaults"]), drawn)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        experiment.revive()
        time.sleep(0.05)


def clock_jumps(experiment: Experiment, drawn: random.Random) -> None:
    """The clocks of a worker and a producer jump by up to an hour, ahead or back, until both are killed."""
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    confused = experiment.worker(CHAOS_CLOCK=drawn.random())
    if experiment.backend == "redis":
        # Where the storage is a file, its producers are on the same machine and share its clock.
        experiment.restart_producer(CHAOS_CLOCK=drawn.random())
    experiment.await_workers(confused)
    experiment.more()
    time.sleep(drawn.uniform(1, 3))
    experiment.more()
    until = time.monotonic() + 3
    while not experiment.site.begun(confused) and time.monotonic() < until:
        time.sleep(0.02)
    experiment.site.kill(confused)
    experiment.restart_producer()
    experiment.workers[number] = experiment.worker()


def machine_clock(experiment: Experiment, drawn: random.Random) -> None:
    """The clock of the machine jumps, ahead or back by up to ten leases, for all its processes; then it is right."""
    farthest = 10 * experiment.lease
    set_machine(experiment.site.dir, drawn.uniform(-farthest, farthest))
    experiment.more()
    time.sleep(drawn.uniform(1, 3))
    set_machine(experiment.site.dir, 0.0)
