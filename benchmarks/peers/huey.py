"""huey on Redis or SQLite; few threads, the scheduler of periodic tasks off, the quickest way to a result."""

from __future__ import annotations

import sys
import time
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, OPTIONS, URL, SyncPeer, main

POLL = 0.001
"""Seconds between two looks for a result on SQLite, and of its consumer for a task."""
ON_SQLITE = URL.startswith("sqlite:///")


def made() -> Huey:
    """The application. On SQLite huey leaves `synchronous` to the library by default, whose own default is FULL; with
    the option `fsync` at false it is OFF, the quickest that huey has."""
    if ON_SQLITE:
        return SqliteHuey("bench", filename=URL.removeprefix("sqlite:///"), fsync=OPTIONS.get("fsync"))
    return RedisHuey("bench", url=URL, notify_result=bool(OPTIONS.get("notify")))


huey = made()


@huey.task(name="empty")
def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


@huey.task(name="echo")
def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


TASKS: dict[str, Any] = {"empty": empty, "empty_sync": empty, "echo": echo}


class HueyPeer(SyncPeer):
    """The client. It has no call that adds many tasks at once. Functions are plain ones."""

    packages = ("huey", "redis", "hiredis")

    def add(self, task: str, *args: Any) -> str:
        return str(TASKS[task](*args).id)

    def call(self, task: str, *args: Any) -> Any:
        result = TASKS[task](*args)
        if not ON_SQLITE:
            return result.get(blocking=True, timeout=30)
        # On SQLite its own wait looks again after 50 ms at the earliest.
        while (got := result.get(preserve=True)) is None:
            time.sleep(POLL)
        return got

    def stored(self, task_id: str) -> Any:
        return huey.result(task_id, preserve=True)

    def worker(self) -> list[str]:
        threads = "1" if ON_SQLITE else "2"
        return [
            sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.peers.huey.huey", "--worker-type", "thread",
            "--workers", threads, "--no-periodic", "--quiet", "--delay", str(POLL), "--max-delay", str(POLL),
        ]  # fmt: skip


if __name__ == "__main__":
    # A task is known by the module it is declared in, and this is `__main__` here.
    from benchmarks.peers import huey as declared

    main(declared.HueyPeer)
