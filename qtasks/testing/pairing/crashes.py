"""Checks of crash points: the process dies at each place of each step, the next one finishes the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from qtasks.components.primitives import Added, SettleVerdict
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.pairing.pair import MAX_DELIVERIES, Components, Pair, Seam
from qtasks.testing.samples import error, record, release, retry, success
from qtasks.testing.storage.adding import differences

ADD = ("storage.add_many", "broker.push_many", "steps.add_and_push")
CLAIM = ("broker.claim", "storage.start_many", "steps.claim_and_start")
SETTLE = (
    "storage.settle_many", "broker.push_many", "broker.ack_many", "broker.nack_many", "steps.settle_and_ack",
)  # fmt: skip
WRITE_OFF = ("storage.bury_many", "broker.discard_many")

Story = Callable[[Pair, Seam], Awaitable[None]]


async def at_each(bench: Bench[Components], methods: tuple[str, ...], story: Story) -> None:
    """Tells a story once for each place to crash at, with fresh stores each time."""
    pair = await Pair.open(bench)
    seams = list(pair.seams(*methods))
    assert seams, "there is no place to crash at"
    for i, seam in enumerate(seams):
        pair = pair if i == 0 else await Pair.open(bench)
        try:
            await story(pair, seam)
        except AssertionError as failure:
            failure.add_note(f"crashed {seam}")
            raise


async def finished(pair: Pair, *uuids: UUID) -> None:
    """Lets the leases run out, runs the rest, and looks at the end: every task terminal, settled once."""
    await pair.bench.elapse(pair.bench.short)
    await pair.quiesce()
    for uuid in uuids:
        assert (await pair.get(uuid)).status.terminal, "an acknowledged task is not finished (I1)"
        assert pair.accepted.get(uuid, 0) <= 1, "two results were accepted (I3)"


class Crashes(Suite):
    """What the next process finds, and what it makes of it."""

    @check("PAIRING-40")
    async def test_add_and_retry(self, bench: Bench[Components]) -> None:
        """Wherever a producer dies while it adds, adding the same uuid again is idempotent, and the task
        runs once.

        If this fails, check that `same` is pushed again: the first try may have died between the two
        steps (R1).
        """

        async def story(pair: Pair, seam: Seam) -> None:
            task = record(now=bench.now())
            with pair.crashing(seam):
                await pair.delivery.add([task])
            pair = await pair.reopened()
            (verdict,) = await pair.delivery.add([task])
            assert verdict.kind in (Added.ADDED, Added.SAME)
            assert await pair.known(task.uuid), "acknowledged, but not queued"
            assert await pair.quiesce() == {task.uuid: 1}

        await at_each(bench, ADD, story)

    @check("PAIRING-41")
    async def test_add_and_no_retry(self, bench: Bench[Components]) -> None:
        """Wherever a producer dies while it adds, the task is either not there at all, or is run once.

        If this fails, check that the record is written before the entry (R1), and that the reconciler
        finds it.
        """

        async def story(pair: Pair, seam: Seam) -> None:
            task = record(now=bench.now())
            with pair.crashing(seam):
                await pair.delivery.add([task])
            pair = await pair.reopened()
            (stored,) = await pair.storage.get_many([task.uuid])
            if stored is None:
                assert not await pair.known(task.uuid), "queued before it was stored (R1)"
            assert await pair.quiesce() == ({} if stored is None else {task.uuid: 1})

        await at_each(bench, ADD, story)

    @check("PAIRING-42")
    async def test_claim_and_die(self, bench: Bench[Components]) -> None:
        """Wherever a worker dies while it claims, its tasks run again when their leases have run out.

        If this fails, check that a claim whose reply is lost is left to its lease.
        """

        async def story(pair: Pair, seam: Seam) -> None:
            tasks = [record(now=bench.now()) for _ in range(3)]
            await pair.add(*tasks)
            with pair.crashing(seam):
                await pair.claim(2, lease=bench.short)
            pair = await pair.reopened()
            await finished(pair, *(task.uuid for task in tasks))

        await at_each(bench, CLAIM, story)

    async def _settling(self, bench: Bench[Components], outcome: Callable[..., Any]) -> None:
        async def story(pair: Pair, seam: Seam) -> None:
            tasks = [record(now=bench.now()) for _ in range(2)]
            then = record(now=bench.now())
            await pair.add(*tasks)
            claims = await pair.claim(lease=bench.short)
            settles = [outcome(token, bench.now()) for token, _ in claims]
            if settles[0].outcome.terminal:
                settles[0].then = (then,)
            with pair.crashing(seam):
                await pair.delivery.settle(settles)
            pair = await pair.reopened()
            before = await pair.get(tasks[0].uuid)
            (follow,) = await pair.storage.get_many([then.uuid])
            if before.status.terminal:
                assert follow is not None, "the result is stored, its follow-up is not"
            else:
                assert follow is None, "the follow-up is stored, the result is not"
                assert await pair.known(tasks[0].uuid), "acked before it was settled (R2)"
            await finished(pair, *(task.uuid for task in tasks))
            if before.status.terminal:
                after = await pair.get(tasks[0].uuid)
                assert differences(after, before) == {}, "a visible result changed (I2)"
                assert (await pair.get(then.uuid)).status.terminal, "the follow-up was not run"

        await at_each(bench, SETTLE, story)

    @check("PAIRING-43")
    async def test_settle_success(self, bench: Bench[Components]) -> None:
        """Wherever a worker dies while it settles a success, the result is either not there and the task
        runs again, or it stands for good, with its follow-ups, and these are run.

        If this fails, check that the record is settled before the entry is acked (R2).
        """
        await self._settling(bench, success)

    @check("PAIRING-44")
    async def test_settle_error(self, bench: Bench[Components]) -> None:
        """Wherever a worker dies while it settles an error, the same holds.

        If this fails, check that the record is settled before the entry is acked (R2).
        """
        await self._settling(bench, error)

    @check("PAIRING-45")
    async def test_settle_retry(self, bench: Bench[Components]) -> None:
        """Wherever a worker dies while it settles a retry, the task runs again and ends once.

        If this fails, check that the restored entry of a record that is NEW again can start.
        """
        await self._settling(bench, retry)

    @check("PAIRING-46")
    async def test_settle_release(self, bench: Bench[Components]) -> None:
        """Wherever a worker dies while it gives a task back, the task runs again and ends once.

        If this fails, check that the restored entry of a record that is NEW again can start.
        """
        await self._settling(bench, release)

    @check("PAIRING-47")
    async def test_settle_again_in_the_same_process(self, bench: Bench[Components]) -> None:
        """When the reply to a settle is lost and the worker lives, it settles again: accepted or already
        mine, and the entry is gone.

        If this fails, check that a repeated settle still acks.
        """

        async def story(pair: Pair, seam: Seam) -> None:
            task, then = record(now=bench.now()), record(now=bench.now())
            await pair.add(task)
            ((token, _),) = await pair.claim()
            settle = success(token, bench.now(), 1, then=(then,))
            with pair.crashing(seam):
                await pair.delivery.settle([settle])
            (verdict,) = await pair.delivery.settle([settle])
            assert verdict is not SettleVerdict.REJECTED
            assert not await pair.known(task.uuid)
            assert (await pair.get(task.uuid)).returning == 1
            assert await pair.quiesce() == {then.uuid: 1}

        await at_each(bench, SETTLE, story)

    @check("PAIRING-48")
    async def test_write_off(self, bench: Bench[Components]) -> None:
        """Wherever a worker dies while it writes off what the sweep buried, the next one finishes: the
        record is dead, the entry gone, and nothing runs again.

        If this fails, check that a burial stays in `buried` until it is discarded.
        """

        async def story(pair: Pair, seam: Seam) -> None:
            task = record(now=bench.now())
            await pair.add(task)
            ((token, _),) = await pair.claim(lease=bench.short)
            await bench.elapse(bench.short)

            async def buried() -> list[Any]:
                return list((await pair.broker.sweep(10, 1)).buried)

            found = await bench.eventually(buried, "the sweep buries")
            with pair.crashing(seam):
                await pair.write_off(found)
            pair = await pair.reopened()
            assert await pair.quiesce() == {}
            got = await pair.get(task.uuid)
            assert (got.status, got.dead, got.epoch) == ("error", True, token.epoch)

        pair = await Pair.open(bench)
        for name in WRITE_OFF:
            for after in (False, True):
                part, _, method = name.partition(".")
                await story(pair, Seam(int(part == "storage"), method, after))
                pair = await Pair.open(bench)

    @check("PAIRING-49", needs=("delayed",))
    async def test_the_broker_forgets_everything(self, bench: Bench[Components]) -> None:
        """When the broker loses all its entries, the reconciler pushes every open record again, with its
        epoch, and all tasks run; what was running cannot settle under its old token.

        If this fails, check that the entries are pushed with the record's queue, time and epoch.
        """
        pair = await Pair.open(bench)
        now = bench.now()
        tasks = [
            record(now=now, queue="mail"),
            record(now=now),
            record(now=now, available_at=now + bench.short),
        ]
        await pair.add(*tasks)
        ((running, _),) = await pair.claim(1)
        await pair.broker.flush()
        pair = await pair.reopened()
        await pair.restore()
        assert await pair.broker.contains_many([task.uuid for task in tasks]) == [True] * 3
        await pair.restore()
        claims = await pair.claim()
        assert running.uuid in {token.uuid for token, _ in claims}
        if bench.now() < tasks[2].available_at:  # a slow machine may get there late
            assert tasks[2].uuid not in {token.uuid for token, _ in claims}, "run before it was due"
        assert await pair.settle(success(running, bench.now())) == [SettleVerdict.REJECTED]
        await pair.settle(*(success(token, bench.now()) for token, _ in claims))
        await finished(pair, *(task.uuid for task in tasks))

    @check("PAIRING-50", needs=("delayed",))
    async def test_the_reconciler_disturbs_nothing(self, bench: Bench[Components]) -> None:
        """While nothing is wrong, a pass of the reconciler changes nothing, whatever state the tasks are
        in.

        If this fails, check that `contains_many` and `push_many` know entries in all states.
        """
        pair = await Pair.open(bench)
        now = bench.now()
        tasks = [
            record(now=now),
            record(now=now),
            record(now=now, available_at=now + bench.long),
            record(now=now),
        ]
        await pair.add(*tasks)
        claims = await pair.claim(2)
        await pair.settle(success(claims[0][0], now))
        sizes = await pair.broker.size()
        records = await pair.storage.get_many([task.uuid for task in tasks])
        for _ in range(3):
            await pair.restore()
        assert await pair.broker.size() == sizes
        for was, got in zip(records, await pair.storage.get_many([t.uuid for t in tasks]), strict=True):
            assert was is not None
            assert got is not None
            assert differences(got, was) == {}
        assert await pair.settle(success(claims[1][0], now)) == [SettleVerdict.ACCEPTED]

    @check("PAIRING-51")
    async def test_every_worker_dies(self, bench: Bench[Components]) -> None:
        """When every worker dies after its settle was stored and before it was acked, no task runs a
        second time and none is dead (R7).

        If this fails, check that a restored entry of a terminal record is acked, not run or buried.
        """
        pair = await Pair.open(bench)
        tasks = [record(now=bench.now()) for _ in range(4)]
        await pair.add(*tasks)
        claims = await pair.claim(lease=bench.short)
        await pair.storage.settle_many([success(token, bench.now(), "first") for token, _ in claims])
        pair = await pair.reopened()
        await bench.elapse(bench.short)
        assert await pair.quiesce() == {}
        for task in tasks:
            got = await pair.get(task.uuid)
            assert (got.status, got.returning, got.dead) == ("success", "first", False)
        assert MAX_DELIVERIES > 1
