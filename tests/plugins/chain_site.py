"""The application that the worker processes of the tests of `chain` run: what is stored is encrypted."""

from __future__ import annotations

import base64

from redis.asyncio import Redis

from qtasks import QueueTasks, Router, current_task
from qtasks.plugins.chain import ChainPlugin
from qtasks.plugins.encryption import EncryptionPlugin

router = Router()
LOG = "test:log"
KEY = base64.b64encode(bytes(range(32))).decode()


async def tell(what: str) -> None:
    """Writes a line into a log that all processes share."""
    redis = Redis.from_url(current_task().app.url)
    async with redis:
        await redis.rpush(LOG, what)


@router.task(name="append")
async def append(text: str, letter: str = "") -> str:
    await tell(letter)
    return text + letter


@router.task(name="joined")
async def joined(texts: list[str], name: str) -> str:
    await tell(name)
    return name + "".join(texts)


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[EncryptionPlugin([KEY]), ChainPlugin()])
    application.include_router(router)
    return application


app = make()
