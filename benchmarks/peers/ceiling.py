"""The ceiling: the protocol of qtasks on Redis driven by hand, without triggers, schemas and a worker's care.

It sends the same scripts the same bytes, claims the same batches, calls the same functions and stores the same
records, and does nothing else: no hooks, no models, no lease keeper, no sweep, no retries, no isolation of errors,
no time limits, no shutdown. What is left is Redis, the wire, JSON and the call of the function.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import from_json, to_json

from benchmarks.marks import tick
from benchmarks.peers.common import EMPTY, URL, Peer, main, run
from qtasks import QueueConfig
from qtasks.components.redis import records, wire
from qtasks.components.redis.link import RedisLink

APP, QUEUES, OWNER = "bench", ("default",), "c" * 16
BATCH = 100
LOOPS = 3
"""Batches under way at once, so that client and server work at the same time."""
TTL = 86_400.0


async def empty() -> int:
    """Does nothing."""
    tick()
    return EMPTY


async def echo(text: str) -> str:
    """Gives its argument back."""
    tick()
    return text


FUNCTIONS: dict[str, Callable[..., Awaitable[Any]]] = {"empty": empty, "echo": echo}


def body_of(record: bytes) -> list[Any]:
    """The JSON of an open record: of one that is due at once, has no unique key, and a digest of 16 bytes."""
    body: list[Any] = from_json(record[records._HEAD.size + records._DIGEST :])
    return body


async def settle_args(uuid: bytes, epoch: float, record: bytes) -> tuple[bytes, bytes]:
    """Runs one claimed task; gives what settles it."""
    name, _, *given = body_of(record)
    result = await FUNCTIONS[name](*(given[0] if given else ()))
    now = time.time()
    changes = {
        "status": "success", "updated_at": now, "finished_at": now, "expires_at": now + TTL, "returning": result
    }  # fmt: skip
    head = wire._SETTLE.pack(uuid, epoch, b"s", 0, now + TTL, 0, 0)
    return head + wire._SHORT.pack(len(OWNER)) + OWNER.encode(), to_json(changes)


async def drain_batch(link: RedisLink) -> int:
    """Claims a batch, runs it and settles it; gives how many it had."""
    claim = [b"%d" % BATCH, OWNER.encode(), b"600.0", b"", b"600.0"]
    _, _, (entries,), *values = await link.run("claim_start", claim, QUEUES)
    if values:
        args: list[bytes] = []
        for (uuid, _, _, _, _, epoch, *_), value in zip(
            wire.entries_of(OWNER, QUEUES[0]).iter_unpack(entries), values, strict=True
        ):
            args += await settle_args(uuid, epoch, value)
        await link.run("settle_ack", args, QUEUES)
    return len(values)


async def drain(link: RedisLink) -> None:
    """One batch after the other."""
    while True:
        if not await drain_batch(link):
            await asyncio.sleep(0.01)


async def work() -> dict[str, Any]:
    """The worker; it runs until it is killed."""
    link = RedisLink(URL)
    await link.open(link, APP, QueueConfig())
    async with asyncio.TaskGroup() as group:
        for _ in range(LOOPS):
            group.create_task(drain(link))
    return {}


def addition(task: str, args: tuple[Any, ...]) -> tuple[UUID, bytes, bytes]:
    """A new task: its uuid, and what adds it."""
    uuid, now = uuid4(), time.time()
    body = to_json([task, "default", args] if args else [task, "default"])
    return uuid, wire._ADD.pack(uuid.bytes, 0, 0), records._PART.pack(0, now, uuid.bytes) + body


class Ceiling(Peer):
    """The client."""

    packages = ("redis", "hiredis", "uvloop")
    bulk = True

    async def open(self) -> None:
        self.link = RedisLink(URL)
        await self.link.open(self, APP, QueueConfig())

    async def close(self) -> None:
        await self.link.close(self)

    async def add(self, task: str, *args: Any) -> str:
        uuid, head, part = addition(task, args)
        await self.link.run("add_plain", [b"", head, part], QUEUES)
        return str(uuid)

    async def add_many(self, task: str, args: tuple[Any, ...], count: int) -> list[str]:
        ids: list[str] = []
        for begin in range(0, count, wire.CHUNK):
            words = [b""]
            for _ in range(min(wire.CHUNK, count - begin)):
                uuid, head, part = addition(task, args)
                words += (head, part)
                ids.append(str(uuid))
            await self.link.run("add_plain", words, QUEUES)
        return ids

    async def call(self, task: str, *args: Any) -> Any:
        raise NotImplementedError

    async def stored(self, task_id: str) -> Any:
        value = await self.link.command("HGET", self.link.calls.key("res"), UUID(task_id).bytes)
        return None if value is None else from_json(value[value.rindex(b"\n") + 1 :])["returning"]

    def worker(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.peers.ceiling", "drain"]


if __name__ == "__main__":
    if sys.argv[1:] == ["drain"]:
        run(work())
    else:
        main(Ceiling)
