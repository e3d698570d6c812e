"""What the Redis backend does about records, entries and indexes that are damaged, lost, or do not fit together."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from qtasks import QueueTasks
from qtasks.components.primitives import (
    Added,
    Buried,
    CancelVerdict,
    DropVerdict,
    Nack,
    Outcome,
    PushItem,
    Settle,
    SettleVerdict,
    Start,
)
from qtasks.errors import QTasksError
from qtasks.schemas import TaskStatusEnum
from tests.support.redis_pair import QUEUE, key, opened, record, success
from tests.support.redis_server import RedisServer

ACCEPTED, MINE, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.ALREADY_MINE, SettleVerdict.REJECTED


@pytest.fixture(scope="module")
def server(program):
    with RedisServer(program, appendonly="yes", appendfsync="no") as started:
        yield started


@pytest.mark.parametrize("damage", [b"", b"junk", b"R", b"R" + b"\xff" * 40])
async def test_a_damaged_record_does_not_break_its_batch(server, damage):
    async with opened(server.url()) as (broker, storage, _, link):
        tasks = [record(), record(), record()]
        await broker.add_and_push(tasks, None)
        broken = tasks[1].uuid
        with server.client(db=link.target.db) as client:
            client.hset(key("rec"), broken.bytes, damage)
        claimed = await broker.claim_and_start(10, QUEUE, "me", 30.0)
        assert {handle.uuid for handle, _ in claimed} == {tasks[0].uuid, tasks[2].uuid}
        (buried,) = await broker.buried(10)
        assert buried.uuid == broken
        assert "read" in buried.reason
        assert len(await storage.get_many([task.uuid for task in tasks])) == 3
        await storage.scan(None, 10)
        await storage.scan_open(None, 10, time.time() + 1)
        assert await storage.bury_many([buried], expires_at=time.time() + 60) == [True]
        await broker.discard_many([broken])
        (dead,) = (await storage.scan_dead(None, 10)).records
        assert (dead.uuid, dead.status) == (broken, TaskStatusEnum.ERROR)
        assert dead.traceback == buried.reason
        assert await broker.settle_and_ack([success(handle) for handle, _ in claimed]) == [ACCEPTED] * 2


async def test_a_record_whose_json_is_damaged_is_buried(server):
    async with opened(server.url()) as (broker, storage, _, link):
        tasks = [record(), record(args=("hello",))]
        await broker.add_and_push(tasks, None)
        with server.client(db=link.target.db) as client:
            value = client.hget(key("rec"), tasks[1].uuid.bytes)
            client.hset(key("rec"), tasks[1].uuid.bytes, value.replace(b'"hello"', b'"hel'))
        claimed = await broker.claim_and_start(10, QUEUE, "me", 30.0)
        assert [handle.uuid for handle, _ in claimed] == [tasks[0].uuid]
        (buried,) = await broker.buried(10)
        assert await storage.bury_many([buried], expires_at=time.time() + 60) == [True]
        assert (await storage.get_many([buried.uuid]))[0].traceback == buried.reason


async def test_a_damaged_entry_does_not_break_its_batch(server):
    async with opened(server.url()) as (broker, _, _, link):
        items = [PushItem(uuid4()) for _ in range(3)]
        await broker.push_many(items)
        with server.client(db=link.target.db) as client:
            client.hset(key("ent"), items[0].uuid.bytes, b"junk")
        handles = await broker.claim(10, QUEUE, "me", 30.0)
        assert len(handles) == 3
        with server.client(db=link.target.db) as client:
            client.hset(key("ent"), items[1].uuid.bytes, b"junk")
        assert sorted(verdict.value for verdict in await broker.ack_many(handles)) == ["done", "done", "lost"]
        await broker.audit(100)
        await broker.sweep(100, 5)


async def test_an_entry_in_no_index_is_found(server):
    async with opened(server.url()) as (broker, _, _, link):
        item = PushItem(uuid4())
        await broker.push_many([item])
        with server.client(db=link.target.db) as client:
            client.delete(key("ready:default"))
        assert await broker.claim(1, QUEUE, "me", 30.0) == []
        assert await broker.audit(100) == [item.uuid]
        assert [handle.uuid for handle in await broker.claim(1, QUEUE, "me", 30.0)] == [item.uuid]


async def test_a_wiped_broker_meets_epochs_above_those_it_forgot(server):
    async with opened(server.url()) as (broker, storage, _, link):
        task = record()
        await broker.add_and_push([task], None)
        ((old, _),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
        with server.client(db=link.target.db) as client:
            client.delete(
                *(key(name) for name in ("ent", "ready:default", "lease:default", "epoch", "queues"))
            )
        assert await broker.contains_many([task.uuid]) == [False]
        await broker.push_many([PushItem(task.uuid, min_epoch=old.epoch)])
        (new,) = await broker.claim(1, QUEUE, "other", 30.0)
        assert new.epoch > old.epoch
        (verdict,) = await storage.start_many([new])
        assert verdict.kind is Start.STARTED
        assert await broker.settle_and_ack([success(old)]) == [REJECTED]


# --- Words that come late or twice ------------------------------------------------------------------


async def test_a_settle_after_a_burial_or_a_cancel_is_rejected(server):
    async with opened(server.url()) as (broker, storage, _, _):
        await broker.add_and_push([record(), record()], None)
        (one, _), (two, _) = await broker.claim_and_start(2, QUEUE, "me", 30.0)
        expires_at = time.time() + 60
        assert await storage.bury_many([Buried(one.uuid, one.epoch, "lost")], expires_at=expires_at) == [True]
        retry = Settle(two, Outcome.RETRY, {"status": TaskStatusEnum.NEW, "updated_at": 1.0}, nack=Nack(two))
        assert await broker.settle_and_ack([retry]) == [ACCEPTED]
        assert await broker.settle_and_ack([retry]) == [MINE]
        assert await storage.cancel_many([two.uuid], "no", expires_at=expires_at) == [CancelVerdict.CANCELLED]
        assert await broker.settle_and_ack([success(one), success(two), retry]) == [REJECTED] * 3
        assert await broker.ack_many([one]) == [DropVerdict.DONE]


async def test_one_settle_twice_in_a_batch(server):
    async with opened(server.url()) as (broker, storage, _, _):
        await broker.add_and_push([record()], None)
        ((handle, _),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
        assert await broker.settle_and_ack([success(handle, 1), success(handle, 2)]) == [ACCEPTED, MINE]
        assert (await storage.get_many([handle.uuid]))[0].returning == 1
        assert (await storage.counts())["success"] == 1


@pytest.mark.parametrize("together", [False, True], ids=["", "both queues"])
async def test_a_task_that_is_added_again_to_another_queue_stays_in_its_own(server, together):
    """The same uuid is the same task, whatever queue the second caller names: one entry."""
    async with opened(server.url()) as (broker, _, _, _):
        task = record(queue="first")
        again = replace(task, queue="second")
        await broker.add_and_push([task], None)
        more = [record(queue="first")] if together else []
        assert (await broker.add_and_push([*more, again], None))[-1].kind is Added.SAME
        assert sum(size.ready for size in (await broker.size()).values()) == 1 + together
        assert await broker.claim_and_start(5, ("second",), "me", 30.0) == []
        started = await broker.claim_and_start(5, ("first",), "me", 30.0)
        assert started[0][0].uuid == task.uuid


async def test_an_entry_that_lost_its_place_is_queued_again_where_it_belongs(server):
    """A second try finds the record without its entry: it goes to the queue of the record."""
    async with opened(server.url()) as (broker, storage, _, _):
        task = record(queue="first")
        await storage.add_many([task])
        other = record(queue="first")
        await broker.add_and_push([other, replace(task, queue="second")], None)
        assert {name: size.ready for name, size in (await broker.size()).items()} == {"first": 2}


async def test_an_index_that_names_an_entry_of_another_queue(server):
    """It does no harm to the claim that meets it, and its batch."""
    async with opened(server.url()) as (broker, _, _, link):
        stray, others = record(queue="first"), [record(queue="second") for _ in range(3)]
        await broker.add_and_push([stray, *others], None)
        ((handle, _),) = await broker.claim_and_start(1, ("first",), "me", 30.0)
        retry = Settle(
            handle, Outcome.RETRY, {"status": TaskStatusEnum.NEW, "available_at": time.time() + 60},
            nack=Nack(handle, 60.0),
        )  # fmt: skip
        assert await broker.settle_and_ack([retry]) == [ACCEPTED]
        with server.client(db=link.target.db) as client:
            client.zadd(key("ready:second"), {stray.uuid.bytes: 0})
        started = await broker.claim_and_start(5, ("second",), "me", 30.0)
        assert {handle.uuid for handle, _ in started} == {task.uuid for task in others}
        sizes = await broker.size()
        assert (sizes["first"].delayed, sizes["second"].ready) == (1, 0)


async def test_a_worker_that_met_only_what_cannot_run_is_told_of_work(server):
    """Its claim left no word, for it was not empty: it does so before it rests."""
    async with opened(server.url()) as (broker, storage, _, _):
        await broker.wait_for_work(QUEUE, 0.0)
        over = record()
        await broker.add_and_push([over], None)
        await storage.cancel_many([over.uuid], "no", expires_at=time.time() + 60)
        assert await broker.claim_and_start(5, QUEUE, "me", 30.0) == []
        resting = asyncio.create_task(broker.wait_for_work(QUEUE, 60.0))
        await asyncio.sleep(0)
        await broker.add_and_push([record()], None)
        await asyncio.wait_for(resting, 10)
        assert len(await broker.claim_and_start(5, QUEUE, "me", 30.0)) == 1


async def test_a_unique_key_whose_task_is_damaged_does_not_hold_up_who_asks_for_it(server):
    """It is told, and nothing is stored."""
    app = QueueTasks("app", server.url())
    async with app:
        task = await app.add_task("work", unique_key="one")
        with server.client(db=app.broker.link.target.db) as client:
            value = client.hget(key("rec"), task.uuid.bytes)
            client.hset(key("rec"), task.uuid.bytes, value[:-4])
        with pytest.raises(QTasksError, match="cannot be read"):
            await app.add_task("work", unique_key="one")
        assert (await app.storage.counts())["new"] == 1
