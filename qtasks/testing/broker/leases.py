"""Checks of leases: extension, the sweep, and fencing against an owner that was away (R3, R8)."""

from __future__ import annotations

import asyncio
import threading

from qtasks.components.broker import Broker
from qtasks.components.primitives import (
    DeliveryHandle,
    DropVerdict,
    HoldVerdict,
    Nack,
    SweepReport,
)
from qtasks.testing.bench import EVENT_TIMEOUT, Bench
from qtasks.testing.broker.claims import QUEUE, drain, push
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import item, owner

HELD, GONE = HoldVerdict.HELD, HoldVerdict.LOST
DONE, LOST = DropVerdict.DONE, DropVerdict.LOST


async def claimed(
    bench: Bench[Broker], broker: Broker, n: int = 1, lease: float | None = None
) -> list[DeliveryHandle]:
    """Pushes and claims n entries."""
    await push(broker, *(item() for _ in range(n)))
    return await broker.claim(n, QUEUE, owner(), bench.long if lease is None else lease)


async def swept(
    bench: Bench[Broker], broker: Broker, limit: int = 100, max_deliveries: int = 5
) -> SweepReport:
    """Sweeps until something is found, where the clock is not ours."""

    async def look() -> SweepReport | None:
        report = await broker.sweep(limit, max_deliveries)
        return report if report.restored or report.buried else None

    found = await bench.eventually(look, "a sweep finds the leases that have run out")
    assert found is not None
    return found


async def lose_to_sweep(bench: Bench[Broker], broker: Broker) -> DeliveryHandle:
    """A delivery whose lease has run out and was swept."""
    (old,) = await claimed(bench, broker, lease=bench.short)
    await bench.elapse(bench.short)
    report = await swept(bench, broker)
    assert report.restored == [old.uuid]
    return old


class Leases(Suite):
    """`extend_many`, `sweep`, `lease_keeper` and the token."""

    @check("BROKER-20", needs=("delayed",))
    async def test_a_running_lease_is_not_swept(self, bench: Bench[Broker]) -> None:
        """A sweep leaves alone what is ready, delayed, buried, or leased for longer than now.

        If this fails, check the comparison of the lease's end with the clock, and its unit.
        """
        broker = await bench.open()
        _, dead = await claimed(bench, broker, 2)
        await broker.bury_many([dead], "why")
        await push(broker, item(), item(available_at=bench.now() + bench.long))
        assert await broker.sweep(100, 1) == SweepReport([], [])
        assert len(await drain(broker)) == 1, "a task whose worker lives was restored"

    @check("BROKER-21")
    async def test_an_expired_lease_is_restored(self, bench: Bench[Broker]) -> None:
        """When a lease has run out, a sweep makes the entry ready again: marked restored, its delivery
        counted, with a higher epoch, in its queue, with its priority.

        If this fails, check that a claim writes the lease and that the sweep compares it with the clock.
        """
        broker = await bench.open()
        await push(broker, item(priority=bench.priority(4)), item(priority=bench.priority(9)))
        first, other = await broker.claim(2, QUEUE, owner(), bench.short)
        await broker.ack_many([first])
        await bench.elapse(bench.short)
        report = await swept(bench, broker)
        assert report == SweepReport([other.uuid], [])
        await push(broker, item(priority=bench.priority(20)), item(priority=bench.priority(-20)))
        again = {got.uuid: got for got in await drain(broker)}[other.uuid]
        assert again.restored is True
        assert again.deliveries == 2
        assert again.epoch > other.epoch
        assert (again.queue, again.priority, again.available_at) == (
            other.queue,
            bench.priority(9),
            other.available_at,
        )

    @check("BROKER-22", needs=("priorities",))
    async def test_a_restored_entry_keeps_its_priority(self, bench: Bench[Broker]) -> None:
        """A restored entry stands in line with its priority.

        If this fails, check what the sweep uses as sort key.
        """
        broker = await bench.open()
        await push(broker, item(priority=9))
        await broker.claim(1, QUEUE, owner(), bench.short)
        await bench.elapse(bench.short)
        await swept(bench, broker)
        await push(broker, item(priority=20), item(priority=-20))
        assert [got.priority for got in await drain(broker)] == [-20, 9, 20]

    @check("BROKER-23")
    async def test_restored_is_said_once(self, bench: Bench[Broker]) -> None:
        """The mark `restored` is on the first claim after the sweep only.

        If this fails, check that a claim clears the mark when it hands it out.
        """
        broker = await bench.open()
        await lose_to_sweep(bench, broker)
        (second,) = await drain(broker)
        assert second.restored is True
        await broker.nack_many([Nack(second, 0.0, second.deliveries)])
        (third,) = await drain(broker)
        assert third.restored is False

    @check("BROKER-24")
    async def test_extension(self, bench: Bench[Broker]) -> None:
        """An extended lease outlives its first end, and ends at the new one.

        If this fails, check that `extend_many` sets the end to now + lease, and the index of leases with
        it.
        """
        broker = await bench.open()
        kept, lost = await claimed(bench, broker, 2, bench.short)
        assert await broker.extend_many([kept], bench.long) == [HELD]
        await bench.elapse(bench.short)
        report = await swept(bench, broker)
        assert report.restored == [lost.uuid], "a lease that was extended was swept"
        assert await broker.extend_many([kept], bench.short) == [HELD]
        await bench.elapse(bench.short)
        assert (await swept(bench, broker)).restored == [kept.uuid]

    @check("BROKER-25")
    async def test_extension_verdicts(self, bench: Bench[Broker]) -> None:
        """`extend_many` says `held` for the present token and `lost` for every other one, in the order
        asked.

        If this fails, check that both epoch and owner are compared (R3).
        """
        broker = await bench.open()
        a, b, c = await claimed(bench, broker, 3)
        await broker.ack_many([b])
        asked = [
            a._replace(epoch=a.epoch + 1),
            c,
            b,
            a._replace(owner=owner()),
            a,
            a._replace(epoch=a.epoch - 1),
        ]
        assert await broker.extend_many(asked, bench.long) == [GONE, HELD, GONE, GONE, HELD, GONE]

    @check("BROKER-26")
    async def test_an_extension_by_a_stranger_changes_nothing(self, bench: Bench[Broker]) -> None:
        """What has lost the token cannot lengthen the lease of the one who has it.

        If this fails, check that the comparison and the change of `extend_many` are one step (R3).
        """
        broker = await bench.open()
        (mine,) = await claimed(bench, broker, lease=bench.short)
        assert await broker.extend_many([mine._replace(owner=owner())], bench.long) == [GONE]
        await bench.elapse(bench.short)
        assert (await swept(bench, broker)).restored == [mine.uuid]

    @check("BROKER-27")
    async def test_extend_and_sweep_agree(self, bench: Bench[Broker]) -> None:
        """After a lease has run out, either the extension comes first and the sweep leaves the entry
        alone, or the sweep comes first and the extension is lost; never both (R8).

        If this fails, check that the sweep is one atomic compare-and-set.
        """
        broker = await bench.open()
        other = await bench.open(like=broker)
        handles = await claimed(bench, broker, 40, bench.short)
        await bench.elapse(bench.short)
        halves = [handles[0::2], handles[1::2]]
        held_first, report, held_second = await asyncio.gather(
            broker.extend_many(halves[0], bench.long),
            other.sweep(100, 5),
            broker.extend_many(halves[1], bench.long),
        )
        held = [
            handle.uuid
            for handle, verdict in zip(halves[0] + halves[1], held_first + held_second, strict=True)
            if verdict is HELD
        ]
        assert not set(held) & set(report.restored), "held and restored at the same time"
        assert len(held) + len(report.restored) == 40, "neither held nor restored"

    @check("BROKER-28")
    async def test_the_sweep_has_a_limit(self, bench: Bench[Broker]) -> None:
        """A sweep deals with at most `limit` entries; the next one goes on with the rest.

        If this fails, check that the limit bounds what is changed, not only what is reported.
        """
        broker = await bench.open()
        handles = await claimed(bench, broker, 7, bench.short)
        await bench.elapse(bench.short)
        found: list[object] = []
        for most in (3, 3, 1):
            report = await swept(bench, broker, limit=3)
            assert len(report.restored) == most
            found.extend(report.restored)
        assert sorted(found, key=str) == sorted((each.uuid for each in handles), key=str)
        assert await broker.sweep(3, 5) == SweepReport([], [])

    @check("BROKER-29")
    async def test_many_sweep_at_once(self, bench: Bench[Broker]) -> None:
        """When many sweep at the same time, each entry is restored once; there is no lock to hold (R8).

        If this fails, check that finding and changing are one atomic step.
        """
        broker = await bench.open()
        other = await bench.open(like=broker)
        handles = await claimed(bench, broker, 30, bench.short)
        await bench.elapse(bench.short)
        reports = await bench.within(
            asyncio.gather(*((broker, other)[i % 2].sweep(10, 5) for i in range(8))), "sweeps by many clients"
        )
        found = [uuid for report in reports for uuid in report.restored]
        assert len(set(found)) == len(found), "restored twice"
        assert len(found) == len(handles)

    @check("BROKER-30")
    async def test_used_up_deliveries_bury(self, bench: Bench[Broker]) -> None:
        """A sweep buries an entry whose deliveries are used up: reported with the epoch of the lost token,
        kept in `buried` with a reason, not claimable.

        If this fails, check that the sweep compares the entry's deliveries with `max_deliveries`.
        """
        broker = await bench.open()
        await push(broker, item())
        for delivery in (1, 2):
            (got,) = await broker.claim(1, QUEUE, owner(), bench.short)
            assert got.deliveries == delivery
            await bench.elapse(bench.short)
            report = await swept(bench, broker, max_deliveries=2)
            assert bool(report.buried) is (delivery == 2)
        assert report.restored == []
        (buried,) = report.buried
        assert (buried.uuid, buried.epoch) == (got.uuid, got.epoch)
        assert buried.reason, "a burial has a reason"
        assert await broker.buried(10) == report.buried
        assert await drain(broker) == []
        assert await broker.sweep(10, 2) == SweepReport([], [])

    @check("BROKER-31")
    async def test_a_swept_token_is_lost(self, bench: Bench[Broker]) -> None:
        """An owner that was paused beyond its lease can do nothing with the entry any more: ack, nack,
        bury and extend are `lost`, and change nothing (R3).

        If this fails, check that the sweep takes the token away, and that all four compare it.
        """
        broker = await bench.open()
        old = await lose_to_sweep(bench, broker)
        assert await broker.ack_many([old]) == [LOST]
        assert await broker.nack_many([Nack(old, bench.long)]) == [LOST]
        assert await broker.bury_many([old], "why") == [LOST]
        assert await broker.extend_many([old], bench.long) == [GONE]
        (again,) = await drain(broker)
        assert (again.uuid, again.deliveries, again.restored) == (old.uuid, 2, True)

    @check("BROKER-32")
    async def test_a_superseded_owner_touches_nothing(self, bench: Bench[Broker]) -> None:
        """An owner that was paused while another one claimed the entry cannot take it from that one (R3).

        If this fails, check that ack, nack, bury and extend compare the whole token.
        """
        broker = await bench.open()
        old = await lose_to_sweep(bench, broker)
        (new,) = await drain(broker)
        for stranger in (old, new._replace(owner=old.owner), new._replace(epoch=old.epoch)):
            assert await broker.ack_many([stranger]) == [LOST], "somebody else's task was acked"
            assert await broker.nack_many([Nack(stranger)]) == [LOST], "somebody else's task was put back"
            assert await broker.bury_many([stranger], "why") == [LOST], "somebody else's task was buried"
            assert await broker.extend_many([stranger], 0.0) == [GONE], "somebody else's lease was changed"
        assert await drain(broker) == []
        assert await broker.ack_many([new]) == [DONE]

    @check("BROKER-33")
    async def test_the_same_owner_again(self, bench: Bench[Broker]) -> None:
        """When the same owner claims an entry again, its first delivery is as lost as a stranger's.

        If this fails, check that the epoch is compared, not the owner alone.
        """
        broker, mine = await bench.open(), owner()
        await push(broker, item())
        (first,) = await broker.claim(1, QUEUE, mine, bench.short)
        await bench.elapse(bench.short)
        await swept(bench, broker)
        (second,) = await broker.claim(1, QUEUE, mine, bench.long)
        assert await broker.ack_many([first]) == [LOST]
        assert await broker.ack_many([second]) == [DONE]

    @check("BROKER-34")
    async def test_the_lease_keeper(self, bench: Bench[Broker]) -> None:
        """A lease keeper renews from a thread of its own while the event loop stands still, and gives the
        verdicts of `extend_many`.

        If this fails, check that the keeper has its own connection and never waits for the event loop.
        """
        broker = await bench.open()
        kept, acked, lost = await claimed(bench, broker, 3, bench.short)
        await broker.ack_many([acked])
        keeper = broker.lease_keeper()
        verdicts: list[HoldVerdict] = []

        def keep() -> None:
            try:
                verdicts.extend(keeper.extend([acked, kept, lost._replace(owner=owner())], bench.long))
                verdicts.extend(keeper.extend([], bench.long))
            finally:
                keeper.close()

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        thread.join(EVENT_TIMEOUT)  # the loop is blocked on purpose
        assert not thread.is_alive(), "the keeper waits for the event loop"
        assert verdicts == [GONE, HELD, GONE]
        await bench.elapse(bench.short)
        assert (await swept(bench, broker)).restored == [lost.uuid]
