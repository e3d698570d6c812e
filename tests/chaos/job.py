"""The application that chaos runs: what it did is written to files outside the system under test.

As a program it is one worker or one producer: `python -m tests.chaos.job worker|producer`.
Where the stores are, and where to write, comes from the environment (`CHAOS_…`).
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.components.primitives import SweepReport
from qtasks.components.sqlite import SQLiteStorage
from qtasks.components.sqlite.file import SQLitePart
from qtasks.context import TaskContext
from qtasks.errors import BackendError, EnqueueUnknownError, PluginError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskRequest

from .clock import machine, wall
from .saboteur import NAME, saboteur

DIR = Path(os.environ.get("CHAOS_DIR", "."))


def note(name: str, *words: object, sync: bool = False) -> None:
    """Appends one line in one write, so that the lines of several processes never mix."""
    file = os.open(DIR / name, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def begun(uuid: UUID) -> int:
    """How often a task has begun, in any process."""
    return (DIR / "runs").read_text().count(f"{uuid} begin")


class Witness:
    """Writes down that this worker serves, and every settle of it that was accepted."""

    @hookimpl
    def broker_listen_start(self) -> None:
        """One line."""
        note("workers", os.getpid(), "up", wall())

    @hookimpl
    def worker_execute_after(self, task_broker: Any, model: Any) -> None:
        """One line for each."""
        if model.status.value == "error" and model.retry_in is not None:
            note("accepted", task_broker.uuid, "retry", "-")
            return
        note("accepted", task_broker.uuid, model.status.value, getattr(model, "returning", "-"))


class HoldsUp:
    """Does not let its process end: it waits for ever in these triggers, and goes on when it is cancelled."""

    def __init__(self, *triggers: str) -> None:
        async def holds_up() -> None:
            note("held", os.getpid(), wall())
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        for trigger in triggers:
            setattr(self, trigger, hookimpl(holds_up))


def witness_claims(app: QueueTasks) -> None:
    """Writes down when a claim begins and when it is answered."""
    claim = app.delivery.claim

    async def witnessed(*args: Any) -> Any:
        note("claims", "begin", os.getpid())
        claimed = await claim(*args)
        note("claims", "end", os.getpid())
        return claimed

    app.delivery.claim = witnessed  # type: ignore[method-assign]


def witness_sweeps(app: QueueTasks) -> None:
    """Writes down what is queued again: no trigger tells it of each task."""
    sweep = app.broker.sweep

    async def witnessed(limit: int, max_deliveries: int) -> SweepReport:
        report = await sweep(limit, max_deliveries)
        for uuid in report.restored:
            note("restored", uuid, wall())
        return report

    app.broker.sweep = witnessed  # type: ignore[method-assign]


def make_app() -> QueueTasks:
    """The application, on the stores that the environment names."""
    storage = os.environ.get("CHAOS_STORAGE")
    app = QueueTasks("chaos", os.environ["CHAOS_URL"], storage=SQLiteStorage(storage) if storage else None)
    app.add_plugin(Witness(), name="witness")
    if seed := os.environ.get("CHAOS_SABOTAGE"):
        app.add_plugin(saboteur(seed, app.pm.triggers, note), name=NAME, plugin_timeout=0.5)
    if triggers := os.environ.get("CHAOS_HELD_UP"):
        app.add_plugin(HoldsUp(*triggers.split()), name="holds up", plugin_timeout=0)
    if "CHAOS_CLAIMS" in os.environ:
        witness_claims(app)
    for component in (app.broker, app.storage, app.global_config):
        if isinstance(component, SQLitePart):
            component.clock = machine
    witness_sweeps(app)
    declare(app)
    return app


def declare(app: QueueTasks) -> None:
    """The tasks: each run is a line when it begins and one when it ends; no two results are alike."""
    count = itertools.count()

    def begin(context: TaskContext) -> str:
        note("runs", context.uuid, "begin", os.getpid(), wall())
        return f"{os.getpid()}.{next(count)}"

    @app.task(name="work", echo=True)
    async def work(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        await asyncio.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), wall())
        return result

    @app.task(name="steady", echo=True)
    async def steady(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        await asyncio.sleep(30)
        note("runs", context.uuid, "end", os.getpid(), wall())
        return result

    @app.task(name="flaky", echo=True, retry=2, retry_delay=0.05)
    async def flaky(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        await asyncio.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), wall())
        if context.attempt == 0:
            raise ValueError("the first attempt fails")
        return result

    @app.task(name="threaded", echo=True)
    def threaded(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        time.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), wall())
        return result

    @app.task(name="blocking", echo=True)
    async def blocking(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        until = time.monotonic() + seconds
        # Until it runs elsewhere, or time is up: how long that takes is the machine's affair.
        while time.monotonic() < until and begun(context.uuid) < 2:
            time.sleep(0.05)  # it holds the event loop as work on the CPU would
        note("runs", context.uuid, "end", os.getpid(), wall())
        return result

    declare_stubborn(app, begin)
    declare_poison(app, begin)


def declare_stubborn(app: QueueTasks, begin: Callable[[TaskContext], str]) -> None:
    """A task that does not stop when it is told to."""

    @app.task(name="stubborn", echo=True)
    async def stubborn(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        while begun(context.uuid) < 2:  # its first worker does not get rid of it
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), wall())
        return result


def declare_poison(app: QueueTasks, begin: Callable[[TaskContext], str]) -> None:
    """Tasks that end their process."""

    @app.task(name="exits", echo=True)
    async def exits(context: TaskContext, seconds: float) -> str:
        begin(context)
        os._exit(1)

    @app.task(name="segfaults", echo=True)
    async def segfaults(context: TaskContext, seconds: float) -> str:
        begin(context)
        ctypes.string_at(0)
        return ""


TURN = 50
"""Tasks that are added in one manner, before the other has its turn."""


async def produce() -> None:
    """Adds tasks until the count is reached; an acknowledged uuid is on the disk before the next step."""
    total, seed = int(os.environ["CHAOS_TASKS"]), os.environ["CHAOS_SEED"]
    names = os.environ.get("CHAOS_NAMES", "work work work flaky threaded").split()
    longest = float(os.environ.get("CHAOS_SECONDS", "0.02"))
    drawn = random.Random(f"{seed}/{os.getpid()}" if "CHAOS_UNSEEDED" in os.environ else seed)
    already = int(os.environ.get("CHAOS_ALREADY", "0"))
    app = make_app()
    async with app:
        added = 0
        while added < total:
            if already + added >= released():
                await asyncio.sleep(0.02)
                continue
            # By turns batches, and short tasks one by one: those are handed to workers that are at rest.
            alone = (already + added) // TURN % 2 == 1
            most = 0.005 if alone else longest
            batch = [
                TaskRequest(
                    task_name=drawn.choice(names), args=(drawn.uniform(0, most),), priority=drawn.randint(-2, 2),
                    uuid=UUID(int=drawn.getrandbits(128), version=4),
                )
                for _ in range(1 if alone else min(drawn.randint(1, 20), total - added))
            ]  # fmt: skip
            await _acknowledged(app, batch)
            note("acked", "\n".join(f"{item.uuid} {item.task_name}" for item in batch), sync=True)
            added += len(batch)
            await asyncio.sleep(0.01 if alone else float(os.environ.get("CHAOS_PAUSE", "0")))


def released() -> float:
    """How many tasks may have been added by now: so there is work at each fault. Without the file, all."""
    try:
        return int((DIR / "released").read_text())
    except FileNotFoundError:
        return float("inf")


async def _acknowledged(app: QueueTasks, batch: list[TaskRequest]) -> None:
    while True:
        try:
            await app.add_tasks(batch)
        except (EnqueueUnknownError, BackendError, PluginError) as error:
            note("producer-errors", type(error).__name__, str(error).replace("\n", " "))
            await asyncio.sleep(0.1)
        else:
            return


def main() -> None:
    """Runs as what the first word says."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(name)s %(message)s")
    if sys.argv[1] == "producer":
        asyncio.run(produce())
    else:
        make_app().run_forever()


if __name__ == "__main__":
    main()
