"""Checks of the steps over a pairing: add, claim and settle when nobody crashes (R1, R2)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

from qtasks.components.broker import Colocated
from qtasks.components.primitives import Added, DropVerdict, SettleVerdict
from qtasks.config import QueueConfig
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.pairing.pair import QUEUES, Components, Pair
from qtasks.testing.samples import cancel, error, handle, owner, record, release, retry, success
from qtasks.testing.storage.adding import differences

ACCEPTED, MINE, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.ALREADY_MINE, SettleVerdict.REJECTED


class Steps(Suite):
    """What happens when nobody crashes."""

    @check("PAIRING-01", needs=("priorities", "delayed"))
    async def test_add(self, bench: Bench[Components]) -> None:
        """An added task is stored as it was given, and queued where and when its record says.

        If this fails, check what becomes of a record on its way into an entry.
        """
        pair = await Pair.open(bench)
        now = bench.now()
        tasks = [record(now=now, queue="mail", priority=5), record(now=now, queue="mail", priority=-5)]
        later = record(now=now, available_at=now + bench.long)
        await pair.add(*tasks, later)
        for task in (*tasks, later):
            assert differences(await pair.get(task.uuid), task) == {}
        handles = await pair.broker.claim(10, QUEUES, owner(), bench.long)
        assert [each.uuid for each in handles] == [tasks[1].uuid, tasks[0].uuid]
        assert await pair.known(later.uuid)

    @check("PAIRING-02")
    async def test_add_is_idempotent(self, bench: Bench[Components]) -> None:
        """Adding again gives `same`, `conflict` or `exists`, in order, and neither stores nor queues twice.

        If this fails, check that only records that are added, or the same, are pushed.
        """
        pair = await Pair.open(bench)
        task, unique = record(), record(unique_key="k")
        await pair.add(task, unique)
        rival, new = record(unique_key="k"), record()
        batch = [rival, task, replace(task, digest="x"), new, new]
        verdicts = await pair.delivery.add(batch)
        kinds = [verdict.kind for verdict in verdicts]
        assert kinds == [Added.EXISTS, Added.SAME, Added.CONFLICT, Added.ADDED, Added.SAME]
        assert verdicts[0].uuid == unique.uuid
        assert not await pair.known(rival.uuid), "what was not stored is queued"
        assert await pair.quiesce() == {task.uuid: 1, unique.uuid: 1, new.uuid: 1}
        verdicts = await pair.delivery.add([task])
        assert [verdict.kind for verdict in verdicts] == [Added.SAME]
        assert await pair.claim() == [], "a finished task was run again"

    @check("PAIRING-03", needs=("delayed",))
    async def test_a_full_queue(self, bench: Bench[Components]) -> None:
        """Above `max_queue` waiting entries of its queue a task is `full`: neither stored nor queued.
        What runs does not count.

        If this fails, check that the cap is looked at before the record is written.
        """
        pair = await Pair.open(bench, QueueConfig(max_queue=3))
        now = bench.now()
        tasks = [record(available_at=now + bench.long), *(record() for _ in range(4))]
        elsewhere = record(queue="mail")
        kinds = [verdict.kind for verdict in await pair.delivery.add([*tasks, elsewhere])]
        assert kinds == [Added.ADDED] * 3 + [Added.FULL] * 2 + [Added.ADDED]
        found = await pair.storage.get_many([task.uuid for task in tasks[3:]])
        assert found == [None, None]
        assert not await pair.known(tasks[3].uuid)
        assert len(await pair.claim()) == 3
        kinds = [verdict.kind for verdict in await pair.delivery.add(tasks[3:])]
        assert kinds == [Added.ADDED, Added.ADDED]

    @check("PAIRING-04", needs=("priorities",))
    async def test_claim(self, bench: Bench[Components]) -> None:
        """A claim includes the start: the records come back in PROCESS under the token of their handle,
        in order, and the storage says the same.

        If this fails, check that the start is made with the handles of the claim.
        """
        pair = await Pair.open(bench)
        tasks = [record(priority=priority, args=(priority,)) for priority in (3, 1, 2)]
        await pair.add(*tasks)
        claims = await pair.claim(2)
        assert [task.args for _, task in claims] == [(1,), (2,)]
        for token, task in claims:
            assert (task.uuid, task.status) == (token.uuid, "process")
            assert (task.epoch, task.owner, task.deliveries) == (token.epoch, token.owner, 1)
            assert differences(await pair.get(token.uuid), task) == {}
        assert {token.owner for token, _ in claims} == {claims[0][0].owner}

    @check("PAIRING-05")
    async def test_settle(self, bench: Bench[Components]) -> None:
        """A terminal settle writes the record and forgets the entry; the repeated one is `already mine`.

        If this fails, check that the entry is acked with the settle's own handle.
        """
        pair = await Pair.open(bench)
        await pair.add(*(record() for _ in range(3)))
        claims, now = await pair.claim(), bench.now()
        (a, _), (b, _), (c, _) = claims
        outcomes = [success(a, now), error(b, now), cancel(c, now)]
        assert await pair.settle(*outcomes) == [ACCEPTED] * 3
        assert await pair.broker.contains_many([token.uuid for token, _ in claims]) == [False] * 3
        statuses = [(await pair.get(token.uuid)).status for token, _ in claims]
        assert statuses == ["success", "error", "cancel"]
        assert await pair.settle(*outcomes) == [MINE] * 3
        assert await pair.quiet()

    @check("PAIRING-06")
    async def test_settle_acks_what_is_still_held(self, bench: Bench[Components]) -> None:
        """A settle that is `already mine` still ends the delivery: the first try may have died before the
        ack.

        If this fails, check that only a rejected settle leaves the entry alone (R6).
        """
        pair = await Pair.open(bench)
        await pair.add(*(record() for _ in range(2)))
        (first, _), (second, _) = await pair.claim()
        now = bench.now()
        settles = [success(first, now), retry(second, now)]
        assert await pair.storage.settle_many(settles) == [ACCEPTED] * 2
        assert await pair.known(first.uuid)
        assert await pair.settle(*settles) == [MINE] * 2
        assert not await pair.known(first.uuid), "the entry of a settled task stays"
        ((again, _),) = await pair.claim()
        assert again.uuid == second.uuid

    @check("PAIRING-12")
    async def test_retry(self, bench: Bench[Components]) -> None:
        """A retry puts the same uuid back: not before its delay is over, then as the first delivery of
        the next attempt.

        If this fails, check that RETRY nacks with the delay and with deliveries 0.
        """
        pair = await Pair.open(bench)
        await pair.add(record(priority=bench.priority(3)))
        ((token, _),) = await pair.claim()
        assert await pair.settle(retry(token, bench.now(), bench.short)) == [ACCEPTED]
        assert await pair.claim() == []
        await bench.elapse(bench.short)
        ((again, task),) = await bench.eventually(pair.claim, "the delay of the retry is over")
        assert (again.uuid, again.deliveries, again.priority) == (token.uuid, 1, token.priority)
        assert (task.attempt, task.deliveries, task.status) == (1, 1, "process")

    @check("PAIRING-13")
    async def test_release(self, bench: Bench[Components]) -> None:
        """A release puts the task back at once; its delivery is returned, or counted, as the settle says.

        If this fails, check that RELEASE nacks with the deliveries of its `nack`.
        """
        pair = await Pair.open(bench)
        await pair.add(record())
        ((token, _),) = await pair.claim()
        for keep, then in ((True, 1), (False, 2), (False, 3), (True, 3)):
            assert await pair.settle(release(token, bench.now(), keep)) == [ACCEPTED]
            assert (await pair.get(token.uuid)).status == "new"
            ((token, task),) = await pair.claim()
            assert (token.deliveries, task.deliveries, task.attempt) == (then, then, 0)

    @check("PAIRING-14", needs=("priorities", "delayed"))
    async def test_then(self, bench: Bench[Components]) -> None:
        """Follow-up tasks are stored and queued with an accepted settle, once.

        If this fails, check that the records of `then` are pushed after they are stored.
        """
        pair = await Pair.open(bench)
        await pair.add(record())
        ((token, _),) = await pair.claim()
        now = bench.now()
        then = (record(now=now, priority=9), record(now=now, available_at=now + bench.short), record(now=now))
        settle = success(token, now, then=then)
        assert await pair.settle(settle) == [ACCEPTED]
        assert await pair.settle(settle) == [MINE]
        assert [each.uuid for each, _ in await pair.claim()] == [then[2].uuid, then[0].uuid]
        assert await pair.known(then[1].uuid)
        assert differences(await pair.get(then[1].uuid), then[1]) == {}

    @check("PAIRING-17")
    async def test_mixed_batches(self, bench: Bench[Components]) -> None:
        """A batch of settles of every kind gives each its verdict, in order, and does to each entry what
        belongs to it.

        If this fails, check that verdicts are matched with settles by place.
        """
        pair = await Pair.open(bench)
        await pair.add(*(record(args=(i,)) for i in range(6)))
        claims, now = await pair.claim(), bench.now()
        a, b, c, d, e, f = [token for token, _ in claims]
        then = record()
        batch = [
            retry(a, now, bench.long), success(b._replace(epoch=b.epoch + 99), now), error(c, now),
            release(d, now), success(e, now, then=(then,)), success(e, now), cancel(f, now),
        ]  # fmt: skip
        verdicts = await pair.settle(*batch)
        assert verdicts == [ACCEPTED, REJECTED, ACCEPTED, ACCEPTED, ACCEPTED, MINE, ACCEPTED]
        known = await pair.broker.contains_many([a.uuid, b.uuid, c.uuid, d.uuid, e.uuid, f.uuid, then.uuid])
        assert known == [True, True, False, True, False, False, True]
        assert {token.uuid for token, _ in await pair.claim()} == {d.uuid, then.uuid}
        assert await pair.broker.ack_many([b]) == [DropVerdict.DONE]

    @check("PAIRING-18")
    async def test_many_workers(self, bench: Bench[Components]) -> None:
        """When many workers and producers work at once and nobody fails, every task is run exactly once
        (I1, I6).

        If this fails, check that each step is atomic, also against itself.
        """
        pair = await Pair.open(bench)
        pairs = [pair, await pair.beside()]
        tasks = [record() for _ in range(120)]
        runs: list[UUID] = []
        done = asyncio.Event()

        async def produce(i: int) -> None:
            for j in range(i * 40, i * 40 + 40, 5):
                await pairs[i % 2].add(*tasks[j : j + 5])

        async def work(i: int) -> None:
            while not done.is_set():
                claims = await pairs[i % 2].claim(7)
                runs.extend(token.uuid for token, _ in claims)
                verdicts = await pairs[i % 2].settle(*(success(token, bench.now()) for token, _ in claims))
                assert set(verdicts) <= {ACCEPTED}
                if len(runs) >= len(tasks):
                    done.set()
                await asyncio.sleep(0)

        await bench.within(
            asyncio.gather(*(produce(i) for i in range(3)), *(work(i) for i in range(5))),
            "the work of many",
            60,
        )
        assert sorted(runs) == sorted(task.uuid for task in tasks), "lost or run twice"
        assert await pair.quiet()

    @check("PAIRING-20")
    async def test_a_settle_tells_who_waits(self, bench: Bench[Components]) -> None:
        """Who waits for a result is given it when the task is settled by another process.

        If this fails, check that the atomic settle tells the waiters as `settle_many` does.
        """
        pair = await Pair.open(bench)
        other = await pair.beside()
        await pair.add(record())
        ((token, _),) = await other.claim()
        waiting = asyncio.create_task(pair.storage.wait_settled(token.uuid, None))
        await asyncio.sleep(0.01)  # not for an event: gives a waiter that polls its first look
        await other.settle(success(token, bench.now(), 42))
        got = await bench.within(waiting, "the wait for a result")
        assert got is not None
        assert got.returning == 42

    @check("PAIRING-21")
    async def test_flush_and_add_again(self, bench: Bench[Components]) -> None:
        """After both are flushed, the same uuid can be added again; it never meets its old token.

        If this fails, check that neither flush resets the epochs.
        """
        pair = await Pair.open(bench)
        task = record()
        await pair.add(task)
        ((old, _),) = await pair.claim()
        await pair.broker.flush()
        await pair.storage.flush()
        assert await pair.settle(success(old, bench.now())) == [REJECTED]
        await pair.add(replace(task, digest="new"))
        ((new, _),) = await pair.claim()
        assert new.epoch > old.epoch
        assert await pair.settle(success(old, bench.now())) == [REJECTED]
        assert await pair.settle(success(new, bench.now())) == [ACCEPTED]

    @check("PAIRING-22")
    async def test_empty_batches(self, bench: Bench[Components]) -> None:
        """Every step takes an empty batch; a claim where nothing waits gives nothing.

        If this fails, check that no statement with an empty list is sent to the store.
        """
        pair = await Pair.open(bench)
        assert await pair.delivery.add([]) == []
        assert await pair.delivery.settle([]) == []
        assert await pair.delivery.claim(0, QUEUES, owner(), 1.0) == []
        assert await pair.delivery.claim(5, [], owner(), 1.0) == []
        assert await pair.claim() == []

    @check("PAIRING-23")
    async def test_one_store_is_one_step(self, bench: Bench[Components]) -> None:
        """A broker with atomic steps uses them with a storage of its own store, and with no other.

        If this fails, check `locality` of both.
        """
        pair = await Pair.open(bench)
        same = pair.broker.locality == pair.storage.locality
        declared = pair.broker.capabilities.colocated
        assert pair.colocated is (same and declared and isinstance(pair.broker, Colocated))
        stranger = await Pair.open(bench)
        assert not Pair(bench, pair.broker, stranger.storage).colocated

    @check("PAIRING-24", needs=("priorities",))
    async def test_priorities_and_queues(self, bench: Bench[Components]) -> None:
        """A claim over several queues serves them in the order given, each by priority and first in.

        If this fails, check that the atomic claim orders as `claim` does.
        """
        pair = await Pair.open(bench)
        spots = [("mail", 5), ("default", 3), ("mail", -5), ("default", -128), ("default", 3), ("mail", 127)]
        tasks = [
            record(queue=queue, priority=priority, args=(i,)) for i, (queue, priority) in enumerate(spots)
        ]
        await pair.add(*tasks)
        claims = await pair.delivery.claim(4, ["mail", "default"], owner(), bench.long)
        assert [task.args[0] for _, task in claims] == [2, 0, 5, 3]
        claims = await pair.delivery.claim(4, ["mail"], owner(), bench.long)
        assert claims == []
        assert [task.args[0] for _, task in await pair.claim()] == [1, 4]

    @check("PAIRING-25")
    async def test_unknown_owner_of_a_settle(self, bench: Bench[Components]) -> None:
        """A settle of a delivery that never was is rejected, and adds nothing.

        If this fails, check that a settle needs a record in PROCESS.
        """
        pair = await Pair.open(bench)
        task, then = record(), record()
        await pair.add(task)
        strangers = [handle(uuid4()), handle(task.uuid)]
        verdicts = await pair.settle(*(success(each, bench.now(), then=(then,)) for each in strangers))
        assert verdicts == [REJECTED] * 2
        assert await pair.quiesce() == {task.uuid: 1}
