"""Checks of what cannot start, and of lost workers: the start verdicts, the fence, the dead (R4, R6, R7)."""

from __future__ import annotations

from qtasks.components.primitives import HoldVerdict, SettleVerdict, Update
from qtasks.config import QueueConfig
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.pairing.pair import MAX_DELIVERIES, Components, Pair
from qtasks.testing.samples import cancel, error, handle, record, release, retry, success
from qtasks.testing.storage.adding import differences

ACCEPTED, MINE, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.ALREADY_MINE, SettleVerdict.REJECTED


class Verdicts(Suite):
    """What is claimed and not run, and who comes too late."""

    @check("PAIRING-07")
    async def test_a_rejected_settle_changes_nothing(self, bench: Bench[Components]) -> None:
        """A worker that was paused beyond its lease has every settle rejected and changes nothing: not the
        record, not the entry that another one holds, no `then` (R6).

        If this fails, check that neither ack nor nack nor push follows a rejected settle.
        """
        pair = await Pair.open(bench)
        await pair.add(record())
        ((old, _),) = await pair.claim(lease=bench.short)
        await bench.elapse(bench.short)

        async def taken_over() -> list[object]:
            await pair.restore()
            return list(await pair.claim())

        await bench.eventually(taken_over, "a lost task is claimed again")
        before = await pair.get(old.uuid)
        new = handle(old.uuid, before.epoch, before.owner, before.deliveries)
        then = record()
        for outcome in (success, error, cancel, retry, release):
            settle = outcome(old, bench.now())
            settle.then = (then,)
            assert await pair.settle(settle) == [REJECTED], outcome.__name__
        assert differences(await pair.get(old.uuid), before) == {}
        assert await pair.storage.get_many([then.uuid]) == [None]
        assert not await pair.known(then.uuid)
        assert await pair.broker.extend_many([new], bench.long) == [HoldVerdict.HELD]
        assert await pair.settle(success(new, bench.now())) == [ACCEPTED]

    @check("PAIRING-08")
    async def test_a_terminal_task_is_not_run(self, bench: Bench[Components]) -> None:
        """A claim of a task that is terminal already acks it and does not give it out (R7).

        If this fails, check what is done with the start verdict `terminal`.
        """
        pair = await Pair.open(bench)
        cancelled, good = record(), record()
        await pair.add(cancelled, good)
        await pair.storage.cancel_many([cancelled.uuid], "", expires_at=bench.now() + 100)
        assert [token.uuid for token, _ in await pair.claim()] == [good.uuid]
        assert not await pair.known(cancelled.uuid)

    @check("PAIRING-09")
    async def test_an_entry_without_a_record(self, bench: Bench[Components]) -> None:
        """An entry whose record is missing is not given out, keeps waiting with its delivery returned,
        and is buried when `missing_grace` is over since it was due, however often it was looked at.

        If this fails, check that a nack leaves the entry's `available_at` as it is.
        """
        pair = await Pair.open(
            bench, QueueConfig(missing_grace=10.0 if bench.capabilities.virtual_clock else 0.5)
        )
        due = bench.now()
        task = record(now=due)
        await pair.add(task)
        await pair.storage.flush()
        assert await pair.claim() == []
        assert await pair.known(task.uuid), "it may still be on its way into the storage"
        assert await pair.broker.buried(5) == []

        async def buried() -> bool:
            for _ in range(30):
                await bench.elapse(1.0 if bench.capabilities.virtual_clock else 0.05)
                assert await pair.claim() == []
                if found := await pair.broker.buried(5):
                    assert [each.uuid for each in found] == [task.uuid]
                    assert bench.now() >= due + pair.broker.config.missing_grace, "buried too early"
                    return True
            return False

        await bench.eventually(buried, "an entry without a record is buried")

    @check("PAIRING-10")
    async def test_a_conflict(self, bench: Bench[Components]) -> None:
        """When the stored epoch is above that of the claim (the broker forgot its counter), the task is
        not given out, and the next claim has a higher epoch, its delivery returned.

        If this fails, check that the start verdict `conflict` becomes a nack with `min_epoch`.
        """
        pair = await Pair.open(bench)
        task = record()
        await pair.add(task)
        ahead = handle(task.uuid, epoch=100_000)
        await pair.storage.start_many([ahead])
        await pair.storage.settle_many([release(ahead, bench.now())])
        assert await pair.claim() == []
        ((token, _),) = await bench.eventually(pair.claim, "the task is claimed above the stored epoch")
        assert (token.uuid, token.deliveries) == (task.uuid, 1)
        assert token.epoch > 100_000

    @check("PAIRING-11")
    async def test_not_due(self, bench: Bench[Components]) -> None:
        """When the record is due later than its entry, the task is not given out before, its delivery
        returned.

        If this fails, check that the start verdict `not due` becomes a nack with that delay.
        """
        pair = await Pair.open(bench)
        task = record()
        await pair.add(task)
        later = Update(task.uuid, {"available_at": bench.now() + bench.short})
        assert await pair.storage.update_many([later]) == [True]
        assert await pair.claim() == [], "run before it was due"
        assert (await pair.get(task.uuid)).status == "new"
        await bench.elapse(bench.short)
        ((token, _),) = await bench.eventually(pair.claim, "the task is due")
        assert token.deliveries == 1, "a delivery that ran nothing was counted"

    @check("PAIRING-15")
    async def test_a_lost_worker(self, bench: Bench[Components]) -> None:
        """A task of a lost worker runs again: restored, its second delivery, under a higher epoch, taken
        over in the storage.

        If this fails, check that PROCESS under a lower epoch is taken over by the start.
        """
        pair = await Pair.open(bench)
        await pair.add(record())
        ((old, _),) = await pair.claim(lease=bench.short)
        await bench.elapse(bench.short)

        async def again() -> list[object]:
            await pair.restore()
            return list(await pair.claim())

        await bench.eventually(again, "the task of a lost worker is claimed again")
        task = await pair.get(old.uuid)
        assert task.status == "process"
        assert task.epoch > old.epoch
        assert task.deliveries == 2

    @check("PAIRING-16")
    async def test_used_up_deliveries(self, bench: Bench[Components]) -> None:
        """A task whose workers are lost every time ends dead in ERROR, after `max_deliveries` deliveries
        (I5).

        If this fails, check that the sweep counts deliveries, and that what is buried is written off.
        """
        pair = await Pair.open(bench)
        task = record()
        await pair.add(task)
        for delivery in range(1, MAX_DELIVERIES + 1):

            async def lost() -> bool:
                await pair.restore()
                return bool(await pair.claim(lease=bench.short))

            await bench.eventually(lost, f"delivery {delivery}")
            assert (await pair.get(task.uuid)).deliveries == delivery
            await bench.elapse(bench.short)

        async def dead() -> bool:
            await pair.restore()
            return (await pair.get(task.uuid)).dead

        await bench.eventually(dead, "the task is dead")
        got = await pair.get(task.uuid)
        assert got.status == "error"
        assert got.traceback
        assert await pair.quiet()

    @check("PAIRING-19")
    async def test_a_claim_of_all_kinds(self, bench: Bench[Components]) -> None:
        """In one claim, what can start is given out in order and what cannot is dealt with and left out.

        If this fails, check that verdicts are matched with handles by place.
        """
        pair = await Pair.open(bench)
        tasks = [record(args=(i,)) for i in range(5)]
        await pair.add(*tasks)
        now = bench.now()
        await pair.storage.cancel_many([tasks[1].uuid], "", expires_at=now + 100)
        await pair.storage.update_many([Update(tasks[3].uuid, {"available_at": now + bench.long})])
        claims = await pair.claim()
        assert [task.args for _, task in claims] == [(0,), (2,), (4,)]
        assert await pair.broker.contains_many([tasks[1].uuid, tasks[3].uuid]) == [False, True]
        assert await pair.settle(*(success(token, now) for token, _ in claims)) == [ACCEPTED] * 3
