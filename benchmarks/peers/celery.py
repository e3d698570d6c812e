"""Celery with the prefork pool, on Redis; large prefetch, as its guide on optimizing advises for short tasks."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, group

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, URL, SyncPeer, main

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(worker_prefetch_multiplier=128, broker_connection_retry_on_startup=True)


@app.task(name="empty")
def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


@app.task(name="echo")
def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


TASKS: dict[str, Any] = {"empty": empty, "empty_sync": empty, "echo": echo}


class CeleryPeer(SyncPeer):
    """The client. Functions are plain ones."""

    packages = ("celery", "kombu", "redis", "hiredis")
    bulk = True

    def add(self, task: str, *args: Any) -> str:
        return str(TASKS[task].apply_async(args).id)

    def add_many(self, task: str, args: tuple[Any, ...], count: int) -> list[str]:
        ids: list[str] = []
        for begin in range(0, count, 1000):
            many = group(TASKS[task].s(*args) for _ in range(min(1000, count - begin)))
            ids += [each.id for each in many.apply_async().results]
        return ids

    def call(self, task: str, *args: Any) -> Any:
        return TASKS[task].apply_async(args).get(timeout=30)

    def stored(self, task_id: str) -> Any:
        return app.AsyncResult(task_id).result

    def worker(self) -> list[str]:
        return [
            sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery", "worker", "--pool", "prefork",
            "--concurrency", "2", "--loglevel", "WARNING", "--without-gossip", "--without-mingle",
            "--without-heartbeat",
        ]  # fmt: skip


if __name__ == "__main__":
    main(CeleryPeer)
