"""A task that is handed to an idle worker by the message that wakes it: when it is, when it is not, and that nothing is
lost or doubled by it."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from qtasks.components.primitives import DeliveryHandle, QueueSize, SettleVerdict
from qtasks.components.redis import RedisBroker, RedisLink
from qtasks.components.redis.wire import Addition
from qtasks.config import QueueConfig
from qtasks.errors import TransientError
from qtasks.manager import PluginManager
from qtasks.schemas import TaskRecord, TaskStatusEnum
from tests.components.test_redis_commands import calls, sent
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import ACL, PASSWORD, USER, RedisServer
from tests.support.tcp_proxy import TcpProxy

ACCEPTED, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.REJECTED
WAIT = 20.0
"""Seconds after which a test counts as stuck. Nothing waits that long when all is well."""


@pytest.fixture(scope="module")
def server():
    with RedisServer(appendonly="yes", appendfsync="no") as started:
        yield started


class Worker:
    """What takes tasks, as far as a broker knows it."""

    def __init__(self, broker: RedisBroker, owner: str = "me") -> None:
        self.broker, self.owner = broker, owner
        self.at_rest = True
        self.taken: list[tuple[DeliveryHandle, TaskRecord]] = []
        self._more = asyncio.Event()
        broker.hand_to(self)

    def take(self, claimed: list[tuple[DeliveryHandle, TaskRecord]]) -> None:
        self.taken += claimed
        self._more.set()

    async def rests(self, n: int = 10, queues: tuple[str, ...] = QUEUE, lease: float = 30.0) -> Any:
        """Claims, and with that registers."""
        await self.broker.link.notifier.ensure(WAIT)
        return await self.broker.claim_and_start(n, queues, self.owner, lease)

    async def gets(self, count: int = 1) -> tuple[DeliveryHandle, TaskRecord]:
        """Waits until it was handed so many; gives the last."""
        async with asyncio.timeout(WAIT):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()
        return self.taken[-1]


def through(proxy: TcpProxy, url: str) -> str:
    """The same server by way of a proxy."""
    return url.replace(f":{proxy.server_port}/", f":{proxy.port}/")


def size(sizes: dict[str, QueueSize], queue: str = "default") -> tuple[int, int]:
    found = sizes.get(queue, QueueSize())
    return found.ready, found.leased


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


async def test_a_worker_that_is_gone_costs_nothing(server):
    """Killed, it had no time to withdraw. The next worker, or nobody yet, gets what comes."""
    url = server.url()
    async with (
        TcpProxy(server.port) as proxy,
        opened(url) as (client, *_),
        opened(url) as (second, *_),
        opened(through(proxy, url)) as (broker, *_),
    ):
        gone = Worker(broker)
        await gone.rests()
        channel = broker.link.notifier.channel
        proxy.hold()  # nobody comes back
        proxy.cut()
        while (await client.link.command("PUBSUB", "NUMSUB", channel))[1]:
            await asyncio.sleep(0.01)
        other = Worker(second, "other")
        await other.rests()
        await client.add_and_push([first := record()], None)
        handle, _ = await other.gets()
        assert (handle.uuid, handle.owner) == (first.uuid, "other")
        await second.settle_and_ack([success(handle)])
        await second.withdraw()
        await client.add_and_push([record()], None)
        assert size(await client.size()) == (1, 0)
        assert not await client.link.command("EXISTS", client.link.calls.key("wake"))
        proxy.let_go()


async def test_a_worker_that_is_stuck_is_handed_one_task(server):
    """When that was restored and settled elsewhere, the stuck one is not handed the next: it claims no more."""
    url = server.url()
    async with opened(url) as (other, *_), opened(url) as (stuck, *_), opened(url) as (client, *_):
        busy = Worker(other, "busy")
        busy.at_rest = False
        await busy.rests()  # it is woken for what is restored, so that the word of the stuck one stays
        await Worker(stuck, "stuck").rests(lease=0.2)
        kept = 0
        for _ in range(3):
            await client.add_and_push([record()], None)
            if size(await client.size()) == (0, 1):
                kept += 1
                while not (await client.sweep(10, 5)).restored:
                    await asyncio.sleep(0.01)
            claimed = await busy.rests()
            await other.settle_and_ack([success(handle) for handle, _ in claimed])
        assert kept <= 1
        assert await client.size() == {}


async def test_what_nobody_renewed_is_cleared_away(server):
    """By whoever adds to the others, so that those who were killed are not looked at for ever."""
    url = server.url()
    async with opened(url) as (client, *_), opened(url) as (broker, *_):
        key = client.link.calls.key("wake")
        lapsed = b" default \n" + struct.pack(">ddB", time.time() - 1, 30.0, 0) + b"gone"
        for n in range(8):
            await client.link.command("HSET", key, f"qtasks:{{app}}:tell:{n}", lapsed)
        worker = Worker(broker)
        await worker.rests()
        for n in range(1, 50):
            await client.add_and_push([record()], None)
            handle, _ = await worker.gets(n)
            await broker.settle_and_ack([success(handle)])
            if await client.link.command("HLEN", key) == 1:
                break
        assert await client.link.command("HKEYS", key) == [broker.link.notifier.channel]


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


async def test_a_message_that_is_lost_is_left_to_its_lease(server):
    """As a claim whose reply is lost; and no second task follows it."""
    url = server.url()
    async with (
        TcpProxy(server.port) as proxy,
        opened(url) as (client, *_),
        opened(through(proxy, url)) as (broker, *_),
    ):
        worker = Worker(broker)
        await worker.rests(lease=0.5)
        proxy.swallowing = True
        await client.add_and_push([lost := record()], None)
        await client.add_and_push([second := record()], None)
        await proxy.swallowed.wait()
        assert size(await client.size()) == (1, 1)
        proxy.swallowing = False
        proxy.cut()
        while (report := await client.sweep(10, 5)).restored != [lost.uuid]:
            assert report.restored == []
            await asyncio.sleep(0.01)
        claimed = await client.claim_and_start(5, QUEUE, "other", 30.0)
        assert [(handle.uuid, handle.restored, handle.deliveries) for handle, _ in claimed] == [
            (lost.uuid, True, 2), (second.uuid, False, 1),
        ]  # fmt: skip
        assert worker.taken == []


async def test_what_is_withdrawn_was_heard(server):
    """What was told before the withdrawal is with the worker when that returns, however late it arrives."""
    url = server.url()
    async with (
        TcpProxy(server.port) as proxy,
        opened(url) as (client, *_),
        opened(through(proxy, url)) as (broker, _, _, link),
    ):
        worker = Worker(broker)
        await worker.rests()
        proxy.hold()
        await client.add_and_push([task := record()], None)
        withdrawing = asyncio.create_task(broker.withdraw())
        await asyncio.sleep(0)
        assert (withdrawing.done(), worker.taken) == (False, [])
        proxy.let_go()
        await asyncio.wait_for(withdrawing, WAIT)
        assert [handle.uuid for handle, _ in worker.taken] == [task.uuid]
        await client.add_and_push([record()], None)
        assert size(await client.size()) == (1, 1)
        assert link.notifier.work.is_set(), "who rests claims again when it may"


async def test_a_server_that_does_not_answer_is_transient(server):
    url = server.url(query="?socket_timeout=0.2")
    async with (
        TcpProxy(server.port) as proxy,
        opened(through(proxy, url)) as (broker, *_),
    ):
        await Worker(broker).rests()
        proxy.hold()
        with pytest.raises(TransientError):
            await broker.withdraw()
        proxy.let_go()


async def test_after_a_reconnect_it_is_handed_tasks_again(server):
    url = server.url()
    async with (
        TcpProxy(server.port) as proxy,
        opened(url) as (client, *_),
        opened(through(proxy, url)) as (broker, _, _, link),
    ):
        worker = Worker(broker)
        await worker.rests()
        generation = link.notifier.generation
        proxy.cut()
        while link.notifier.generation == generation:
            await asyncio.sleep(0.01)
        assert link.notifier.work.is_set()
        await worker.rests()
        await client.add_and_push([task := record()], None)
        assert (await worker.gets())[0].uuid == task.uuid


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


async def test_an_unreadable_record_is_buried(server):
    """As where it is claimed: by the next claim, for which the worker is woken."""
    url = server.url()
    async with opened(url) as (broker, _, _, link), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        link.notifier.work.clear()
        task = record(digest="0a" * 16)
        head, part = Addition.of(task).args(QUEUE)
        await client.link.run("add_push", [b"", head, part[:25] + b"no JSON"], QUEUE)
        await asyncio.wait_for(link.notifier.work.wait(), WAIT)
        assert worker.taken == []
        assert await worker.rests() == []
        (buried,) = await client.buried(10)
        assert (buried.uuid, "cannot be read" in buried.reason) == (task.uuid, True)


async def test_a_message_that_is_none_harms_nothing(server, caplog):
    async with opened(server.url()) as (broker, _, _, link):
        worker = Worker(broker)
        await worker.rests()
        for junk in (b"x" * 16 + b"L", b"x" * 16 + b"L" * 200):
            await link.command("PUBLISH", link.notifier.channel, junk)
        await broker.add_and_push([record()], None)
        await worker.gets()
    assert caplog.text.count("cannot be read") == 2


async def test_a_full_server_hands_nothing_over(server):
    with RedisServer() as own:
        async with opened(own.url()) as (broker, storage, _, link):
            worker = Worker(broker)
            await worker.rests()
            with own.client() as client:
                client.config_set("maxmemory", 1)
                with pytest.raises(TransientError, match=r"OOM|maxmemory"):
                    await broker.add_and_push([refused := record()], None)
                await link.notifier.caught_up()
                assert (worker.taken, await storage.get_many([refused.uuid])) == ([], [None])
                client.config_set("maxmemory", 0)
            await broker.add_and_push([refused], None)
            assert (await worker.gets())[0].uuid == refused.uuid


async def test_a_cap_counts_what_waits(server):
    url = server.url()
    async with opened(url) as (broker, *_), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        await client.add_and_push([record()], 1)
        await worker.gets()
        verdicts = [(await client.add_and_push([record()], 1))[0].kind.value for _ in range(2)]
        assert verdicts == ["added", "full"]


async def test_a_flush_takes_what_was_handed_over(server):
    async with opened(server.url()) as (broker, storage, *_):
        worker = Worker(broker)
        await worker.rests()
        await broker.add_and_push([record()], None)
        handle, _ = await worker.gets()
        await broker.flush()
        await storage.flush()
        assert await broker.settle_and_ack([success(handle)]) == [REJECTED]
        await broker.add_and_push([record()], None)
        again, _ = await worker.gets(2)
        assert again.epoch > handle.epoch
        await broker.erase()
        await storage.flush()
        await broker.add_and_push([record()], None)
        assert size(await broker.size()) == (1, 0)


async def test_an_enqueue_that_waits_for_the_disk_is_handed_over_too():
    with RedisServer(appendonly="yes", appendfsync="always") as own:
        async with opened(own.url(), durability="fsync") as (broker, *_):
            worker = Worker(broker)
            await worker.rests()
            await broker.add_and_push([task := record()], None)
            assert (await worker.gets())[0].uuid == task.uuid


async def test_a_user_without_the_right_to_ask_who_hears_is_woken():
    """Whoever sets up a user as an earlier version needed it: nothing is handed over, and nothing fails."""
    with RedisServer() as own:
        with own.client() as client:
            rights = [right for right in ACL.split() if not right.startswith("+pubsub")]
            client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights)
        url = own.url().replace("redis://", f"redis://{USER}:{PASSWORD.replace(' ', '%20')}@")
        async with opened(url) as (broker, _, _, link):
            worker = Worker(broker)
            await worker.rests()
            link.notifier.work.clear()
            await broker.add_and_push([record()], None)
            await asyncio.wait_for(link.notifier.work.wait(), WAIT)
            assert (worker.taken, size(await broker.size())) == ([], (1, 0))
