"""A task that is handed to an idle worker by the message that wakes it: when it is, when it is not, and to whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from qtasks.components.primitives import SettleVerdict
from qtasks.components.redis import RedisBroker, RedisLink
from qtasks.config import QueueConfig
from qtasks.manager import PluginManager
from qtasks.schemas import TaskRecord, TaskStatusEnum
from tests.components.test_redis_commands import calls, sent
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer
from tests.support.redis_worker import WAIT, Worker, size

ACCEPTED, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.REJECTED


async def test_a_worker_at_rest_is_handed_one_task_after_the_other_without_a_claim(server):
    url = server.url()
    async with opened(url) as (broker, storage, *_), opened(url) as (client, *_):
        worker = Worker(broker)
        await client.add_and_push([record()], None)
        ((first, _),) = await worker.rests()
        await broker.settle_and_ack([success(first)])  # all scripts are loaded
        before = calls(server)
        for n in range(1, 4):
            task = record(args=(n,), priority=n)
            began = time.time()
            await client.add_and_push([task], None)
            handle, found = await worker.gets(n)
            assert (handle.uuid, handle.owner, handle.deliveries, handle.restored) == (
                task.uuid,
                "me",
                1,
                False,
            )
            assert (handle.queue, handle.priority, handle.available_at) == ("default", n, task.available_at)
            assert (found.uuid, found.args, found.status) == (task.uuid, (n,), TaskStatusEnum.PROCESS)
            assert (found.owner, found.epoch, found.deliveries) == ("me", handle.epoch, 1)
            assert found.started_at == found.updated_at
            assert began - 1 <= found.started_at <= time.time() + 1
            assert await broker.settle_and_ack([success(handle, n)]) == [ACCEPTED]
        assert sent(before, calls(server), "evalsha") == 6, "one to add, one to settle"
        assert await broker.size() == {}
        assert (await storage.counts())["success"] == 4


async def test_the_next_one_waits_until_the_last_one_is_settled(server):
    """A worker that is stuck, or gone without a word, keeps one task; the others can get all that come."""
    url = server.url()
    async with opened(url) as (broker, *_), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        await client.add_and_push([record()], None)
        handle, _ = await worker.gets()
        await client.add_and_push([second := record()], None)
        await asyncio.wait_for(broker.wait_for_work(QUEUE, WAIT), WAIT)  # it is woken instead
        assert size(await client.size()) == (1, 1)
        ((found, _),) = await worker.rests()
        assert found.uuid == second.uuid
        await broker.settle_and_ack([success(handle)])
        # A claim of one task is such a task as well.
        await client.add_and_push([record()], None)
        assert size(await client.size()) == (1, 1)
        ((third, _),) = await worker.rests()
        await broker.settle_and_ack([success(found), success(third)])
        await client.add_and_push([fourth := record()], None)
        assert (await worker.gets(2))[0].uuid == fourth.uuid


async def test_one_at_a_time_also_while_a_claim_is_under_way(server):
    """The worker said that it rests before it read the message, and the server heard that after the add."""
    url = server.url()
    async with opened(url) as (broker, *_), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        await client.add_and_push([record()], None)
        await worker.rests()
        await client.add_and_push([record()], None)
        assert size(await client.size()) == (1, 1)
        first, _ = await worker.gets()
        ((second, _),) = await worker.rests()
        await broker.settle_and_ack([success(first), success(second)])
        await client.add_and_push([third := record()], None)
        assert (await worker.gets(2))[0].uuid == third.uuid


async def to_a_busy_worker(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    worker.at_rest = False
    await worker.rests()
    return [record()]


async def of_another_queue(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    await worker.rests()
    return [record(queue="other")]


async def two_at_once(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    await worker.rests()
    return [record(), record()]


async def a_large_one(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    await worker.rests()
    return [record(args=("x" * 70_000,))]


async def a_later_one(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    await worker.rests()
    return [record(created_at=time.time(), available_at=time.time() + 3600)]


async def rests_while_they_come_due(worker: Worker, client: RedisBroker, count: int) -> None:
    """What becomes due by itself wakes nobody, so that the word of the rest before is still there."""
    await worker.rests()  # connected, and the scripts are loaded: what comes now takes no time
    found, ahead = [()], 0.05
    while found:  # too late on a busy machine, which had them due before the worker rested
        ahead *= 2
        due = time.time() + ahead
        tasks = [record(created_at=due - 1, available_at=due) for _ in range(count)]
        await client.add_and_push(tasks, None)
        found = await worker.rests()
        await worker.broker.settle_and_ack([success(handle) for handle, _ in found])
    while time.time() <= due:
        await asyncio.sleep(0.005)


async def behind_one_that_is_due(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    await rests_while_they_come_due(worker, client, 1)
    return [record()]


async def behind_one_that_waits(worker: Worker, client: RedisBroker) -> list[TaskRecord]:
    await worker.rests()
    await client.link.command("ZADD", f"{client.link.calls.prefix}ready:default", "1", record().uuid.bytes)
    return [record()]


@pytest.mark.parametrize(
    "case",
    [
        to_a_busy_worker, of_another_queue, two_at_once, a_large_one, a_later_one, behind_one_that_is_due,
        behind_one_that_waits,
    ],
    ids=lambda case: case.__name__,
)  # fmt: skip
async def test_it_is_only_told(server, case: Callable[..., Any]):
    """A claim would have given something else first, or nothing, or the worker has something else to do."""
    url = server.url()
    async with opened(url) as (broker, *_), opened(url) as (client, *_):
        worker = Worker(broker)
        tasks = await case(worker, client)
        await client.add_and_push(tasks, None)
        await broker.withdraw()
        assert worker.taken == []
        found = (await client.size())[tasks[0].queue]
        assert (found.leased, found.ready + found.delayed >= len(tasks)) == (0, True)


@pytest.mark.parametrize("terms", ["", "\n", "\n1234567812345678\x10short", "\n2"])
async def test_a_worker_of_another_version_is_woken(server, terms):
    url = server.url()
    async with opened(url) as (_, _, _, link), opened(url) as (client, *_):
        await link.notifier.ensure(WAIT)
        await link.command("HSET", link.calls.key("wake"), link.notifier.channel, f" other default {terms}")
        link.notifier.work.clear()
        await client.add_and_push([record()], None)
        await asyncio.wait_for(link.notifier.work.wait(), WAIT)
        assert size(await client.size()) == (1, 0)
        assert not await link.command("EXISTS", link.calls.key("wake")), "a registration is used once"


async def test_the_one_that_has_room_is_woken(server):
    """A worker that was handed what fills it still has its word there; who goes on to wake it only lets a task wait."""
    url = server.url()
    async with opened(url) as (one, *_), opened(url) as (two, *_), opened(url) as (client, *_):
        full, room = Worker(one, "full"), Worker(two, "room")
        await full.rests(1)
        await client.add_and_push([record()], None)
        await full.gets()
        room.at_rest = False
        for tasks in ([record()], [record(), record()]):  # by straight code, and by that of batches
            await room.rests(100)
            two.link.notifier.work.clear()
            await client.add_and_push(tasks, None)
            await asyncio.wait_for(two.link.notifier.work.wait(), WAIT)


async def test_a_uuid_that_looks_like_a_queue_is_none(server):
    """It stands in the word of a worker that was handed it, which serves another queue."""
    url = server.url()
    async with opened(url) as (one, *_), opened(url) as (two, *_), opened(url) as (client, *_):
        other, worker = Worker(one, "other"), Worker(two, "worker")
        worker.at_rest = False
        await other.rests(queues=("other",))
        await client.add_and_push([record(queue="other", uuid=UUID(bytes=b"1234 default 567"))], None)
        handle, _ = await other.gets()
        await one.settle_and_ack([success(handle)])
        await worker.rests()
        two.link.notifier.work.clear()
        await client.add_and_push([record()], None)
        await asyncio.wait_for(two.link.notifier.work.wait(), WAIT)


async def test_brokers_on_one_link_take_each_its_own(server):
    """The link has one channel: what is handed over has the name of whom it is for."""
    link = RedisLink(server.url())
    brokers = RedisBroker(link), RedisBroker(link), RedisBroker(link)
    pm = PluginManager()
    for broker in brokers:
        broker.bind(pm, app_name="app", config=QueueConfig())
        await broker.open()
    try:
        first, second, client = Worker(brokers[0], "first"), Worker(brokers[1], "second"), brokers[2]
        for worker in (first, second):
            await worker.rests()
            await client.add_and_push([task := record()], None)
            handle, _ = await worker.gets()
            assert (handle.uuid, handle.owner) == (task.uuid, worker.owner)
            await worker.broker.settle_and_ack([success(handle)])
        assert (len(first.taken), len(second.taken)) == (1, 1)
    finally:
        for broker in brokers:
            await broker.close()


async def test_a_worker_that_goes_on_claiming_is_not_handed_more(server):
    url = server.url()
    async with opened(url) as (broker, _, _, link), opened(url) as (client, *_):
        worker = Worker(broker)
        await rests_while_they_come_due(worker, client, 2)
        wake = link.calls.key("wake")
        assert await link.command("HEXISTS", wake, link.notifier.channel)
        while len(await worker.rests(1)) < 1:
            await asyncio.sleep(0.005)
        assert not await link.command("HEXISTS", wake, link.notifier.channel)


async def test_workers_at_rest_take_turns(server):
    url = server.url()
    async with opened(url) as (one, *_), opened(url) as (two, *_), opened(url) as (client, *_):
        workers = [Worker(one, "one"), Worker(two, "two")]
        for worker in workers:
            await worker.rests()
        for n in range(1, 61):
            await client.add_and_push([record()], None)
            for each in workers:
                await each.broker.link.notifier.caught_up()
            assert sum(len(each.taken) for each in workers) == n
            for each in workers:
                if each.taken:
                    await each.broker.settle_and_ack([success(each.taken[-1][0])])
        assert all(each.taken for each in workers)
        # One that is busy leaves it to the other.
        for _ in range(2):
            await client.add_and_push([record()], None)
        for each in workers:
            await each.broker.link.notifier.caught_up()
            handles = [handle for handle, _ in each.taken]
            assert (await each.broker.settle_and_ack([success(handles[-1])])) == [ACCEPTED]
        assert await client.size() == {}


async def test_a_cap_counts_what_waits(server):
    url = server.url()
    async with opened(url) as (broker, *_), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        await client.add_and_push([record()], 1)
        await worker.gets()
        verdicts = [(await client.add_and_push([record()], 1))[0].kind.value for _ in range(2)]
        assert verdicts == ["added", "full"]


async def test_an_enqueue_that_waits_for_the_disk_is_handed_over_too():
    with RedisServer(appendonly="yes", appendfsync="always") as own:
        if not own.knows("waitaof"):
            pytest.skip("the server cannot wait for its disk: it has no WAITAOF")
        async with opened(own.url(), durability="fsync") as (broker, *_):
            worker = Worker(broker)
            await worker.rests()
            await broker.add_and_push([task := record()], None)
            assert (await worker.gets())[0].uuid == task.uuid


async def test_a_user_without_the_right_to_ask_who_hears_is_woken():
    """Whoever sets up a user as an earlier version needed it: nothing is handed over, and nothing fails."""
    with RedisServer() as own:
        own.restrict(without="+pubsub|numsub")
        async with opened(own.url(restricted=True)) as (broker, _, _, link):
            worker = Worker(broker)
            await worker.rests()
            link.notifier.work.clear()
            await broker.add_and_push([record()], None)
            await asyncio.wait_for(link.notifier.work.wait(), WAIT)
            assert (worker.taken, size(await broker.size())) == ([], (1, 0))
