"""The application that the worker processes of the tests of `unique` run."""

from __future__ import annotations

import asyncio

from qtasks import QueueTasks, Router
from qtasks.plugins.unique import Unique, UniquePlugin

router = Router()


@router.task(name="report", extra={"unique": Unique()})
async def report(name: str) -> str:
    print(f"report {name} began", flush=True)
    if name == "long":
        await asyncio.sleep(1.5)
    return name


@router.task(name="ask")
async def ask(name: str, queue: str = "default") -> str:
    """Adds from inside a worker process; gives the uuid of the task that it got."""
    return str((await report.options(queue=queue).add_task(name)).uuid)


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[UniquePlugin()])
    application.include_router(router)
    return application


app = make()
