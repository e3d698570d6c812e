"""What the Redis backend costs the server, by the server's own count."""

from __future__ import annotations

import asyncio
import time

import pytest

from qtasks.components.primitives import DeliveryHandle, Nack, Outcome, PushItem, Settle, SettleVerdict, Start
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.samples import handle as token_of
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer


def calls(server: RedisServer) -> dict[str, int]:
    """Commands that clients sent, by name. What a script does inside counts as its own script."""
    with server.client() as client:
        found = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()}


def sent(before: dict[str, int], after: dict[str, int], *names: str) -> int:
    """How many of these commands came in between."""
    return sum(after.get(name, 0) - before.get(name, 0) for name in names)


async def test_round_trips_per_task(server):
    """One per enqueue, claimed batch and settled batch: of 1,000 tasks in batches of 100, 30 in all."""
    async with opened(server.url()) as (broker, _, _, _):
        await broker.add_and_push([record()], None)
        ((handle, _),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
        await broker.settle_and_ack([success(handle)])
        before = calls(server)
        for _ in range(10):
            await broker.add_and_push([record() for _ in range(100)], None)
        done = 0
        while done < 1000:
            claimed = await broker.claim_and_start(100, QUEUE, "me", 30.0)
            await broker.settle_and_ack([success(handle) for handle, _ in claimed])
            done += len(claimed)
        after = calls(server)
    assert sent(before, after, "evalsha") == 30
    assert sent(before, after, "eval", "script|load", "multi", "ping", "info") <= 1  # the INFO of this count


def retry(handle: DeliveryHandle) -> Settle:
    """A settle that gives the task back."""
    now = time.time()
    changes = {"status": TaskStatusEnum.NEW, "attempt": 1, "available_at": now, "updated_at": now}
    return Settle(handle, Outcome.RETRY, changes, nack=Nack(handle, 0.0))


@pytest.mark.parametrize("batch", [40, 10])
async def test_tokens_are_found_without_a_search(server, batch):
    """The server would look through all tokens for each of them, as long as they are few."""
    async with opened(server.url()) as (broker, _, _, link):
        await broker.add_and_push([record() for _ in range(40)], None)
        for _ in range(40 // batch):
            assert len(await broker.claim_and_start(batch, QUEUE, "me", 30.0)) == batch
        with server.client(db=link.target.db) as client:
            for key in (link.calls.key("ent"), link.calls.key("run")):
                assert client.object("encoding", key) in (b"hashtable", "hashtable")
                assert client.hlen(key) == 40
                assert all(len(value) < 100 for value in client.hvals(key))


async def test_records_that_come_one_by_one_are_found_without_a_search(server):
    """Not every one of them looks whether the hash has outgrown a list."""
    async with opened(server.url()) as (broker, _, _, link):
        with server.client(db=link.target.db) as client:
            for count in range(1, 41):
                await broker.add_and_push([record()], None)
                found = client.object("encoding", link.calls.key("rec"))
                assert (found == b"hashtable") == (count >= 32)
            assert all(len(value) < 100 for value in client.hvals(link.calls.key("rec")))


async def test_a_batch_settles_and_gives_back(server):
    """One script removes and writes in the same hashes; each task ends as its own settle says."""
    async with opened(server.url()) as (broker, storage, _, _):
        await broker.add_and_push([record() for _ in range(40)], None)
        handles = [handle for handle, _ in await broker.claim_and_start(40, QUEUE, "me", 30.0)]
        done, back = handles[::2], handles[1::2]
        settles = [success(handle) if handle in done else retry(handle) for handle in handles]
        assert await broker.settle_and_ack(settles) == [SettleVerdict.ACCEPTED] * 40
        records = await storage.get_many([handle.uuid for handle in handles])
        assert [found.status for found in records[::2]] == [TaskStatusEnum.SUCCESS] * 20
        assert [found.status for found in records[1::2]] == [TaskStatusEnum.NEW] * 20
        again = await broker.claim_and_start(40, QUEUE, "other", 30.0)
        assert [(handle.uuid, found.attempt) for handle, found in again] == [(each.uuid, 1) for each in back]
        assert await broker.claim_and_start(40, QUEUE, "other", 30.0) == []


async def test_what_is_put_back_at_once_is_leased_to_nobody(server):
    """An entry whose record is missing is leased and put back by the same script: the last word counts."""
    async with opened(server.url()) as (broker, _, _, link):
        task, lost = record(), record()
        await broker.add_and_push([task], None)
        await broker.push_many([PushItem(lost.uuid, available_at=lost.available_at)])
        ((handle, _),) = await broker.claim_and_start(10, QUEUE, "me", 30.0)
        assert handle.uuid == task.uuid
        with server.client(db=link.target.db) as client:
            assert client.zrange(f"{link.calls.prefix}lease:default", 0, -1) == [task.uuid.bytes]
            assert client.zrange(f"{link.calls.prefix}delayed:default", 0, -1) == [lost.uuid.bytes]


async def test_a_task_for_which_nobody_named_a_time_is_due_whatever_the_clock_of_its_producer_shows(server):
    ahead = time.time() + 3600
    times = {"created_at": ahead, "updated_at": ahead, "available_at": ahead}
    plain, other = record(**times), [record(**times, unique_key="k"), record(**times)]
    later = record(**times | {"available_at": ahead + 1})
    url = server.url()
    async with opened(url) as (broker, storage, *_):
        for batch in ([plain], other, [later]):
            await broker.add_and_push(batch, None)
        claimed = await broker.claim_and_start(10, QUEUE, "me", 30.0)
        assert {handle.uuid for handle, _ in claimed} == {plain.uuid, *(each.uuid for each in other)}
        await storage.add_many([alone := record(**times)])
        verdicts = await storage.start_many([token_of(alone.uuid), token_of(later.uuid)])
        assert [verdict.kind for verdict in verdicts] == [Start.STARTED, Start.NOT_DUE]


async def test_an_idle_worker_and_an_idle_client_cost_nothing_between_events(server):
    """Between two events an idle worker sends one command to rest (and one per deadline), a client none."""
    async with opened(server.url()) as (broker, storage, _, link):
        task = record(available_at=time.time() + 3600)
        await broker.add_and_push([task], None)
        waiting = asyncio.create_task(storage.wait_settled(task.uuid, 60.0))
        while not await _registered(server, f"/{link.target.db}", task):
            await asyncio.sleep(0.005)
        assert await broker.claim_and_start(1, QUEUE, "me", 30.0) == []
        before = calls(server)
        began = time.monotonic()
        for _ in range(3):
            await broker.wait_for_work(QUEUE, 0.5)
            assert await broker.claim_and_start(1, QUEUE, "me", 30.0) == []
        seconds = time.monotonic() - began
        after = calls(server)
        assert seconds >= 1.5, "it was told of work that is not there"
        assert sent(before, after, "evalsha") <= 3
        assert sent(before, after, "evalsha") / seconds <= 2
        assert not waiting.done()
        waiting.cancel()


async def test_an_idle_worker_is_told_of_work(server):
    url = server.url()
    async with opened(url) as (broker, _, _, _), opened(url) as (client, _, _, _):
        await broker.link.notifier.ensure(5.0)
        assert await broker.claim_and_start(1, QUEUE, "me", 30.0) == []
        for _ in range(3):
            resting = asyncio.create_task(broker.wait_for_work(QUEUE, 30.0))
            began = time.monotonic()
            await client.add_and_push([record()], None)
            await asyncio.wait_for(resting, 10.0)
            assert time.monotonic() - began < 5
            assert len(await broker.claim_and_start(1, QUEUE, "me", 30.0)) == 1
            assert await broker.claim_and_start(1, QUEUE, "me", 30.0) == []


async def test_a_worker_that_got_all_there_was_is_told_of_more_without_asking_again(server):
    url = server.url()
    async with opened(url) as (broker, _, _, _), opened(url) as (client, _, _, _):
        await broker.link.notifier.ensure(5.0)
        for _ in range(2):
            await client.add_and_push([record(), record()], None)
            assert len(await broker.claim_and_start(3, QUEUE, "me", 30.0)) == 2
            before = calls(server)
            resting = asyncio.create_task(broker.wait_for_work(QUEUE, 30.0))
            await asyncio.sleep(0)
            await client.add_and_push([record()], None)
            await asyncio.wait_for(resting, 10.0)
            assert sent(before, calls(server), "evalsha") == 1, "the client's"
            # One that got as many as it wanted looks again by itself.
            assert len(await broker.claim_and_start(1, QUEUE, "me", 30.0)) == 1
            assert broker._armed is None


async def test_a_waiting_client_is_told_of_the_result(server):
    url = server.url()
    async with opened(url) as (broker, _, _, _), opened(url) as (client, storage, _, _):
        task = record()
        await client.add_and_push([task], None)
        waiting = [asyncio.create_task(storage.wait_settled(task.uuid, 30.0)) for _ in range(3)]
        await storage.link.notifier.ensure(5.0)
        while not await _registered(server, url, task):
            await asyncio.sleep(0.005)
        ((handle, _),) = await broker.claim_and_start(1, QUEUE, "me", 30.0)
        before = calls(server)
        await broker.settle_and_ack([success(handle, {"answer": 42})])
        found = await asyncio.gather(*waiting)
        after = calls(server)
        assert [each.returning for each in found] == [{"answer": 42}] * 3
        assert {each.status for each in found} == {TaskStatusEnum.SUCCESS}
        assert sent(before, after, "evalsha") == 1, "the clients read nothing: the record was sent to them"
        assert not await _registered(server, url, task)


async def test_a_flush_ends_the_waiting(server):
    async with opened(server.url()) as (broker, storage, _, link):
        task = record()
        await broker.add_and_push([task], None)
        waiting = asyncio.create_task(storage.wait_settled(task.uuid, 30.0))
        await link.notifier.ensure(5.0)
        while not await _registered(server, f"/{link.target.db}", task):
            await asyncio.sleep(0.005)
        await storage.flush()
        with pytest.raises(LookupError):
            await asyncio.wait_for(waiting, 10.0)


async def _registered(server: RedisServer, url: str, task) -> bool:
    with server.client(db=int(url.rsplit("/", 1)[1])) as client:
        return bool(client.hexists("qtasks:{app}:wait", task.uuid.bytes))


async def test_flush_and_purge_leave_nothing_behind(server):
    """Also what other apps have stays (I7)."""
    url = server.url()
    async with opened(url) as (broker, storage, config, link), opened(url, app="app2") as (other, _, _, _):
        await other.add_and_push([record()], None)
        tasks = [record(queue=f"q{n % 3}", unique_key=f"u{n}") for n in range(9)]
        await broker.add_and_push(tasks, None)
        claimed = await broker.claim_and_start(9, ("q0", "q1"), "me", 30.0)
        assert await storage.append_items(claimed[0][0], 0, [1, 2, 3])
        await broker.settle_and_ack([success(handle) for handle, _ in claimed])
        assert await storage.purge(time.time() + 7200, 0) == 6
        with server.client(db=link.target.db) as client:
            assert client.hlen("qtasks:{app}:res") == client.hlen("qtasks:{app}:items") == 0
            assert client.xlen("qtasks:{app}:ord") == client.hlen("qtasks:{app}:rec") == 3
            await broker.flush()
            await storage.flush()
            await config.flush()
            left = {key.decode() for key in client.keys("qtasks:{app}:*")}
        assert left == {f"qtasks:{{app}}:{name}" for name in ("epoch", "seq", "meta")}
        assert (await other.size())["default"].ready == 1


async def test_values_whose_time_is_over_go_although_nobody_asks_for_them(server):
    async with opened(server.url()) as (_, _, config, link):
        await config.put("kept", "key", 1)
        for n in range(200):
            await config.put("windows", f"old {n}", n, ttl=0.001)
        with server.client(db=link.target.db) as client:
            for _ in range(100):
                await config.put("windows", "new", 1, ttl=60.0)
            assert client.hlen("qtasks:{app}:config") < 150
        assert await config.fetch("kept", "key") is not None
