"""The application that the worker processes of the tests of `states` run."""

from __future__ import annotations

import asyncio
import os

from qtasks import QueueTasks, Router, current_task
from qtasks.plugins.states import StatesPlugin

router = Router()
states = StatesPlugin()


@router.task(name="count")
async def count(times: int) -> int:
    for _ in range(times):
        await states.update("counter", lambda value: value + 1, 0)
    return os.getpid()


@router.task(name="count-in-a-thread")
def count_in_a_thread(times: int) -> int:
    for _ in range(times):
        current_task().run_sync(states.update("counter", lambda value: value + 1, 0))
    return os.getpid()


@router.task(name="toggle")
async def toggle() -> None:
    """Writes two values as one, for ever."""
    while True:
        await states.update("pair", lambda pair: [pair[0] + 1, pair[1] - 1], [0, 0])
        await asyncio.sleep(0)


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[states])
    application.include_router(router)
    return application


app = make()
