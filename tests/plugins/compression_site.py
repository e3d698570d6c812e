"""The application that the worker processes of the tests of `compression` run."""

from __future__ import annotations

import asyncio
import os

from qtasks import QueueTasks, Router
from qtasks.plugins.compression import CompressionPlugin

router = Router()


@router.task(name="repeat")
async def repeat(text: str, times: int, fatal: bool = False) -> list[str]:
    """Gives the text many times. A fatal one waits for ever, the first time."""
    print("repeat began", flush=True)
    if fatal and not os.path.exists("killed"):
        open("killed", "w").close()
        await asyncio.Event().wait()
    return [text] * times


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[CompressionPlugin()])
    application.include_router(router)
    return application


app = make()
