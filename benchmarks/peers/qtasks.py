"""qtasks itself, as a user runs it: `qtasks -A module:app run`, all settings at their defaults."""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, OPTIONS, URL, Peer, main
from qtasks import QueueConfig, QueueTasks, TaskRequest, hookimpl

QUEUE: str = OPTIONS.get("queue", "default")
app = QueueTasks("bench", URL, config=QueueConfig(**OPTIONS.get("config", {})))


@app.task(name="empty")
async def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


@app.task(name="echo")
async def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


@app.task(name="empty_sync")
def empty_sync() -> int:
    """A plain function, which runs in a thread."""
    tick()
    return EMPTY


class Reads:
    """Looks at the arguments of each task and leaves them."""

    @hookimpl
    async def task_executor_args_replace(self, args: Any, kw: Any) -> None:
        """A chain of every task."""


class Replaces:
    """Replaces the arguments of each task (by equal ones)."""

    @hookimpl
    async def task_executor_args_replace(self, args: Any, kw: Any) -> Any:
        """A chain of every task."""
        return args, kw


for number in range(OPTIONS.get("plugins", 0)):
    plugin = Replaces() if OPTIONS.get("replace") else Reads()
    app.add_plugin(plugin, name=f"plugin{number}")


class QTasks(Peer):
    """The client."""

    packages = ("qtasks", "redis", "hiredis", "pluggy", "pydantic", "uvloop", "aiosqlite")
    bulk = True

    async def open(self) -> None:
        await app.open()

    async def close(self) -> None:
        await app.close()

    async def add(self, task: str, *args: Any) -> str:
        return str((await app.add_task(task, args=args, queue=QUEUE)).uuid)

    async def add_many(self, task: str, args: tuple[Any, ...], count: int) -> list[str]:
        ids: list[str] = []
        for begin in range(0, count, 1000):
            requests = [
                TaskRequest(task_name=task, args=args, queue=QUEUE) for _ in range(min(1000, count - begin))
            ]
            ids += [str(each.uuid) for each in await app.add_tasks(requests)]
        return ids

    async def call(self, task: str, *args: Any) -> Any:
        return (await (await app.add_task(task, args=args, queue=QUEUE)).wait_result(30)).returning

    async def stored(self, task_id: str) -> Any:
        task = await app.get(UUID(task_id))
        return None if task is None else task.returning

    def worker(self) -> list[str]:
        command = [sys.executable, "-m", "qtasks", "-A", "benchmarks.peers.qtasks:app", "run"]
        return [*command, "--queues", QUEUE, "--log-level", OPTIONS.get("log", "warning")]


if __name__ == "__main__":
    main(QTasks)
