"""The Redis backend while the server is killed, stalled, cut off, emptied of scripts, or full."""

from __future__ import annotations

import asyncio
import struct
import time
from uuid import uuid4

import pytest

from qtasks import QueueTasks, hookimpl
from qtasks.components.primitives import (
    Added,
    Buried,
    CancelVerdict,
    DropVerdict,
    HoldVerdict,
    Nack,
    Outcome,
    Settle,
    SettleVerdict,
    Start,
    Update,
)
from qtasks.errors import FatalError, InvalidNameError, TransientError
from qtasks.schemas import TaskStatusEnum
from tests.support.redis_pair import QUEUE, key, opened, record, success
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

ACCEPTED, MINE, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.ALREADY_MINE, SettleVerdict.REJECTED


@pytest.fixture(scope="module")
def server(program):
    with RedisServer(program, appendonly="yes", appendfsync="no") as started:
        yield started


@pytest.fixture
def own_server(program):
    with RedisServer(program, appendonly="yes", appendfsync="always") as started:
        yield started


# --- The connection -------------------------------------------------------------------------------


async def test_scripts_are_loaded_again_after_script_flush(server):
    async with opened(server.url()) as (broker, storage, config, _):
        keeper = broker.lease_keeper()
        tasks = [record(), record()]
        with server.client() as client:
            client.script_flush()
            assert [v.kind for v in await broker.add_and_push(tasks, None)] == [Added.ADDED] * 2
            client.script_flush()
            ((handle, _), _) = await broker.claim_and_start(2, QUEUE, "me", 30.0)
            client.script_flush()
            assert await asyncio.to_thread(keeper.extend, [handle], 60.0) == [HoldVerdict.HELD]
            client.script_flush()
            assert await broker.settle_and_ack([success(handle, 1)]) == [ACCEPTED]
            client.script_flush()
            assert (await storage.get_many([handle.uuid]))[0].returning == 1
            assert await config.put("name", "key", 1) == 1
        await asyncio.to_thread(keeper.close)


async def test_a_cancelled_caller_does_not_shift_the_replies(server):
    async with opened(server.url()) as (broker, storage, _, _):
        tasks = [record(args=(n,)) for n in range(50)]
        await broker.add_and_push(tasks, None)
        reads = [asyncio.create_task(storage.get_many([task.uuid])) for task in tasks]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for read in reads[::3]:
            read.cancel()
        found = await asyncio.gather(*reads, return_exceptions=True)
        for n, reply in enumerate(found):
            if n % 3 == 0:
                assert isinstance(reply, asyncio.CancelledError)
            else:
                assert reply[0].args == (n,)


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(own_server):
    server = own_server
    async with opened(server.url()) as (broker, storage, _, _):
        acknowledged = [record() for _ in range(20)]
        await broker.add_and_push(acknowledged, None)
        claimed = await broker.claim_and_start(5, QUEUE, "me", 60.0)
        keeper = broker.lease_keeper()
        handles = [handle for handle, _ in claimed]
        assert await asyncio.to_thread(keeper.extend, handles, 60.0) == [HoldVerdict.HELD] * 5
        waiting = asyncio.create_task(storage.wait_settled(handles[0].uuid, 30.0))
        with server.client(db=1) as client:
            while not client.hexists(key("wait"), handles[0].uuid.bytes):
                await asyncio.sleep(0.005)
        server.kill()
        with pytest.raises(TransientError):
            await broker.add_and_push([record()], None)
        with pytest.raises(TransientError):
            await asyncio.to_thread(keeper.extend, handles, 60.0)
        server.start()
        assert await broker.contains_many([task.uuid for task in acknowledged]) == [True] * 20
        assert await asyncio.to_thread(keeper.extend, handles, 60.0) == [HoldVerdict.HELD] * 5
        assert await broker.settle_and_ack([success(handle) for handle in handles]) == [ACCEPTED] * 5
        assert (await waiting).status is TaskStatusEnum.SUCCESS
        assert len(await broker.claim_and_start(100, QUEUE, "me", 60.0)) == 15
        await asyncio.to_thread(keeper.close)


async def test_a_reply_that_is_lost_is_asked_for_again(server):
    url = server.url()
    async with (
        TcpProxy(server.port) as proxy,
        opened(url.replace(str(server.port), str(proxy.port))) as (broker, storage, _, _),
    ):
        task, follower = record(), record()
        await broker.add_and_push([record(queue="other")], None)  # the script is loaded

        async def lose(call):
            proxy.swallowing = True
            under_way = asyncio.create_task(call)
            await proxy.swallowed.wait()
            proxy.swallowing = False
            proxy.cut()
            with pytest.raises(TransientError):
                await under_way

        await lose(broker.add_and_push([task], None))
        assert [v.kind for v in await broker.add_and_push([task], None)] == [Added.SAME]
        assert (await broker.size())["default"].ready == 1
        ((handle, _),) = await broker.claim_and_start(5, QUEUE, "me", 30.0)
        settle = success(handle, "once")
        settle.then = (follower,)
        never = handle._replace(uuid=uuid4())
        assert await broker.settle_and_ack([success(never)]) == [REJECTED]  # the script is loaded
        await lose(broker.settle_and_ack([settle]))
        assert await broker.settle_and_ack([settle]) == [MINE]
        assert (await storage.counts())["success"] == 1
        assert (await broker.size())["default"].ready == 1
        ((again, _),) = await broker.claim_and_start(5, QUEUE, "me", 30.0)
        assert again.uuid == follower.uuid


async def test_a_claim_whose_reply_is_lost_is_left_to_its_lease(server):
    url = server.url()
    async with TcpProxy(server.port) as proxy, opened(url) as (direct, _, _, _):
        async with opened(url.replace(str(server.port), str(proxy.port))) as (broker, _, _, _):
            assert await broker.claim_and_start(1, QUEUE, "me", 0.05) == []  # the script is loaded
            await broker.add_and_push([record()], None)
            proxy.swallowing = True
            claim = asyncio.create_task(broker.claim_and_start(1, QUEUE, "me", 0.05))
            # What is withheld first may be another reply: only the server tells that the claim was done.
            while not (await direct.size())["default"].leased:
                await asyncio.sleep(0.01)
            proxy.swallowing = False
            proxy.cut()
            with pytest.raises(TransientError):
                await claim
        while not (report := await direct.sweep(10, 5)).restored:
            await asyncio.sleep(0.01)
        ((handle, _),) = await direct.claim_and_start(1, QUEUE, "other", 30.0)
        assert handle.restored
        assert [handle.uuid] == report.restored


async def test_a_stalled_server_gets_every_command_once(own_server):
    server = own_server
    async with opened(server.url(query="?socket_timeout=0.2")) as (broker, _, _, _):
        task = record()
        await broker.add_and_push([record()], None)
        server.pause()
        try:
            with pytest.raises(TransientError, match="no reply"):
                await broker.add_and_push([task], None)
        finally:
            server.resume()
        with server.client() as client:
            while not client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) >= 2:
                await asyncio.sleep(0.01)
        assert [v.kind for v in await broker.add_and_push([task], None)] == [Added.SAME]
        assert (await broker.size())["default"].ready == 2


# --- What the server answers -----------------------------------------------------------------------


async def test_wrong_credentials_are_fatal_and_not_shown(server):
    server.restrict()
    url = server.url().replace("redis://", "redis://qtasks:wr0ng@")
    with pytest.raises(FatalError) as caught:
        async with opened(url):
            pass
    assert "wr0ng" not in str(caught.value)


async def test_missing_rights_are_fatal(server):
    server.restrict()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "-@all", "+select")
    with pytest.raises(FatalError, match=r"docs/redis\.md"):
        async with opened(server.url().replace("redis://", "redis://poor:pw@")):
            pass


@pytest.mark.parametrize("name", ["rec", "res", "ent", "seq", "queues", "ord", "wake", "ready:default"])
async def test_a_key_of_another_type_is_fatal(server, name):
    url = server.url()
    async with opened(url) as (broker, _, _, link):
        with server.client(db=link.target.db) as client:
            client.xadd(key(name), {"something": "else"}) if name != "ord" else client.set(key(name), "else")
        with pytest.raises(FatalError, match="namespace"):
            await broker.add_and_push([record()], None)


async def test_nobody_there_is_transient():
    with pytest.raises(TransientError):
        async with opened("redis://127.0.0.1:1"):
            pass


async def test_a_full_server_still_gives_and_takes_what_it_has(own_server):
    server = own_server
    async with opened(server.url()) as (broker, storage, _, _):
        tasks = [record(args=("x" * 1000,)) for _ in range(100)]
        await broker.add_and_push(tasks, None)
        with server.client() as client:
            client.config_set("maxmemory", 1)
        refused = record()
        with pytest.raises(TransientError, match=r"OOM|maxmemory"):
            await broker.add_and_push([refused], None)
        claimed = await broker.claim_and_start(100, QUEUE, "me", 30.0)
        assert len(claimed) == 100
        assert await broker.settle_and_ack([success(handle) for handle, _ in claimed]) == [ACCEPTED] * 100
        assert await broker.claim_and_start(1, QUEUE, "me", 30.0) == []
        assert await storage.get_many([refused.uuid]) == [None]
        with server.client() as client:
            client.config_set("maxmemory", 0)


async def test_on_a_full_server_all_goes_on_but_what_adds_to_it(own_server):
    """Leases are renewed above all: a task whose lease ends would run again, time after time."""
    server = own_server
    async with opened(server.url()) as (broker, storage, _, link):
        tasks = [record(args=("x" * 1000,)) for _ in range(10)]
        await broker.add_and_push(tasks, None)
        await storage.add_many([elsewhere := record()])
        claimed = await broker.claim_and_start(8, QUEUE, "me", 30.0)
        handles = [handle for handle, _ in claimed]
        keeper = broker.lease_keeper()
        await link.notifier.ensure(10.0)
        with server.client() as client:
            client.config_set("maxmemory", 1)
        assert await broker.extend_many(handles, 60.0) == [HoldVerdict.HELD] * 8
        assert await asyncio.to_thread(keeper.extend, handles, 60.0) == [HoldVerdict.HELD] * 8
        assert await storage.update_many([Update(handles[0].uuid, {"progress": 1})]) == [True]
        assert await storage.wait_settled(handles[0].uuid, 0.01) is None
        asked = await storage.cancel_many([handles[0].uuid, tasks[9].uuid], "no", expires_at=time.time() + 60)
        assert asked == [CancelVerdict.REQUESTED, CancelVerdict.CANCELLED]
        dead, follows = success(handles[0]), success(handles[1])
        dead.changes["dead"], follows.then = True, (record(),)
        assert await broker.settle_and_ack([dead]) == [ACCEPTED]
        assert await broker.settle_and_ack([follows]) == [ACCEPTED]
        released = {"status": TaskStatusEnum.NEW, "updated_at": time.time()}
        settle = Settle(handles[2], Outcome.RELEASE, released, nack=Nack(handles[2], 60.0, 0, 0))
        assert await storage.settle_many([settle]) == [ACCEPTED]
        assert await broker.bury_many([handles[3]], "why") == [DropVerdict.DONE]
        buried = Buried(handles[3].uuid, handles[3].epoch, "why")
        assert await storage.bury_many([buried], expires_at=time.time() + 60) == [True]
        (started,) = await storage.start_many([handles[0]._replace(uuid=elsewhere.uuid)])
        assert started.kind is Start.STARTED
        await asyncio.to_thread(keeper.close)


async def test_a_replica_is_refused(server, own_server):
    with own_server.client() as client:
        client.replicaof("127.0.0.1", str(server.port))
    with pytest.raises(FatalError, match="replica"):
        async with opened(own_server.url()):
            pass


async def test_a_demoted_master_is_transient(server, own_server):
    async with opened(own_server.url()) as (broker, _, _, _):
        with own_server.client() as client:
            client.replicaof("127.0.0.1", str(server.port))
        with pytest.raises(TransientError):
            await broker.add_and_push([record()], None)
        with own_server.client() as client:
            client.replicaof("NO", "ONE")
        assert [v.kind for v in await broker.add_and_push([record()], None)] == [Added.ADDED]


# --- What it says about itself ---------------------------------------------------------------------


async def test_what_could_lose_tasks_is_said(caplog):
    with RedisServer(appendonly="no", maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        async with opened(server.url()):
            pass
        said = " ".join(message for _, _, message in caplog.record_tuples)
        assert "allkeys-lru" in said
        assert "append-only" in said
        with pytest.raises(FatalError, match="allkeys-lru"):
            async with opened(server.url(), strict=True):
                pass


async def test_a_good_server_is_strict_enough(server, caplog):
    async with opened(server.url(), strict=True):
        assert not caplog.records


async def test_data_of_another_layout_is_refused(server):
    url = server.url()
    async with opened(url) as (_, _, _, link):
        with server.client(db=link.target.db) as client:
            client.hset(key("meta"), "schema", "99")
    with pytest.raises(FatalError, match="layout 99"):
        async with opened(url):
            pass


async def test_a_server_that_is_emptied_while_it_is_opened(server, monkeypatch):
    """FLUSHALL between the two looks at the layout."""
    url = server.url()
    async with opened(url) as (_, _, _, link):
        command = link.command

        async def emptied(*args):
            reply = await command(*args)
            if args[0] == "HSETNX" and not reply:
                await command("DEL", args[1])
            return reply

        monkeypatch.setattr(link, "command", emptied)
        await link._check_schema()
        assert await command("HGET", key("meta"), "schema") == b"1"


async def test_hostile_app_names_are_refused(server):
    for name in ("", "a:b", "a}b", "{a}", "*", "a\n", "x" * 49):
        with pytest.raises(InvalidNameError):
            async with opened(server.url(), app=name):
                pass


def test_scores_are_exact():
    score = (255 * 2**45) + 2**45 - 1
    assert struct.unpack(">d", struct.pack(">d", score))[0] == score


# --- A worker that is there before its server -------------------------------------------------------


async def test_a_worker_waits_for_a_server_that_is_not_there_yet(caplog):
    """Each start trigger fires once all the same; a client is told at once."""
    late = RedisServer(appendonly="yes")
    url = f"redis://127.0.0.1:{late.port}/0"
    app, client = QueueTasks("late", url), QueueTasks("late", url)
    started = []

    class Watch:
        @hookimpl
        def starter_start(self):
            started.append("starter")

        @hookimpl
        def global_config_start(self):
            started.append("config")

        @hookimpl
        def storage_start(self):
            started.append("storage")

        @hookimpl
        def broker_start(self):
            started.append("broker")

    app.add_plugin(Watch())

    @app.task(name="work")
    async def work() -> str:
        return "done"

    serving = asyncio.create_task(app.serve())
    while "trying again" not in caplog.text:
        await asyncio.sleep(0.01)
    with pytest.raises(TransientError):
        async with client:
            pass
    try:
        late.start()
        async with asyncio.timeout(60):
            while "broker" not in started:
                await asyncio.sleep(0.01)
        async with client:
            task = await client.add_task("work", timeout=30)
        await app.stop()
        await serving
    finally:
        late.__exit__()
    assert task.returning == "done"
    assert started == ["starter", "config", "storage", "broker"]


async def test_a_worker_that_waits_for_its_server_can_be_stopped(caplog):
    app = QueueTasks("late", "redis://127.0.0.1:1/0")
    serving = asyncio.create_task(app.serve())
    while "trying again" not in caplog.text:
        await asyncio.sleep(0.01)
    await app.stop()
    await asyncio.wait_for(serving, 30)
