"""Applications for tests: on every backend, with short times, and with the end that every scenario has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.backends import backend_from_url
from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.config import QueueConfig
from qtasks.schemas import TaskRecord, TaskStatusEnum

BACKENDS = ("memory", "sqlite")
WAIT = 4.0
"""Seconds after which a scenario counts as stuck. Nothing waits that long when all is well."""


def make_app(backend: str, folder: Path, *, plugins: Any = (), **settings: Any) -> QueueTasks:
    """An application that is not started. Its data lies in the memory of the application, or in `folder`.

    Parameters:
        settings: fields of `QueueConfig` in the place of the short ones chosen here, and parameters of `QueueTasks`.
    """
    parts = {
        name: settings.pop(name)
        for name in ("worker", "broker", "storage", "global_config")
        if name in settings
    }
    name = settings.pop("name", "qtasks")
    config = QueueConfig(
        **{
            "concurrency": 4, "threads": 4, "release_delay": 0.01, "release_max_delay": 0.05,
            "shutdown_timeout": 5.0, "queues": ("default", "second"), **settings,
        }
    )  # fmt: skip
    if backend == "memory":
        space = MemorySpace()
        parts = {
            "broker": MemoryBroker(space), "storage": MemoryStorage(space), "global_config": MemoryGlobalConfig(space),
            **parts,
        }  # fmt: skip
        return QueueTasks(name, config=config, plugins=plugins, **parts)
    url = f"sqlite:///{folder / 'queue.db'}"
    found = backend_from_url(url)
    parts = {"broker": found.broker, "storage": found.storage, "global_config": found.global_config, **parts}
    return QueueTasks(name, config=config, plugins=plugins, **parts)


def recording(app: QueueTasks, name: str = "work", **options: Any) -> list[Any]:
    """Declares a task that keeps its argument; gives the list."""
    seen: list[Any] = []

    async def work(value: Any = None) -> Any:
        seen.append(value)
        return value

    app.task(name=name, **options)(work)
    return seen


@asynccontextmanager
async def serving(app: QueueTasks) -> AsyncIterator[asyncio.Task[None]]:
    """The worker of a started application, running beside the test; stopped and checked at the end."""
    worker = asyncio.create_task(app.serve())
    try:
        yield worker
    except BaseException:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        raise
    await app.stop()
    # A worker that has not begun to serve yet is asked again.
    async with asyncio.timeout(WAIT):
        while not worker.done():
            await app.stop()
            await asyncio.wait([worker], timeout=0.01)
        await worker


async def ended(app: QueueTasks, uuid: UUID) -> TaskRecord:
    """The terminal record, read without a trigger."""
    record = await app.storage.wait_settled(uuid, WAIT)
    assert record is not None, f"task {uuid} did not end: {await stored(app, uuid)}"
    return record


async def stored(app: QueueTasks, uuid: UUID) -> TaskRecord | None:
    """The record as it is now, read without a trigger."""
    return (await app.storage.get_many([uuid]))[0]


async def run_canary(app: QueueTasks) -> None:
    """The worker still runs a task to success."""
    task = await app.add_task("canary")
    record = await ended(app, task.uuid)
    assert record.status is TaskStatusEnum.SUCCESS, record.traceback
    assert record.returning == "alive"


async def assert_quiet(app: QueueTasks) -> None:
    """I4: nothing is ready, delayed, leased, buried or open."""
    sizes = await app.broker.size()
    assert not any(any(size) for size in sizes.values()), sizes
    assert await app.broker.buried(10) == []
    page = await app.storage.scan_open(None, 10, app.clock() + 1e6)
    assert page.records == []


@asynccontextmanager
async def alive(app: QueueTasks) -> AsyncIterator[None]:
    """A started application with its worker; at the end the worker still works, and nothing is left."""
    if "canary" not in app.tasks:

        @app.task(name="canary")
        async def canary() -> str:
            return "alive"

    async with app:
        async with serving(app):
            yield
            await run_canary(app)
        await assert_quiet(app)
