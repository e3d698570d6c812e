"""What `durability` promises on Redis: acknowledged is on disk, or on a replica; else it is said to be unknown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from qtasks.components.primitives import Added, SettleVerdict
from qtasks.errors import FatalError, NotStartedError, TransientError
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer, follows


@pytest.fixture
def server(program):
    with RedisServer(program, appendonly="yes", appendfsync="always") as started:
        yield started


@pytest.fixture
def replica(server) -> Iterator[RedisServer]:
    with RedisServer(server.program, replicaof=f"127.0.0.1 {server.port}") as started:
        follows(started)
        yield started


async def test_fsync_waits_for_the_disk(server):
    if server.version < (7, 2):
        with pytest.raises(FatalError, match="WAITAOF"):
            async with opened(server.url(), durability="fsync"):
                pass
        return
    async with opened(server.url(), durability="fsync") as (broker, _, _, _):
        tasks = [record() for _ in range(20)]
        added = await asyncio.gather(*(broker.add_and_push([task], None) for task in tasks))
        assert {verdict.kind for (verdict,) in added} == {Added.ADDED}
        with server.client() as client:
            calls = client.info("commandstats")["cmdstat_waitaof"]["calls"]
        assert 1 <= calls < 20, "one wait serves all that came together"


async def test_fsync_needs_a_file_to_sync(program):
    with RedisServer(program, appendonly="no") as server, pytest.raises(FatalError, match="appendonly"):
        async with opened(server.url(), durability="fsync"):
            pass


async def test_replica_says_when_there_is_none(server, caplog):
    url = server.url(query="?socket_timeout=0.5")
    with pytest.raises(FatalError, match="no replica"):
        async with opened(url, durability="replica", strict=True):
            pass
    async with opened(url, durability="replica") as (broker, _, _, _):
        assert "no replica" in caplog.text
        with pytest.raises(TransientError, match="replica"):
            await broker.add_and_push([record()], None)


@contextlib.contextmanager
def stalled(replica: RedisServer) -> Iterator[None]:
    replica.pause()
    try:
        yield
    finally:
        replica.resume()


async def test_what_was_there_already_is_acknowledged_on_a_replica_only(server, replica):
    """Also over a connection that has written nothing itself: another process asks again, say."""
    url = server.url(query="?socket_timeout=0.5")
    task = record()
    async with opened(url, durability="replica") as (broker, storage, _, _):
        await broker.add_and_push([record()], None)
        with stalled(replica):
            with pytest.raises(TransientError, match="replica"):
                await broker.add_and_push([task], None)
            async with opened(url, durability="replica") as (other, records, _, _):
                with pytest.raises(TransientError, match="replica"):
                    await other.add_and_push([task], None)
                with pytest.raises(TransientError, match="replica"):
                    await records.add_many([task])
        async with opened(url, durability="replica") as (other, _, _, _):
            assert [verdict.kind for verdict in await other.add_and_push([task], None)] == [Added.SAME]
        assert (await storage.counts())["new"] == 2


async def test_a_result_is_accepted_when_a_replica_has_it(server, replica):
    """Otherwise a failover could forget a result that was announced, and a second one would take its place (I2)."""
    url = server.url(query="?socket_timeout=0.5")
    async with opened(url, durability="replica") as (broker, _, _, _):
        await broker.add_and_push([record()], None)
        ((handle, _),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
        settle = success(handle, 1)
        with stalled(replica):
            for _ in range(2):
                with pytest.raises(TransientError, match="replica"):
                    await broker.settle_and_ack([settle])
        assert await broker.settle_and_ack([settle]) == [SettleVerdict.ALREADY_MINE]


async def test_what_waits_behind_a_commit_fails_when_the_app_is_closed(server, replica):
    """It was never sent. Nobody would tell its caller otherwise."""
    with stalled(replica):
        async with opened(server.url(), durability="replica") as (_, storage, _, _):
            sent = asyncio.create_task(storage.add_many([record()]))
            while not (await storage.counts())["new"]:
                await asyncio.sleep(0.005)
            behind = asyncio.create_task(storage.add_many([record()]))
            await asyncio.sleep(0)  # it stands in line
    outcomes = await asyncio.wait_for(asyncio.gather(sent, behind, return_exceptions=True), 10)
    assert list(map(type, outcomes)) == [TransientError, NotStartedError]


async def test_a_full_server_confirms_what_it_has(server, replica):
    async with opened(server.url(), durability="replica", strict=True) as (broker, _, _, _):
        task = record()
        await broker.add_and_push([task], None)
        with server.client() as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(TransientError, match=r"OOM|maxmemory"):
            await broker.add_and_push([record()], None)
        assert [verdict.kind for verdict in await broker.add_and_push([task], None)] == [Added.SAME]
