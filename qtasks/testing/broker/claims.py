"""Checks of `push_many` and `claim`: what is queued comes out once, in order, when it is due."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from qtasks.components.broker import Broker
from qtasks.components.primitives import DeliveryHandle, DropVerdict, Nack, PushItem, PushVerdict
from qtasks.schemas import PRIORITY_MAX, PRIORITY_MIN
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import item, owner

PUSHED, ALREADY_THERE = PushVerdict.PUSHED, PushVerdict.ALREADY_THERE
QUEUE = ["default"]


async def drain(
    broker: Broker, queues: list[str] | None = None, lease: float = 3600.0
) -> list[DeliveryHandle]:
    """Claims everything that is due."""
    mine, found = owner(), []
    while handles := await broker.claim(100, queues or QUEUE, mine, lease):
        found.extend(handles)
    return found


async def push(broker: Broker, *items: PushItem) -> None:
    """Pushes entries that must be new."""
    verdicts = await broker.push_many(items)
    assert verdicts == [PUSHED] * len(items), f"new entries were not pushed: {verdicts}"


class Claims(Suite):
    """`push_many` and `claim`."""

    @check("BROKER-01")
    async def test_a_pushed_entry_is_claimed(self, bench: Bench[Broker]) -> None:
        """A pushed entry comes out of `claim` with its uuid, queue, priority and time, the owner that
        asked, an epoch of 1 or more and as its first delivery.

        If this fails, check that `push_many` and `claim` agree on where an entry is kept.
        """
        broker, mine = await bench.open(), owner()
        pushed = item(queue="mail", priority=bench.priority(7), available_at=bench.now() - 5)
        assert await broker.push_many([pushed]) == [PUSHED]
        (got,) = await broker.claim(10, ["mail"], mine, bench.long)
        assert (got.uuid, got.queue, got.priority, got.available_at) == pushed[:4]
        assert got.owner == mine
        assert got.epoch >= 1
        assert got.deliveries == 1
        assert got.restored is False

    @check("BROKER-02", needs=("delayed",))
    async def test_push_is_idempotent_while_waiting(self, bench: Bench[Broker]) -> None:
        """An entry that waits, ready or delayed, is `already there` when it is pushed again, and stays as
        it was.

        If this fails, check that the look-up and the insert of `push_many` are one atomic step.
        """
        broker = await bench.open()
        ready, delayed = item(priority=bench.priority(3)), item(available_at=bench.now() + bench.long)
        await push(broker, ready, delayed)
        again = [ready._replace(priority=-9, queue="other"), delayed._replace(available_at=0.0)]
        assert await broker.push_many(again) == [ALREADY_THERE, ALREADY_THERE]
        (got,) = await drain(broker, ["default", "other"])
        assert (got.uuid, got.queue, got.priority) == (ready.uuid, "default", ready.priority)

    @check("BROKER-03")
    async def test_push_is_idempotent_while_leased_or_buried(self, bench: Bench[Broker]) -> None:
        """An entry that is leased or buried is `already there` when it is pushed again: it is not given
        out twice.

        If this fails, check that `push_many` looks at every state in which an entry can be.
        """
        broker, mine = await bench.open(), owner()
        items = [item(), item()]
        await push(broker, *items)
        leased, buried = await broker.claim(2, QUEUE, mine, bench.long)
        await broker.bury_many([buried], "why")
        assert await broker.push_many([item(leased.uuid), item(buried.uuid)]) == [ALREADY_THERE] * 2
        assert await drain(broker) == []

    @check("BROKER-04")
    async def test_push_verdicts_stand_in_order(self, bench: Bench[Broker]) -> None:
        """The verdicts of a batch stand in the order of its items, also with duplicates inside the batch.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        broker = await bench.open()
        a, b, c = item(), item(), item()
        await push(broker, b)
        verdicts = await broker.push_many([a, b, c, a])
        assert verdicts == [PUSHED, ALREADY_THERE, PUSHED, ALREADY_THERE]
        assert len(await drain(broker)) == 3

    @check("BROKER-05")
    async def test_empty_batches(self, bench: Bench[Broker]) -> None:
        """Every primitive takes an empty batch and gives no verdicts; a claim of none, or of no queue,
        gives none.

        If this fails, check that no statement with an empty list is sent to the store.
        """
        broker, mine = await bench.open(), owner()
        await push(broker, item())
        assert await broker.push_many([]) == []
        assert await broker.claim(0, QUEUE, mine, bench.long) == []
        assert await broker.claim(5, [], mine, bench.long) == []
        assert await broker.extend_many([], bench.long) == []
        assert await broker.ack_many([]) == []
        assert await broker.nack_many([]) == []
        assert await broker.bury_many([], "why") == []
        assert await broker.contains_many([]) == []
        await broker.discard_many([])
        assert len(await drain(broker)) == 1

    @check("BROKER-06")
    async def test_claim_takes_at_most_n(self, bench: Bench[Broker]) -> None:
        """`claim(n)` gives at most n entries, what is there if that is less, and none when nothing is due.

        If this fails, check how the limit is applied when several queues are read.
        """
        broker, mine = await bench.open(), owner()
        await push(broker, *(item(queue=queue) for queue in ["a", "b"] for _ in range(3)))
        sizes = [len(await broker.claim(4, ["a", "b"], mine, bench.long)) for _ in range(3)]
        assert sizes == [4, 2, 0]

    @check("BROKER-07")
    async def test_a_claimed_entry_is_not_claimed_again(self, bench: Bench[Broker]) -> None:
        """While its lease runs, an entry is given to nobody else.

        If this fails, check that a claim takes the entry out of the ready ones in the same atomic step.
        """
        broker = await bench.open()
        await push(broker, item())
        assert len(await broker.claim(1, QUEUE, owner(), bench.long)) == 1
        assert await broker.claim(1, QUEUE, owner(), bench.long) == []

    @check("BROKER-08", needs=("priorities",))
    async def test_priorities(self, bench: Bench[Broker]) -> None:
        """A lower priority number comes first, over the whole range from -128 to 127.

        If this fails, check that the sort key is a signed number, not a text or an unsigned byte.
        """
        broker = await bench.open()
        priorities = [0, PRIORITY_MAX, -1, PRIORITY_MIN, 1, 10, 9, -10, -9, 100]
        await push(broker, *(item(priority=priority) for priority in priorities))
        assert [got.priority for got in await drain(broker)] == sorted(priorities)

    @check("BROKER-09")
    async def test_first_in_first_out(self, bench: Bench[Broker]) -> None:
        """Entries of one priority come out in the order they went in, within a batch and across batches.

        If this fails, check that each entry gets a sequence number, and that ties are not broken by the
        uuid.
        """
        broker = await bench.open()
        items = [item(priority=priority) for priority in (0, bench.priority(5)) for _ in range(15)]
        for start in range(0, 30, 6):
            await push(broker, *items[start : start + 6])
        assert [got.uuid for got in await drain(broker)] == [each.uuid for each in items]

    @check("BROKER-10")
    async def test_queues_are_served_in_the_order_given(self, bench: Bench[Broker]) -> None:
        """The queues of a claim are served one after the other, in the order given; others are left alone.

        If this fails, check that `claim` reads the queues one by one and does not mix their priorities.
        """
        broker, mine = await bench.open(), owner()
        low, high = bench.priority(-128), bench.priority(127)
        await push(
            broker, item(queue="low", priority=low), item(queue="mail", priority=high), item(queue="x")
        )
        got = await broker.claim(10, ["mail", "low"], mine, bench.long)
        assert [each.queue for each in got] == ["mail", "low"]
        assert [each.queue for each in await drain(broker, ["x"])] == ["x"]

    @check("BROKER-35")
    async def test_names_of_queues(self, bench: Bench[Broker]) -> None:
        """Queues are disjoint, also where one name is the beginning of another, or differs in case only.

        If this fails, check how the queue's name goes into keys or WHERE clauses.
        """
        broker = await bench.open()
        names = ("a", "A", "aa", "a-", "a_", "-", "_", "0", "00", "a" * 48)
        await push(broker, *(item(queue=name) for name in names))
        assert {
            name: size.ready for name, size in (await broker.size()).items() if any(size)
        } == dict.fromkeys(names, 1)
        for name in names:
            assert [got.queue for got in await drain(broker, [name])] == [name]

    @check("BROKER-36", needs=("delayed",))
    async def test_large_numbers(self, bench: Bench[Broker]) -> None:
        """Epochs up to 2^48 and times up to the year 9999 are exact.

        If this fails, check the types of the columns, and what is packed into a score.
        """
        broker = await bench.open()
        epoch, far = 2**48, 253_402_300_799.0
        late, high = item(available_at=far), item(min_epoch=epoch)
        await push(broker, late, high)
        (got,) = await drain(broker)
        assert (got.uuid, got.epoch > epoch) == (high.uuid, True)
        assert await broker.ack_many([got._replace(epoch=got.epoch - 1)]) == [DropVerdict.LOST]
        assert await broker.ack_many([got._replace(epoch=got.epoch + 1)]) == [DropVerdict.LOST]
        assert await broker.nack_many([Nack(got, 0.0, 1)]) == [DropVerdict.DONE]
        (again,) = await drain(broker)
        assert again.epoch > got.epoch
        assert await broker.contains_many([late.uuid]) == [True]

    @check("BROKER-11")
    async def test_odd_queue_lists(self, bench: Bench[Broker]) -> None:
        """A queue that is named twice, or that nobody has pushed to, does no harm.

        If this fails, check how `claim` builds its list of queues.
        """
        broker, mine = await bench.open(), owner()
        await push(broker, item(), item())
        got = await broker.claim(10, ["default", "nobody", "default"], mine, bench.long)
        assert len({each.uuid for each in got}) == len(got) == 2

    @check("BROKER-12", needs=("delayed",))
    async def test_a_delayed_entry_waits(self, bench: Bench[Broker]) -> None:
        """An entry is not claimed before its `available_at`, and is claimed after it.

        If this fails, check that delayed entries are promoted by the clock when somebody claims.
        """
        broker = await bench.open()
        due = bench.now() + bench.short
        later = item(available_at=due)
        await push(broker, later, item(available_at=bench.now() + bench.long))
        assert await drain(broker) == [], "an entry was claimed before it was due"
        await bench.elapse(bench.short)
        got = await bench.eventually(lambda: drain(broker), "a delayed entry is due")
        assert [each.uuid for each in got] == [later.uuid]
        assert got[0].available_at == due

    @check("BROKER-13", needs=("priorities", "delayed"))
    async def test_due_entries_keep_their_priority(self, bench: Bench[Broker]) -> None:
        """Delayed entries that are due stand in line by priority like all others.

        If this fails, check that the promotion of delayed entries keeps their priority.
        """
        broker = await bench.open()
        due = bench.now() + bench.short
        await push(broker, *(item(priority=priority, available_at=due) for priority in (5, -5, 0)))
        await push(broker, item(priority=1), item(priority=-1))
        await bench.elapse(bench.short)

        async def all_ready() -> bool:
            return (await broker.size())["default"].ready == 5

        await bench.eventually(all_ready, "all entries are due")
        assert [got.priority for got in await drain(broker)] == [-5, -1, 0, 1, 5]

    @check("BROKER-14")
    async def test_epochs_rise(self, bench: Bench[Broker]) -> None:
        """Every claim of an entry has a higher epoch than all claims of it before, and no two claims of
        the app have the same one.

        If this fails, check that the epoch comes from one counter of the app, raised in the claim itself.
        """
        broker = await bench.open()
        await push(broker, *(item() for _ in range(5)))
        seen: list[int] = []
        for _ in range(4):
            handles = await drain(broker)
            assert len(handles) == 5
            assert min(got.epoch for got in handles) > max(seen, default=0)
            seen.extend(got.epoch for got in handles)
            await broker.nack_many([Nack(got) for got in handles])
        assert len(set(seen)) == 20

    @check("BROKER-15")
    async def test_min_epoch_of_a_push(self, bench: Bench[Broker]) -> None:
        """A claim of an entry that was pushed with `min_epoch` has an epoch above it.

        If this fails, check that `push_many` lifts the counter to `min_epoch`, or the claim takes the
        larger one.
        """
        broker = await bench.open()
        high = item(min_epoch=1_000_000)
        await push(broker, item(), high, item(min_epoch=5))
        by_uuid = {got.uuid: got for got in await drain(broker)}
        first = by_uuid[high.uuid]
        assert first.epoch > 1_000_000
        await broker.nack_many([Nack(first)])
        (again,) = await drain(broker)
        assert again.epoch > first.epoch

    @check("BROKER-16")
    async def test_a_uuid_that_comes_back_never_meets_an_old_token(self, bench: Bench[Broker]) -> None:
        """An entry that was acked or discarded and is pushed again gets a higher epoch; its old token is
        lost.

        If this fails, check that the epoch is not kept in the entry only, where it is forgotten with it.
        """
        broker, uuid = await bench.open(), uuid4()
        old: list[DeliveryHandle] = []
        for _ in range(3):
            await push(broker, item(uuid))
            (got,) = await drain(broker)
            assert all(got.epoch > before.epoch for before in old)
            verdicts = await broker.ack_many(old)
            assert all(verdict.value == "lost" for verdict in verdicts), "an old token acked a new entry"
            await (broker.ack_many([got]) if not old else broker.discard_many([uuid]))
            old.append(got)

    @check("BROKER-17")
    async def test_many_clients_claim_at_once(self, bench: Bench[Broker]) -> None:
        """When many claim at the same time, each entry is delivered once, and none is left.

        If this fails, check that a claim is one atomic statement or script.
        """
        broker = await bench.open()
        brokers = [broker, *[await bench.open(like=broker) for _ in range(2)]]
        items = [item() for _ in range(150)]
        await push(broker, *items)

        async def claim_all(client: Broker) -> list[DeliveryHandle]:
            mine, found = owner(), []
            while handles := await client.claim(7, QUEUE, mine, bench.long):
                found.extend(handles)
            return found

        parts = await bench.within(
            asyncio.gather(*(claim_all(brokers[i % 3]) for i in range(12))), "claims by many clients"
        )
        got = [each for part in parts for each in part]
        assert sorted(each.uuid for each in got) == sorted(each.uuid for each in items), (
            "lost or delivered twice"
        )
        assert len({each.epoch for each in got}) == len(got), "two claims have the same epoch"

    @check("BROKER-18")
    async def test_many_clients_push_the_same_at_once(self, bench: Bench[Broker]) -> None:
        """When many push the same entry at the same time, one of them has pushed it.

        If this fails, check that the look-up and the insert of `push_many` are one atomic step.
        """
        broker = await bench.open()
        brokers = [broker, await bench.open(like=broker)]
        items = [item() for _ in range(5)]
        batches = await bench.within(
            asyncio.gather(*(brokers[i % 2].push_many(items) for i in range(10))), "pushes by many clients"
        )
        for i in range(5):
            verdicts = [batch[i] for batch in batches]
            assert verdicts.count(PUSHED) == 1, f"pushed {verdicts.count(PUSHED)} times"
        assert len(await drain(broker)) == 5

    @check("BROKER-19")
    async def test_large_batches(self, bench: Bench[Broker]) -> None:
        """A batch of 2,500 items has 2,500 verdicts, pushed, asked for, claimed by the hundred and acked
        in one.

        If this fails, check the limits of the store on parameters, arguments and stack.
        """
        broker = await bench.open()
        items = [item() for _ in range(2500)]
        await push(broker, *items)
        assert await broker.contains_many([each.uuid for each in items]) == [True] * 2500
        got = await drain(broker)
        assert [each.uuid for each in got] == [each.uuid for each in items]
        assert {verdict.value for verdict in await broker.extend_many(got, bench.long)} == {"held"}
        assert {verdict.value for verdict in await broker.ack_many(got)} == {"done"}
        assert await broker.size() == {} or (await broker.size())["default"] == (0, 0, 0)
