"""The application of the demo: its tasks, over a queue in the file `qtasks-demo.db` of the current folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

from qtasks.app import QueueTasks
from qtasks.config import QueueConfig
from qtasks.context import TaskContext
from qtasks.demo.plugins import MEASURE, DigestPlugin, PathsPlugin, WatchPlugin
from qtasks.schemas import TaskStatusEnum

STATE_FILE = "qtasks-demo.db"
SUMMARISE = "summarise"
BLOCK = 1024 * 1024
LEASE = 2.0
"""Seconds; short, so that what a killed run was doing is taken up at once."""

watch = WatchPlugin()
app = QueueTasks(
    "demo",
    f"sqlite:///{STATE_FILE}",
    config=QueueConfig(lease=LEASE, concurrency=8, shutdown_timeout=10.0),
    plugins=[PathsPlugin(), DigestPlugin(), watch],
)


class DemoFailure(Exception):
    """The failure that the demo makes on purpose, to show a retry."""


@app.task(name=MEASURE, echo=True, retry=2, retry_delay=0.2, retry_on_exc=(DemoFailure,))
def measure(context: TaskContext, path: str, fails_at_first: bool = False) -> dict[str, Any]:
    """Size, number of lines and SHA-256 of a file. A plain function: it runs in a thread."""
    if fails_at_first and context.attempt == 0:
        raise DemoFailure("this task fails at first, so that you can see a retry")
    digest = hashlib.sha256()
    size = lines = 0
    last = b"\n"
    # A name may turn into a pipe between enqueue and run; without O_NONBLOCK, opening it would hang.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
            lines += block.count(b"\n")
            last = block[-1:]
    return {"size": size, "lines": lines + (last != b"\n"), "sha256": digest.hexdigest()}


@app.task(name=SUMMARISE, echo=True)
async def summarise(context: TaskContext) -> AsyncIterator[dict[str, Any]]:
    """One line per kind of file, the largest first. An async generator: its yields are the result."""
    kinds: dict[str, dict[str, Any]] = {}
    cursor: str | None = None
    while True:
        tasks, cursor = await context.app.get_all(cursor, 500)
        for task in tasks:
            if (task.task_name, task.queue) != (MEASURE, context.task_broker.queue):
                continue
            if task.status is not TaskStatusEnum.SUCCESS:
                continue
            kind = task.returning["kind"]
            total = kinds.setdefault(kind, {"kind": kind, "files": 0, "lines": 0, "size": 0})
            total["files"] += 1
            total["lines"] += task.returning["lines"]
            total["size"] += task.returning["size"]
        if cursor is None:
            break
    for total in sorted(kinds.values(), key=lambda total: -total["size"]):
        yield total
