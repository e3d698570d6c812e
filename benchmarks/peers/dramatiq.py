"""Dramatiq on Redis with stored results; hiredis, many threads."""

from __future__ import annotations

import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import RedisBackend

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, URL, SyncPeer, main

broker = RedisBroker(url=URL)
backend = RedisBackend(url=URL)
broker.add_middleware(Results(backend=backend, store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="empty")
def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


@dramatiq.actor(actor_name="echo")
def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


ACTORS: dict[str, Any] = {"empty": empty, "empty_sync": empty, "echo": echo}


class Dramatiq(SyncPeer):
    """The client. It has no call that adds many messages at once. Functions are plain ones."""

    packages = ("dramatiq", "redis", "hiredis")

    def add(self, task: str, *args: Any) -> str:
        return ACTORS[task].send(*args).encode().decode()

    def call(self, task: str, *args: Any) -> Any:
        return ACTORS[task].send(*args).get_result(block=True, timeout=30_000)

    def stored(self, task_id: str) -> Any:
        try:
            return dramatiq.Message.decode(task_id.encode()).get_result()
        except ResultMissing:
            return None

    def worker(self) -> list[str]:
        return [
            sys.executable, "-m", "dramatiq", "benchmarks.peers.dramatiq", "--processes", "1", "--threads", "64"
        ]  # fmt: skip


if __name__ == "__main__":
    main(Dramatiq)
