"""The Redis backend on a unix socket, on a cluster of three nodes, and behind a Sentinel that fails over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from qtasks.components.primitives import Added, HoldVerdict, SettleVerdict
from qtasks.errors import TransientError
from tests.support.redis_pair import QUEUE, Trio, opened, record, success
from tests.support.redis_server import PASSWORD, USER, RedisServer, follows, free_port
from tests.support.tcp_proxy import TcpProxy

SETTLING = 60.0


async def smoke(trio: Trio) -> None:
    """A task from its enqueue to its result, told to a waiting client, its lease extended on the way."""
    broker, storage, config, _ = trio
    task = record(args=(1,))
    assert [v.kind for v in await broker.add_and_push([task], None)] == [Added.ADDED]
    waiting = asyncio.create_task(storage.wait_settled(task.uuid, 30.0))
    ((handle, got),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
    assert (got.uuid, got.args) == (task.uuid, (1,))
    keeper = broker.lease_keeper()
    assert await asyncio.to_thread(keeper.extend, [handle], 30.0) == [HoldVerdict.HELD]
    await asyncio.to_thread(keeper.close)
    assert await broker.settle_and_ack([success(handle, "done")]) == [SettleVerdict.ACCEPTED]
    finished = await waiting
    assert finished is not None
    assert finished.returning == "done"
    assert await config.put("n", "k", 1) is not None


LOGIN = f"{USER}:{PASSWORD.replace(' ', '%20')}@"
"""Of the user with the minimum of rights."""


async def test_unix_socket():
    with RedisServer() as server:
        server.restrict()
        async with opened(f"redis+unix://{LOGIN}{server.unix_path}?db=3") as trio:
            await smoke(trio)
            assert trio.link.target.db == 3


def eventually(look, told: str) -> None:
    deadline = time.monotonic() + SETTLING
    while True:
        with contextlib.suppress(redis.RedisError):
            if look():
                return
        assert time.monotonic() < deadline, f"it did not come about that {told}"
        time.sleep(0.05)


def whole(client: redis.Redis) -> bool:
    """Whether this node sees all three and every slot is served."""
    info = bytes(client.execute_command("CLUSTER", "INFO"))
    return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info


CLUSTERED = {
    "cluster_enabled": "yes",
    "databases": "1",
    "cluster_node_timeout": "2000",
    "appendonly": "no",
}


def form_cluster(nodes: Sequence[RedisServer], meet: tuple[int, ...] = ()) -> None:
    """Makes a cluster of three nodes; `meet`: the ports of the first as they are announced, with that of the bus."""
    bounds = [0, 5461, 10923, 16384]
    for n, node in enumerate(nodes):
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[n], bounds[n + 1]))
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", *(meet or (nodes[0].port,)))
    for node in nodes:
        with node.client() as client:
            eventually(lambda client=client: whole(client), "the cluster is whole")
        node.restrict()


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(**CLUSTERED)) for _ in range(3)]
        form_cluster(nodes)
        yield nodes


async def test_cluster(cluster):
    """Every app lies on one node, and apps on different ones."""
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    places = set()
    for app in ("app", "app-1", "b", "c", "d", "e"):
        async with opened(f"redis+cluster://{LOGIN}{hosts}", app=app) as trio:
            await smoke(trio)
            places.add(trio.link.address)
    assert len(places) > 1


async def test_cluster_with_one_seed_gone(cluster):
    async with opened(f"redis+cluster://{LOGIN}127.0.0.1:1,127.0.0.1:{cluster[1].port}") as trio:
        await smoke(trio)


class Sentinel(RedisServer):
    """A sentinel that watches one master and needs nobody's agreement; `host` is the name that it tells clients."""

    def __init__(self, master: RedisServer | TcpProxy, host: str = "127.0.0.1") -> None:
        super().__init__()
        self._master, self._host = master, host

    def start(self) -> None:
        import subprocess

        settings = Path(self.dir) / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.dir}\nlogfile log\n"
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n"
            f"sentinel monitor main {self._host} {self._master.port} 1\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
        )
        words = [self.program, str(settings), "--sentinel"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.await_answer()


async def test_sentinel_fails_over():
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(RedisServer())
        replica = stack.enter_context(RedisServer(replicaof=f"127.0.0.1 {master.port}"))
        follows(replica)
        for server in (master, replica):  # rights are not replicated
            server.restrict()
        sentinel = stack.enter_context(Sentinel(master))
        with sentinel.client() as client:
            eventually(
                lambda: len(client.execute_command("SENTINEL", "REPLICAS", "main")) == 1,
                "the sentinel knows both",
            )
        url = (
            f"redis+sentinel://{LOGIN}127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main?socket_timeout=2"
        )
        async with opened(url, durability="replica") as trio:
            await smoke(trio)
            assert trio.link.address == ("127.0.0.1", master.port)
            kept = record()
            await trio.broker.add_and_push([kept], None)
        async with opened(url) as trio:
            master.kill()
            deadline = time.monotonic() + SETTLING
            while True:
                try:
                    assert await trio.broker.contains_many([kept.uuid]) == [True]
                    await smoke_after(trio, kept)
                    break
                except TransientError:
                    assert time.monotonic() < deadline, "the replica was not promoted"
                    await asyncio.sleep(0.1)
            assert trio.link.address == ("127.0.0.1", replica.port)


async def smoke_after(trio: Trio, kept) -> None:
    """What was acknowledged before the failover is run after it."""
    ((handle, _),) = await trio.broker.claim_and_start(1, QUEUE, "me", 30.0)
    assert handle.uuid == kept.uuid
    assert await trio.broker.settle_and_ack([success(handle)]) == [SettleVerdict.ACCEPTED]
