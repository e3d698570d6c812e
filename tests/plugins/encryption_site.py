"""The application that the worker processes of the tests of `encryption` run. Its keys come from the environment."""

from __future__ import annotations

import asyncio
import os

from qtasks import QueueTasks, Router, TaskContext
from qtasks.plugins.compression import CompressionPlugin
from qtasks.plugins.encryption import EncryptionPlugin

router = Router()


@router.task(name="pay", echo=True)
async def pay(context: TaskContext, card: str, *, note: str) -> dict[str, str]:
    """Reports progress, and the first time it waits for ever."""
    first = context.task_broker.priority == 7
    await context.progress({"paying with": card})
    print(f"pay began {context.uuid}", flush=True)
    if first and not os.path.exists("killed"):
        open("killed", "w").close()
        await asyncio.Event().wait()
    return {"card": card, "note": note, "pid": str(os.getpid())}


def make(keys: list[str], url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(
        url=url, plugins=[EncryptionPlugin(keys, missing_key_delay=0.05), CompressionPlugin()]
    )
    application.include_router(router)
    return application


if "SITE_KEYS" in os.environ:
    app = make(os.environ["SITE_KEYS"].split(","))
