"""The faults: what each does to a running experiment. To add one, write a function and name it in `FAULTS`."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .run import Experiment

FAILPOINTS = (
    "worker.after_claim",
    "worker.before_run",
    "worker.before_settle",
    "sqlite.before_commit",
    "sqlite.after_commit_before_reply",
)

Fault = Callable[["Experiment", random.Random], None]


def kill_worker(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of a worker at any moment; another takes its place."""
    number = drawn.randrange(len(experiment.workers))
    experiment.site.kill(experiment.workers[number])
    experiment.workers[number] = experiment.site.worker(*experiment.words)


def failpoint(experiment: Experiment, drawn: random.Random) -> None:
    """A worker that kills itself at a named place takes the place of one that stops in good order."""
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    point = f"{drawn.choice(FAILPOINTS)}:{drawn.randint(1, 40)}"
    doomed = experiment.site.worker(*experiment.words, QTASKS_FAILPOINT=point)
    until = time.monotonic() + 5
    while doomed.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    if doomed.poll() is not None:
        experiment.site.noted("kills", doomed.pid, time.time())
    experiment.site.kill(doomed)
    experiment.workers[number] = experiment.site.worker(*experiment.words)


def pause(experiment: Experiment, drawn: random.Random) -> None:
    """A worker stands still beyond its lease, and comes back."""
    worker = drawn.choice(experiment.workers)
    lease = float(experiment.site.env["QTASKS_LEASE"])
    worker.send_signal(signal.SIGSTOP)
    time.sleep(lease * drawn.uniform(1.3, 1.8))
    worker.send_signal(signal.SIGCONT)


def terminate(experiment: Experiment, drawn: random.Random) -> None:
    """SIGTERM under load: it must be gone within the deadline + 5 s (I10)."""
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    experiment.workers[number] = experiment.site.worker(*experiment.words)


def kill_producer(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of the producer in the middle of an enqueue; another goes on."""
    experiment.restart_producer(drawn)


def block(experiment: Experiment, drawn: random.Random) -> None:
    """A task that blocks the event loop of its worker beyond the lease."""
    lease = float(experiment.site.env["QTASKS_LEASE"])
    blocker = experiment.site.producer(
        1, drawn.random(), CHAOS_NAMES="blocking", CHAOS_SECONDS=lease * 1.5, CHAOS_UNSEEDED=1
    )
    blocker.wait()


def poison(experiment: Experiment, drawn: random.Random) -> None:
    """A task that kills its process, by `os._exit` or a segmentation fault."""
    name = drawn.choice(["exits", "segfaults"])
    experiment.site.producer(1, drawn.random(), CHAOS_NAMES=name).wait()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        experiment.revive()
        time.sleep(0.05)


def sabotage(experiment: Experiment, drawn: random.Random) -> None:
    """A worker with a plugin that raises, hangs or returns junk at random takes the place of another."""
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    experiment.workers[number] = experiment.site.worker("sabotage", CHAOS_SEED=drawn.random())
    time.sleep(1)


def corrupt(experiment: Experiment, drawn: random.Random) -> None:
    """A row whose payload is not readable: it alone is buried."""
    path = experiment.site.url.removeprefix("sqlite:///")
    with sqlite3.connect(path, timeout=5) as file:
        row = file.execute("SELECT seq, uuid FROM tasks WHERE status = 0 LIMIT 1").fetchone()
        if row is not None:
            file.execute("UPDATE tasks SET payload = '{\"' WHERE seq = ? AND status = 0", row[:1])
            experiment.spoilt.add(row[1].hex())


def kill_server(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of the Redis server, which starts again from its AOF."""
    experiment.server.kill()
    time.sleep(drawn.uniform(0, 1))
    experiment.server.start()


def pause_server(experiment: Experiment, drawn: random.Random) -> None:
    """The Redis server stands still for longer than a command waits."""
    experiment.server.pause()
    time.sleep(drawn.uniform(0.5, 6))
    experiment.server.resume()


def forget_scripts(experiment: Experiment, drawn: random.Random) -> None:
    """SCRIPT FLUSH."""
    with experiment.server.client() as client:
        client.script_flush()


def wipe(experiment: Experiment, drawn: random.Random) -> None:
    """FLUSHALL of the broker; the storage is another store."""
    with experiment.server.client() as client:
        client.flushall()


def read_only(experiment: Experiment, drawn: random.Random) -> None:
    """The server becomes a replica of nobody that answers, and refuses writes for a while (READONLY)."""
    with experiment.server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        time.sleep(drawn.uniform(0.2, 2))
        client.execute_command("REPLICAOF", "NO", "ONE")


def memory_full(experiment: Experiment, drawn: random.Random) -> None:
    """maxmemory is reached: writes are refused for a while (OOM)."""
    with experiment.server.client() as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(drawn.uniform(0.2, 2))
        client.config_set("maxmemory", "0")


WORKER_FAULTS: dict[str, Fault] = {
    "kill": kill_worker, "failpoint": failpoint, "pause": pause, "terminate": terminate,
    "producer": kill_producer, "block": block,
}  # fmt: skip
REDIS_FAULTS: dict[str, Fault] = {
    "server": kill_server, "stall": pause_server, "scripts": forget_scripts, "readonly": read_only,
    "memory": memory_full,
}  # fmt: skip
ALONE: dict[str, Fault] = {"poison": poison, "sabotage": sabotage, "corrupt": corrupt}
FAULTS: dict[str, Fault] = {**WORKER_FAULTS, **REDIS_FAULTS, **ALONE, "wipe": wipe}


def faults_for(backend: str, name: str) -> dict[str, Fault]:
    """The faults of a run: one by name, or with `mixed` all that apply to this backend."""
    possible = dict(WORKER_FAULTS)
    if backend != "sqlite":
        possible |= REDIS_FAULTS
    if backend == "redis+sqlite":
        possible["wipe"] = wipe
    if name == "mixed":
        return possible
    if name == "none":
        return {}
    possible |= ALONE
    if backend != "sqlite":
        possible.pop("corrupt")
    if name not in possible:
        raise SystemExit(
            f"fault {name!r} does not apply to {backend}: use one of {', '.join(sorted(possible))}"
        )
    return {name: possible[name]}


def exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether it is gone, without waiting for it."""
    return process.poll() is not None or not os.path.exists(f"/proc/{process.pid}")
