"""The application that the worker processes of the tests of `prometheus` run."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from prometheus_client import CollectorRegistry

from qtasks import QueueTasks, Router
from qtasks.plugins.prometheus import PrometheusPlugin

router = Router()


@router.task(name="work")
async def work(fatal: bool = False) -> int:
    """Gives its process. A fatal one waits for ever, the first time."""
    print("work began", flush=True)
    if fatal and not os.path.exists("killed"):
        open("killed", "w").close()
        await asyncio.Event().wait()
    return os.getpid()


@router.task(name="wait")
async def wait() -> None:
    """Runs until the file `go-on` is there."""
    print("wait began", flush=True)
    while not os.path.exists("go-on"):
        await asyncio.sleep(0.01)


def make(url: str | None = None, ports: tuple[int, ...] = ()) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    plugin = PrometheusPlugin(registry=CollectorRegistry(), ports=ports)
    application = QueueTasks(url=url, plugins=[plugin])
    application.include_router(router)
    return application


if "QTASKS_URL" in os.environ:
    logger = logging.getLogger("qtasks.plugins")  # where it says which port it took
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stdout))
    app = make(ports=(0,))
