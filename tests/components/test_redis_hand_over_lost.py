"""A task that is handed over where something fails: nothing is lost or doubled by it."""

from __future__ import annotations

import asyncio
import struct
import time

import pytest

from qtasks.components.primitives import SettleVerdict
from qtasks.components.redis import broker as redis_broker
from qtasks.components.redis.wire import additions
from qtasks.errors import TransientError
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer
from tests.support.redis_worker import WAIT, Worker, behind_proxy, size

ACCEPTED, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.REJECTED


async def test_a_worker_that_is_gone_costs_nothing(server):
    """Killed, it had no time to withdraw. The next worker, or nobody yet, gets what comes."""
    url = server.url()
    async with (
        behind_proxy(server, url) as (proxy, (broker, *_)),
        opened(url) as (client, *_),
        opened(url) as (second, *_),
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


async def test_a_message_that_is_lost_is_left_to_its_lease(server):
    """As a claim whose reply is lost; and no second task follows it."""
    url = server.url()
    async with (
        behind_proxy(server, url) as (proxy, (broker, *_)),
        opened(url) as (client, *_),
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
        behind_proxy(server, url) as (proxy, (broker, _, _, link)),
        opened(url) as (client, *_),
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
        behind_proxy(server, url) as (proxy, (broker, *_)),
    ):
        await Worker(broker).rests()
        proxy.hold()
        with pytest.raises(TransientError):
            await broker.withdraw()
        proxy.let_go()


async def test_after_a_reconnect_it_is_handed_tasks_again(server):
    url = server.url()
    async with (
        behind_proxy(server, url) as (proxy, (broker, _, _, link)),
        opened(url) as (client, *_),
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


async def test_an_unreadable_record_is_buried(server):
    """As where it is claimed: by the next claim, for which the worker is woken."""
    url = server.url()
    async with opened(url) as (broker, _, _, link), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        link.notifier.work.clear()
        task = record(digest="0a" * 16)
        (head, part), _ = additions([task], QUEUE)
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


def failing(claimed: object) -> None:
    raise RuntimeError("a fault of the taker")


async def test_a_message_that_cannot_be_taken_costs_that_message(server, caplog):
    """Whatever is raised there must not end the connection, with all that is told over it. The task is left to its
    lease, and its deliveries are counted, so it can do this only so often."""
    url = server.url()
    async with opened(url) as (broker, _, _, link), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests(lease=0.5)
        generation = link.notifier.generation
        take, worker.take = worker.take, failing
        await client.add_and_push([lost := record()], None)
        await link.notifier.caught_up()
        worker.take = take
        assert (link.notifier.listening, link.notifier.generation) == (True, generation)
        assert str(lost.uuid) in caplog.text
        assert "a fault of the taker" in caplog.text
        while not (report := await client.sweep(10, 5)).restored:
            await asyncio.sleep(0.01)
        assert report.restored == [lost.uuid]
        ((handle, _),) = await worker.rests()
        await broker.settle_and_ack([success(handle)])
        await client.add_and_push([following := record()], None)
        assert (await worker.gets())[0].uuid == following.uuid


@pytest.mark.parametrize("way", ["claimed", "handed over"])
async def test_a_record_that_fails_in_an_unforeseen_way_is_buried(server, monkeypatch, way):
    """It ends neither the claims of a worker nor what it is told."""
    url = server.url()
    async with opened(url) as (broker, _, _, link), opened(url) as (client, *_):
        decode = redis_broker.decode_open
        bad, good = record(), record()

        def decoding(uuid, value):
            if uuid == bad.uuid:
                raise RuntimeError("an unforeseen fault")
            return decode(uuid, value)

        monkeypatch.setattr(redis_broker, "decode_open", decoding)
        worker = Worker(broker)
        if way == "handed over":
            await worker.rests()
            link.notifier.work.clear()
        await client.add_and_push([bad], None)
        if way == "handed over":
            await asyncio.wait_for(link.notifier.work.wait(), WAIT)
        await client.add_and_push([good], None)
        assert [handle.uuid for handle, _ in await worker.rests()] == [good.uuid]
        (buried,) = await client.buried(10)
        assert (buried.uuid, "an unforeseen fault" in buried.reason) == (bad.uuid, True)


async def test_the_word_of_a_lost_connection_is_taken_back_before_the_next_one_listens(server):
    """Who left it may stop meanwhile."""
    url = server.url()
    async with behind_proxy(server, url) as (proxy, (broker, _, _, link)), opened(url) as (client, *_):
        await Worker(broker).rests()
        generation = link.notifier.generation
        proxy.cut()
        async with asyncio.timeout(WAIT):
            while link.notifier.generation == generation:
                await asyncio.sleep(0.01)
        await client.add_and_push([record()], None)
        assert size(await client.size()) == (1, 0)


async def test_nothing_is_handed_over_after_a_withdrawal_that_failed(server):
    """Only the connection of the commands is lost: what tells is given up with it."""
    url = server.url()
    async with opened(url) as (broker, _, _, link), opened(url) as (client, *_):
        worker = Worker(broker)
        await worker.rests()
        commands = await link.command("CLIENT", "ID")
        with server.client() as admin:
            admin.client_kill_filter(_id=commands)
        with pytest.raises(TransientError):
            await broker.withdraw()
        assert await link.notifier.ensure(WAIT)
        await client.add_and_push([record()], None)
        assert (worker.taken, size(await client.size())) == ([], (1, 0))
        ((handle, _),) = await worker.rests()
        await broker.settle_and_ack([success(handle)])
        await client.add_and_push([record()], None)
        await worker.gets()


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
