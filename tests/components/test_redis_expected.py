"""A client that waits for each result is told of it by word that the enqueue itself left, where the task is handed
over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from qtasks.components.redis import notify
from tests.components.test_redis_commands import calls, sent
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_worker import WAIT, Worker, through
from tests.support.tcp_proxy import TcpProxy


class Trips:
    """A client and a worker at rest."""

    def __init__(self, client: Any, worker: Worker) -> None:
        self.client, self.worker = client, worker

    async def add(self, uuid: UUID | None = None) -> Any:
        """Adds a task; gives its handle when the worker has it."""
        count = len(self.worker.taken) + 1
        await self.client.broker.add_and_push([record(uuid=uuid or uuid4())], None)
        handle, _ = await self.worker.gets(count)
        return handle

    async def waits(self, handle: Any) -> asyncio.Task[Any]:
        """Begins to wait for its result, as far as that goes without an answer."""
        waiting = asyncio.create_task(self.client.storage.wait_settled(handle.uuid, WAIT))
        await asyncio.sleep(0)
        return waiting

    async def settle(self, handle: Any, value: Any) -> None:
        await self.worker.broker.settle_and_ack([success(handle, value)])

    async def trip(self, value: Any) -> Any:
        """A whole one; gives the result."""
        handle = await self.add()
        waiting = await self.waits(handle)
        await self.settle(handle, value)
        return (await waiting).returning

    async def word(self) -> dict[bytes, bytes]:
        """What is left for results."""
        link = self.client.link
        found = await link.command("HGETALL", link.calls.key("wait"))
        return dict(zip(found[::2], found[1::2], strict=True))


@asynccontextmanager
async def trips(url: str, of_client: str | None = None):
    async with opened(url) as (broker, *_), opened(of_client or url) as client:
        worker = Worker(broker)
        await worker.rests()
        made = Trips(client, worker)
        await client.link.notifier.ensure(WAIT)
        assert await made.trip(0) == 0  # from here on it is known to wait
        yield made


async def test_whoever_waits_asks_nothing(server):
    async with trips(server.url()) as made:
        await made.trip(1)
        before = calls(server)
        for value in range(3):
            assert await made.trip(value) == value
        assert sent(before, calls(server), "evalsha") == 6, "one to add, one to settle"
        assert await made.word() == {}


async def test_whoever_waits_is_told_before_the_reply_leaves(server):
    """The server has written to the waiting process when the reply to the settle can be read, and not the other way
    round, which keeps whoever waits from the processor for as long as somebody else is woken."""
    async with opened(server.url()) as (broker, storage, *_):
        with server.client() as client, client.pubsub() as listener:
            listener.subscribe("waits")
            listener.get_message(timeout=WAIT)  # the answer to that
            for _ in range(20):
                await broker.add_and_push([record()], None)
                ((handle, _),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
                await storage.link.run("wait", [handle.uuid.bytes, b"waits"])
                await broker.settle_and_ack([success(handle)])
                message = listener.get_message(timeout=0)
                assert message is not None, "the reply was there before the message"
                assert message["data"].startswith(handle.uuid.bytes)


async def test_a_ping_goes_ahead_only_where_somebody_is_likely_to_wait(server):
    async with trips(server.url()) as made:
        before = calls(server)
        await made.trip(1)
        assert sent(before, calls(server), "ping") == 2, "of the enqueue and of the settle"
    async with opened(server.url()) as (broker, *_):
        before = calls(server)
        await broker.add_and_push([record()], None)
        await broker.add_and_push([record(), record()], None)
        claimed = await broker.claim_and_start(3, QUEUE, "me", 30.0)
        await broker.settle_and_ack([success(handle) for handle, _ in claimed])
        assert len(claimed) == 3
        assert sent(before, calls(server), "ping") == 0, "nobody waits here, nor for a batch"
        await broker.add_and_push([record()], None)
        await broker.add_and_push([record()], None)
        claimed = await broker.claim_and_start(2, QUEUE, "me", 30.0)
        before = calls(server)
        await asyncio.gather(*(broker.settle_and_ack([success(handle)]) for handle, _ in claimed))
        assert sent(before, calls(server), "ping") == 1, "the second is under way with the first"


async def test_whoever_does_not_wait_is_told_once_in_vain(server):
    async with trips(server.url()) as made:
        first = await made.add()
        assert list(await made.word()) == [first.uuid.bytes]
        await made.settle(first, 1)
        second = await made.add()
        assert await made.word() == {}
        waiting = await made.waits(second)  # the old way
        await made.settle(second, 2)
        assert (await waiting).returning == 2
        # The first is still to be had.
        assert (await made.client.storage.wait_settled(first.uuid, WAIT)).returning == 1


async def test_a_result_that_comes_before_the_enqueue_is_answered(server, monkeypatch):
    async with trips(server.url()) as made:
        link = made.client.link
        run = link.run

        async def late(*args: Any, **more: Any) -> Any:
            count = len(made.worker.taken) + 1
            reply = await run(*args, **more)
            handle, _ = await made.worker.gets(count)
            await made.settle(handle, "early")
            await link.notifier.caught_up()
            return reply

        with monkeypatch.context() as patch:
            patch.setattr(link, "run", late)
            handle = await made.add()
        before = calls(server)
        assert (await made.client.storage.wait_settled(handle.uuid, WAIT)).returning == "early"
        assert sent(before, calls(server), "evalsha") == 0


@pytest.mark.parametrize("when", ["before the answer", "after it"])
async def test_a_message_that_is_lost_is_read_again(server, monkeypatch, when):
    url = server.url()
    async with TcpProxy(server.port) as proxy, trips(url, through(proxy, url)) as made:
        link = made.client.link
        run, generation = link.run, link.notifier.generation

        async def torn() -> None:
            proxy.cut()
            while link.notifier.generation == generation:
                await asyncio.sleep(0.005)

        async def late(*args: Any, **more: Any) -> Any:
            reply = await run(*args, **more)
            await torn()
            return reply

        with monkeypatch.context() as patch:
            if when == "before the answer":
                patch.setattr(link, "run", late)
            handle = await made.add()
        waiting = await made.waits(handle)
        if when == "after it":
            await torn()
        await made.settle(handle, 5)
        assert (await asyncio.wait_for(waiting, WAIT)).returning == 5


async def test_a_wait_that_is_over_looks_once_more(server):
    async with trips(server.url()) as made:
        handle = await made.add()
        assert await made.client.storage.wait_settled(handle.uuid, 0.01) is None
        await made.settle(handle, 1)
        await made.client.link.notifier.caught_up()
        assert (await made.client.storage.wait_settled(handle.uuid, 0)).returning == 1


async def ends_untold(made: Trips, handle: Any) -> None:
    """It ends, and nobody waits for it any more."""
    assert await made.client.storage.wait_settled(handle.uuid, 0.01) is None
    await made.settle(handle, "old")


async def ends_told(made: Trips, handle: Any) -> None:
    """It ends, and nobody has waited for it yet."""
    await made.settle(handle, "old")


@pytest.mark.parametrize("ends", [ends_untold, ends_told])
@pytest.mark.parametrize("handed", [True, False])
async def test_what_was_told_of_a_deleted_task_is_not_the_result_of_the_next_with_its_uuid(
    server, ends, handed
):
    url = server.url()
    async with trips(url) as made:
        old = await made.add()
        await ends(made, old)
        await made.client.link.notifier.caught_up()
        async with opened(url) as elsewhere:
            assert await elsewhere.storage.delete_many([old.uuid]) == [True]
        if handed:
            new = await made.add(old.uuid)
        else:
            await made.worker.broker.withdraw()
            await made.client.broker.add_and_push([record(uuid=old.uuid)], None)
            ((new, _),) = await made.worker.rests()
        waiting = await made.waits(new)
        await made.settle(new, "new")
        assert (await asyncio.wait_for(waiting, WAIT)).returning == "new"


async def test_a_deleted_task_is_not_waited_for(server):
    async with trips(server.url()) as made:
        handle = await made.add()
        await made.settle(handle, 1)
        await made.client.link.notifier.caught_up()
        assert await made.client.storage.delete_many([handle.uuid]) == [True]
        with pytest.raises(LookupError):
            await made.client.storage.wait_settled(handle.uuid, 0.5)


@pytest.mark.parametrize("timeout", [None, 3600.0])
async def test_whoever_was_not_told_looks_when_the_connection_is_looked_at(server, monkeypatch, timeout):
    monkeypatch.setattr(notify, "QUIET", 0.05)
    async with trips(server.url()) as made:
        handle = await made.add()
        waiting = asyncio.create_task(made.client.storage.wait_settled(handle.uuid, timeout))
        await asyncio.sleep(0)
        link = made.client.link
        assert await link.command("HDEL", link.calls.key("wait"), handle.uuid.bytes) == 1, "its word is lost"
        await made.settle(handle, 5)
        assert (await asyncio.wait_for(waiting, WAIT)).returning == 5


async def test_a_flush_ends_it(server):
    async with trips(server.url()) as made:
        handle = await made.add()
        waiting = await made.waits(handle)
        await made.client.storage.flush()
        with pytest.raises(LookupError):
            await asyncio.wait_for(waiting, WAIT)
