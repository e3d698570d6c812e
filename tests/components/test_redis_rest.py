"""What a whole application at rest costs the server: at most two commands a second, by the server's own count."""

from __future__ import annotations

import asyncio
import time

import pytest

from qtasks import QueueTasks
from tests.components.test_redis_commands import calls, sent
from tests.support.redis_server import RedisServer

ENOUGH = 10
"""Commands that are waited for."""


@pytest.fixture
def server():
    with RedisServer(appendonly="yes", appendfsync="no") as started:
        yield started


def from_clients(before: dict[str, int], after: dict[str, int]) -> int:
    """The scripts, and what is no part of one: `publish` is sent by scripts only, and so on."""
    return sent(before, after, "evalsha", "script|load", "ping", "subscribe", "hmget", "hscan")


@pytest.mark.thorough
async def test_an_idle_worker(server):
    """With sweeps, heartbeats and looks for work: it is waited until so many came, however long that takes."""
    app = QueueTasks("rest", server.url())
    serving = asyncio.create_task(app.serve())
    await until(server, "{rest}:wake")
    before, began = calls(server), time.monotonic()
    while from_clients(before, calls(server)) < ENOUGH:
        await asyncio.sleep(0.05)
    seconds = time.monotonic() - began
    await app.stop()
    await serving
    assert ENOUGH / seconds <= 2, f"{ENOUGH} commands in {seconds:.2f} s"


async def test_a_client_that_waits_for_a_result(server):
    """It leaves word and is told: while it waits, and when the result comes, it sends nothing."""
    url = server.url()
    client, worker = QueueTasks("rest", f"{url}?client_name=waiting"), QueueTasks("rest", url)

    @worker.task(name="work")
    async def work() -> str:
        return "done"

    async with client, worker:
        task = await client.add_task("work")
        waiting = asyncio.create_task(task.wait_result(60))
        await until(server, "{rest}:wait")
        before = sent_by(server, "waiting")
        await worker.serve(until_idle=True)
        assert (await waiting).returning == "done"
        assert sent_by(server, "waiting") == before
    if before is None:
        pytest.skip("the result came; the server does not count the commands of a connection")


def sent_by(server: RedisServer, name: str) -> int | None:
    """Commands that the connections of this name have sent, where the server counts them."""
    with server.client() as looking:
        found = [client for client in looking.client_list() if client["name"] == name]
    assert len(found) == 2, "one for commands, one to be told"
    return sum(int(client["tot-cmds"]) for client in found) if "tot-cmds" in found[0] else None


async def until(server: RedisServer, key: str) -> None:
    """Waits until somebody is registered to be told."""
    with server.client(db=1) as client:
        while not client.exists(f"qtasks:{key}"):
            await asyncio.sleep(0.01)
