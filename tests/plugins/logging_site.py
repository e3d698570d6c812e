"""The application that the worker processes of the tests of the logging context run: one JSON line per event."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import structlog

from qtasks import QueueTasks, Router
from qtasks.plugins.logging_context import StructlogPlugin, TaskFilter

router = Router()
log = structlog.get_logger()


@router.task(name="job")
async def job(number: int, fatal: bool = False) -> int:
    """Writes a line through each. A fatal one waits for ever, the first time."""
    structlog.contextvars.bind_contextvars(number=number)
    log.info("job began")
    logging.getLogger("site").warning("job %d goes on", number)
    if fatal and not os.path.exists("killed"):
        open("killed", "w").close()
        await asyncio.Event().wait()
    return os.getpid()


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[StructlogPlugin()])
    application.include_router(router)
    return application


if "QTASKS_URL" in os.environ:
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(TaskFilter())
    handler.setFormatter(logging.Formatter("%(task_uuid)s %(task_name)s %(task_queue)s %(message)s"))
    logging.getLogger("site").addHandler(handler)
    app = make()
