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
from pathlib import Path
from typing import Any
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.components.sqlite import SQLiteStorage
from qtasks.context import TaskContext
from qtasks.errors import BackendError, EnqueueUnknownError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskRequest

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


class Witness:
    """Writes down every accepted settle of this worker."""

    @hookimpl
    def worker_execute_after(self, task_broker: Any, model: Any) -> None:
        """One line for each."""
        if model.status.value == "error" and model.retry_in is not None:
            note("accepted", task_broker.uuid, "retry", "-")
            return
        note("accepted", task_broker.uuid, model.status.value, getattr(model, "returning", "-"))


class Saboteur:
    """A plugin that raises, hangs or returns junk at random triggers, in one of twenty calls."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    async def _strike(self) -> Any:
        drawn = self._random.random()
        if drawn < 0.02:
            raise RuntimeError("sabotage")
        if drawn < 0.023:
            await asyncio.sleep(60)
        return {"junk": object()} if drawn < 0.05 else None

    @hookimpl
    async def storage_get(self, result: Any) -> Any:
        return await self._strike()

    @hookimpl
    async def broker_add_worker(self, uuid: Any) -> Any:
        return await self._strike()

    @hookimpl
    async def worker_execute_before(self, model: Any) -> Any:
        return await self._strike()

    @hookimpl
    async def storage_update(self, kw: Any) -> Any:
        return await self._strike()

    @hookimpl
    async def task_executor_args_replace(self, args: Any) -> Any:
        return await self._strike()

    @hookimpl
    async def worker_execute_after(self, model: Any) -> Any:
        return await self._strike()

    @hookimpl
    async def storage_remove_finished_task(self, model: Any) -> Any:
        return await self._strike()


def make_app(*, sabotage: bool = False) -> QueueTasks:
    """The application, on the stores that the environment names."""
    storage = os.environ.get("CHAOS_STORAGE")
    app = QueueTasks("chaos", os.environ["CHAOS_URL"], storage=SQLiteStorage(storage) if storage else None)
    app.add_plugin(Witness(), name="witness")
    if sabotage:
        app.add_plugin(Saboteur(os.environ.get("CHAOS_SEED", "0")), name="saboteur", plugin_timeout=0.5)
    declare(app)
    return app


def declare(app: QueueTasks) -> None:
    """The tasks: each run is a line when it begins and one when it ends; no two results are alike."""
    count = itertools.count()

    def begin(context: TaskContext) -> str:
        note("runs", context.uuid, "begin", os.getpid(), time.time())
        return f"{os.getpid()}.{next(count)}"

    @app.task(name="work", echo=True)
    async def work(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        await asyncio.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), time.time())
        return result

    @app.task(name="flaky", echo=True, retry=2, retry_delay=0.05)
    async def flaky(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        await asyncio.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), time.time())
        if context.attempt == 0:
            raise ValueError("the first attempt fails")
        return result

    @app.task(name="threaded", echo=True)
    def threaded(context: TaskContext, seconds: float) -> str:
        result = begin(context)
        time.sleep(seconds)
        note("runs", context.uuid, "end", os.getpid(), time.time())
        return result

    @app.task(name="blocking", echo=True)
    async def blocking(context: TaskContext, seconds: float) -> str:
        runs = DIR / "runs"
        first = not runs.exists() or str(context.uuid) not in runs.read_text()
        result = begin(context)
        until = time.monotonic() + (seconds if first else 0)
        while time.monotonic() < until:
            pass
        note("runs", context.uuid, "end", os.getpid(), time.time())
        return result

    @app.task(name="exits", echo=True)
    async def exits(context: TaskContext, seconds: float) -> str:
        begin(context)
        os._exit(1)

    @app.task(name="segfaults", echo=True)
    async def segfaults(context: TaskContext, seconds: float) -> str:
        begin(context)
        ctypes.string_at(0)
        return ""


async def produce() -> None:
    """Adds tasks until the count is reached; an acknowledged uuid is on the disk before the next step."""
    total, seed = int(os.environ["CHAOS_TASKS"]), os.environ["CHAOS_SEED"]
    names = os.environ.get("CHAOS_NAMES", "work work work flaky threaded").split()
    longest = float(os.environ.get("CHAOS_SECONDS", "0.02"))
    drawn = random.Random(f"{seed}/{os.getpid()}" if "CHAOS_UNSEEDED" in os.environ else seed)
    app = make_app()
    async with app:
        added = 0
        while added < total:
            batch = [
                TaskRequest(
                    task_name=drawn.choice(names), args=(drawn.uniform(0, longest),), priority=drawn.randint(-2, 2),
                    uuid=UUID(int=drawn.getrandbits(128), version=4),
                )
                for _ in range(min(drawn.randint(1, 20), total - added))
            ]  # fmt: skip
            await _acknowledged(app, batch)
            note("acked", "\n".join(f"{item.uuid} {item.task_name}" for item in batch), sync=True)
            added += len(batch)
            await asyncio.sleep(float(os.environ.get("CHAOS_PAUSE", "0")))


async def _acknowledged(app: QueueTasks, batch: list[TaskRequest]) -> None:
    while True:
        try:
            await app.add_tasks(batch)
        except (EnqueueUnknownError, BackendError) as error:
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
        app = make_app(sabotage="sabotage" in sys.argv[2:])
        note("workers", os.getpid(), "up", time.time())
        app.run_forever()


if __name__ == "__main__":
    main()
