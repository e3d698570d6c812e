"""The application that the worker processes of the tests of `schedule` run."""

from __future__ import annotations

import os

from qtasks import QueueTasks, Router

router = Router()
INTERVAL = 0.25


@router.every(INTERVAL, catch_up="all", most=1000)
@router.task(name="tick")
async def tick() -> int:
    return os.getpid()


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url)
    application.include_router(router)
    return application


app = make()
