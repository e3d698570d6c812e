"""Checks of `ack_many`, `nack_many`, `bury_many` and what asks for the state of entries."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from qtasks.components.broker import Broker
from qtasks.components.primitives import (
    Buried,
    DropVerdict,
    Nack,
    PushVerdict,
    QueueSize,
    SweepReport,
)
from qtasks.testing.bench import Bench, KitFailure
from qtasks.testing.broker.claims import QUEUE, drain, push
from qtasks.testing.broker.leases import claimed
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import HOSTILE, RELATED_APPS, item, owner

DONE, LOST = DropVerdict.DONE, DropVerdict.LOST


async def size_of(broker: Broker, queue: str = "default") -> QueueSize:
    """The size of a queue; a queue that is not named is empty."""
    return (await broker.size()).get(queue, QueueSize())


class Returns(Suite):
    """`ack_many`, `nack_many`, `bury_many`, `discard_many`, `contains_many`, `size`, `audit`, `flush`."""

    @check("BROKER-40")
    async def test_ack_forgets(self, bench: Bench[Broker]) -> None:
        """An acked entry is gone: not known, not counted, not swept, not claimed; a second ack is `lost`.

        If this fails, check that `ack_many` removes the entry from every index.
        """
        broker = await bench.open()
        (got,) = await claimed(bench, broker, lease=bench.short)
        assert await broker.ack_many([got]) == [DONE]
        assert await broker.contains_many([got.uuid]) == [False]
        assert await size_of(broker) == QueueSize()
        assert await broker.ack_many([got]) == [LOST]
        await bench.elapse(bench.short)
        assert await broker.sweep(10, 1) == SweepReport([], [])
        assert await drain(broker) == []

    @check("BROKER-41")
    async def test_ack_verdicts(self, bench: Bench[Broker]) -> None:
        """The verdicts of an ack stand in the order asked, also with strangers and duplicates in the
        batch.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        broker = await bench.open()
        a, b, c = await claimed(bench, broker, 3)
        asked = [c, b._replace(epoch=b.epoch + 9), a, a, c._replace(uuid=uuid4())]
        assert await broker.ack_many(asked) == [DONE, LOST, DONE, LOST, LOST]
        assert await broker.ack_many([b]) == [DONE]

    @check("BROKER-42", needs=("priorities",))
    async def test_nack_puts_back(self, bench: Bench[Broker]) -> None:
        """A nack makes the entry ready again in its queue, with its original priority, for anybody; the
        token is lost and `restored` is not set.

        If this fails, check what `nack_many` writes into the entry.
        """
        broker = await bench.open()
        await push(broker, item(priority=9))
        (got,) = await drain(broker)
        assert await broker.nack_many([Nack(got, 0.0, 1)]) == [DONE]
        assert await broker.ack_many([got]) == [LOST]
        await push(broker, item(priority=20), item(priority=-20))
        handles = await drain(broker)
        assert [each.priority for each in handles] == [-20, 9, 20]
        assert handles[1].uuid == got.uuid
        assert handles[1].restored is False

    @check("BROKER-43")
    async def test_nack_sets_the_deliveries(self, bench: Bench[Broker]) -> None:
        """The next claim counts on from the `deliveries` of the nack: the same number counts the
        delivery, one less returns it, 0 begins a new attempt.

        If this fails, check that `nack_many` writes `deliveries`, and `claim` adds one to it.
        """
        broker = await bench.open()
        await push(broker, item())
        (got,) = await drain(broker)
        for back, then in ((1, 2), (2, 3), (2, 3), (0, 1)):
            await broker.nack_many([Nack(got, 0.0, back)])
            (got,) = await drain(broker)
            assert got.deliveries == then, f"after nack(deliveries={back})"

    @check("BROKER-44")
    async def test_nack_with_a_delay(self, bench: Bench[Broker]) -> None:
        """An entry that is put back with a delay is not claimed before it is over, and is claimed then; its
        `available_at` is what it was pushed with, however often it was put back.

        If this fails, check that the delay counts from now, and is kept apart from `available_at`.
        """
        broker = await bench.open()
        (got,) = await claimed(bench, broker)
        assert await broker.nack_many([Nack(got, bench.short)]) == [DONE]
        assert await drain(broker) == [], "claimed before the delay was over"
        assert await size_of(broker) == QueueSize(delayed=1)
        await bench.elapse(bench.short)
        (again,) = await bench.eventually(lambda: drain(broker), "the delay is over")
        assert (again.uuid, again.available_at) == (got.uuid, got.available_at)

    @check("BROKER-45")
    async def test_nack_verdicts(self, bench: Bench[Broker]) -> None:
        """The verdicts of a nack stand in the order asked, also with strangers and duplicates in the
        batch.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        broker = await bench.open()
        a, b, c = await claimed(bench, broker, 3)
        asked = [Nack(each) for each in (b, a._replace(owner=owner()), c, c, b._replace(uuid=uuid4()))]
        assert await broker.nack_many(asked) == [DONE, LOST, DONE, LOST, LOST]
        assert {got.uuid for got in await drain(broker)} == {b.uuid, c.uuid}

    @check("BROKER-46")
    async def test_min_epoch_of_a_nack(self, bench: Bench[Broker]) -> None:
        """The claim after a nack with `min_epoch` has an epoch above it.

        If this fails, check that `nack_many` lifts the counter to `min_epoch`, or the claim takes the
        larger one.
        """
        broker = await bench.open()
        (got,) = await claimed(bench, broker)
        await broker.nack_many([Nack(got, min_epoch=got.epoch + 1000)])
        (again,) = await drain(broker)
        assert again.epoch > got.epoch + 1000

    @check("BROKER-47")
    async def test_bury(self, bench: Bench[Broker]) -> None:
        """A buried entry is out of delivery: not claimed, not swept, its token lost; it stays known, with
        the epoch of its last token and the reason as it was given.

        If this fails, check that `bury_many` takes the entry out of the leases and keeps reason and
        epoch.
        """
        broker = await bench.open()
        a, b = await claimed(bench, broker, 2, bench.short)
        assert await broker.bury_many([a._replace(owner=owner()), a], "why") == [LOST, DONE]
        assert await broker.buried(10) == [Buried(a.uuid, a.epoch, "why")]
        assert await broker.contains_many([a.uuid]) == [True]
        assert await broker.bury_many([a], "again") == [LOST]
        assert await broker.ack_many([a]) == [LOST]
        assert await broker.nack_many([Nack(a)]) == [LOST]
        await broker.ack_many([b])
        await bench.elapse(bench.short)
        assert await broker.sweep(10, 1) == SweepReport([], [])
        assert await drain(broker) == []
        assert await size_of(broker) == QueueSize()

    @check("BROKER-48")
    async def test_buried_has_a_limit(self, bench: Bench[Broker]) -> None:
        """`buried(limit)` gives at most `limit` burials, and the others once these are discarded.

        If this fails, check that `discard_many` takes entries out of the buried ones.
        """
        broker = await bench.open()
        handles = await claimed(bench, broker, 5)
        await broker.bury_many(handles, "why")
        found: list[UUID] = []
        for most in (2, 2, 1, 0):
            page = await broker.buried(2)
            assert len(page) == most
            found.extend(each.uuid for each in page)
            await broker.discard_many([each.uuid for each in page])
        assert set(found) == {each.uuid for each in handles}
        assert await broker.contains_many(found) == [False] * 5

    @check("BROKER-49", needs=("delayed",))
    async def test_discard(self, bench: Bench[Broker]) -> None:
        """`discard_many` forgets entries in any state, a leased one with its token, and does not mind
        what it does not know.

        If this fails, check that `discard_many` removes the entry from every index.
        """
        broker = await bench.open()
        leased, buried = await claimed(bench, broker, 2)
        await broker.bury_many([buried], "why")
        ready, delayed = item(), item(available_at=bench.now() + bench.short)
        await push(broker, ready, delayed)
        uuids = [leased.uuid, buried.uuid, ready.uuid, delayed.uuid, uuid4()]
        assert await broker.contains_many(uuids) == [True, True, True, True, False]
        await broker.discard_many(uuids)
        await broker.discard_many(uuids)
        assert await broker.contains_many(uuids) == [False] * 5
        assert await broker.ack_many([leased]) == [LOST]
        assert await broker.buried(10) == []
        assert await size_of(broker) == QueueSize()
        await bench.elapse(bench.short)
        assert await drain(broker) == []

    @check("BROKER-50", needs=("delayed",))
    async def test_size(self, bench: Bench[Broker]) -> None:
        """`size` counts the entries of each queue by state; a delayed entry that is due counts as ready.

        If this fails, check that every primitive moves an entry from one index to the other in one step.
        """
        broker = await bench.open()
        due = bench.now() + bench.short
        await push(
            broker, *(item() for _ in range(4)), item(available_at=due), item(queue="b", available_at=due)
        )
        got, dead, put_back = await broker.claim(3, QUEUE, owner(), bench.long)
        await broker.bury_many([dead], "why")
        assert await size_of(broker) == QueueSize(ready=1, delayed=1, leased=2)
        await broker.nack_many([Nack(put_back)])
        assert await size_of(broker) == QueueSize(ready=2, delayed=1, leased=1)
        await broker.ack_many([got])
        assert await size_of(broker, "b") == QueueSize(delayed=1)
        await bench.elapse(bench.short)

        async def promoted() -> bool:
            await broker.claim(0, ["default", "b"], owner(), bench.long)
            return await size_of(broker) == (3, 0, 0) and await size_of(broker, "b") == (1, 0, 0)

        await bench.eventually(promoted, "entries that are due count as ready")

    @check("BROKER-51", needs=("delayed",))
    async def test_audit_of_a_sound_store(self, bench: Bench[Broker]) -> None:
        """An audit of a store in which nothing is wrong repairs nothing and disturbs nothing.

        If this fails, check which indexes the audit knows.
        """
        broker = await bench.open()
        leased, buried = await claimed(bench, broker, 2)
        await broker.bury_many([buried], "why")
        await push(broker, item(), item(available_at=bench.now() + bench.long))
        for _ in range(3):
            assert await broker.audit(100) == []
        assert await size_of(broker) == QueueSize(1, 1, 1)
        assert await broker.ack_many([leased]) == [DONE]

    @check("BROKER-52")
    async def test_contains_in_order(self, bench: Bench[Broker]) -> None:
        """`contains_many` answers in the order asked, also for duplicates and strangers.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        broker = await bench.open()
        items = [item() for _ in range(5)]
        await push(broker, *items)
        asked = [items[3].uuid, uuid4(), items[0].uuid, items[3].uuid, uuid4()]
        assert await broker.contains_many(asked) == [True, False, True, True, False]

    @check("BROKER-53")
    async def test_wait_for_work_ends(self, bench: Bench[Broker]) -> None:
        """`wait_for_work` returns after its timeout when nothing comes, and soon when something is there.

        If this fails, check that the wait is bounded, and looks before it sleeps.
        """
        broker = await bench.open()
        await bench.within(broker.wait_for_work(QUEUE, 0.0), "a wait with timeout 0")
        await bench.within(broker.wait_for_work(QUEUE, 0.05), "a wait with nothing to come")
        await push(broker, item())
        await bench.within(broker.wait_for_work(QUEUE, 3600.0), "a wait with work there")
        assert len(await drain(broker)) == 1

    @check("BROKER-54", needs=("notifications",))
    async def test_wait_for_work_is_told(self, bench: Bench[Broker]) -> None:
        """Who waits for work is told when somebody pushes or puts back, through any client of the store.

        If this fails, check that a push and a nack publish, and that the waiter subscribes before it looks.
        """
        broker = await bench.open()
        other = await bench.open(like=broker)
        for _ in range(3):
            waiting = asyncio.create_task(broker.wait_for_work(QUEUE, 3600.0))
            await asyncio.sleep(0)
            await push(other, item())
            await bench.within(waiting, "a wait while somebody pushes")
            (got,) = await bench.eventually(lambda: drain(broker), "the work is there")
            waiting = asyncio.create_task(broker.wait_for_work(QUEUE, 3600.0))
            await other.nack_many([Nack(got)])
            await bench.within(waiting, "a wait while somebody puts back")
            await broker.ack_many(await drain(broker))

    @check("BROKER-55")
    async def test_flush(self, bench: Bench[Broker]) -> None:
        """A flush forgets all entries in all states; the epoch counter goes on, so an old token stays
        lost when its uuid is pushed again.

        If this fails, check that `flush` leaves the epoch counter alone.
        """
        broker = await bench.open()
        leased, buried, put_back = await claimed(bench, broker, 3)
        await broker.bury_many([buried], "why")
        await broker.nack_many([Nack(put_back, bench.short)])
        await push(broker, item(queue="b"))
        await broker.flush()
        uuids = [leased.uuid, buried.uuid, put_back.uuid]
        assert await broker.contains_many(uuids) == [False] * 3
        assert await broker.buried(10) == []
        assert all(size == (0, 0, 0) for size in (await broker.size()).values())
        assert await drain(broker, ["default", "b"]) == []
        assert await broker.push_many([item(leased.uuid)]) == [PushVerdict.PUSHED]
        (again,) = await drain(broker)
        assert again.epoch > max(leased.epoch, buried.epoch, put_back.epoch), "the flush reset the epochs"
        assert again.deliveries == 1
        assert await broker.ack_many([leased]) == [LOST]

    @check("BROKER-56")
    async def test_apps_do_not_see_each_other(self, bench: Bench[Broker]) -> None:
        """Applications in one store are disjoint, also where one name is the beginning of another, or
        differs in case only: claim, contains, size, sweep, buried, discard, and flush (I7).

        If this fails, check how the app's name goes into keys or WHERE clauses, and how `flush` finds its
        own.
        """
        first = await bench.open(app=RELATED_APPS[0])
        apps = [first, *[await bench.open(like=first, app=app) for app in RELATED_APPS[1:]]]
        uuid = uuid4()  # the same in every app
        for broker in apps:
            await push(broker, item(uuid), item())
        handles = [(await broker.claim(1, QUEUE, owner(), bench.short))[0] for broker in apps]
        assert [got.uuid for got in handles] == [uuid] * len(apps)
        stranger = apps[1]
        assert await stranger.ack_many([handles[0]._replace(epoch=10**6)]) == [LOST]
        await apps[0].bury_many([handles[0]], "why")
        assert [len(await broker.buried(10)) for broker in apps] == [1] + [0] * (len(apps) - 1)
        await apps[0].flush()
        for broker, got in zip(apps[1:], handles[1:], strict=True):
            assert await size_of(broker) == QueueSize(1, 0, 1), "another app's entries were touched"
            assert await broker.ack_many([got]) == [DONE]
        await apps[2].discard_many([uuid])
        assert await size_of(apps[0]) == QueueSize()

    @check("BROKER-57")
    async def test_hostile_reasons(self, bench: Bench[Broker]) -> None:
        """A reason is data: whatever text is in it comes back as it was.

        If this fails, check how text is quoted, and that NUL does not end it.
        """
        broker = await bench.open()
        handles = await claimed(bench, broker, len(HOSTILE))
        for got, reason in zip(handles, HOSTILE, strict=True):
            assert await broker.bury_many([got], reason) == [DONE]
        reasons = {each.uuid: each.reason for each in await broker.buried(100)}
        assert [reasons[got.uuid] for got in handles] == list(HOSTILE)

    @check("BROKER-58")
    async def test_hostile_owners(self, bench: Bench[Broker]) -> None:
        """An owner is compared as text, exactly: no pattern, no case folding, no trimming.

        If this fails, check the comparison of tokens, and the collation of the column.
        """
        broker = await bench.open()
        await push(broker, item())
        for name in HOSTILE:
            (got,) = await broker.claim(1, QUEUE, name, bench.long)
            assert got.owner == name
            others = [got._replace(owner=other) for other in HOSTILE if other != name]
            verdicts = await broker.ack_many(others)
            if DONE in verdicts:
                raise KitFailure(f"owner {others[verdicts.index(DONE)].owner!r} was taken for {name!r}")
            assert await broker.nack_many([Nack(got)]) == [DONE]
