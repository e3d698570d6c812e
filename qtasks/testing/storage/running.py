"""Checks of `start_many` and `settle_many`: the fence of R4, the finality of R5."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

from qtasks.components.primitives import DeliveryHandle, Outcome, SettleVerdict, Start, StartVerdict
from qtasks.components.storage import Storage
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import cancel, error, handle, owner, record, release, retry, success
from qtasks.testing.storage.adding import add, bury, differences, get

ACCEPTED, MINE, REJECTED = SettleVerdict.ACCEPTED, SettleVerdict.ALREADY_MINE, SettleVerdict.REJECTED
WRONG = 1800.0
"""Seconds by which the clock of a worker is wrong."""


async def started(storage: Storage, epoch: int = 5, n: int = 1) -> list[DeliveryHandle]:
    """Adds records and starts them."""
    tokens = [handle(uuid4(), epoch=epoch, owner=owner()) for _ in range(n)]
    await add(storage, *(record(each.uuid) for each in tokens))
    verdicts = await storage.start_many(tokens)
    assert [verdict.kind for verdict in verdicts] == [Start.STARTED] * n
    return tokens


class Running(Suite):
    """`start_many`, `settle_many`."""

    @check("STORAGE-20")
    async def test_start(self, bench: Bench[Storage]) -> None:
        """A start of a due record gives it as it is now: PROCESS, with the token, `started_at`,
        `updated_at` and the deliveries of the handle, all else as it was added.

        If this fails, check that the record of the verdict is read after the change.
        """
        storage = await bench.open()
        given = record(args=(1,), kwargs={"a": 2}, extra={"b": 3}, attempt=2, unique_key="k")
        await add(storage, given)
        token = handle(given.uuid, epoch=7, deliveries=3)
        (verdict,) = await storage.start_many([token])
        assert verdict.kind is Start.STARTED
        got = verdict.record
        assert got is not None
        assert got.started_at is not None
        assert abs(got.started_at - bench.now()) < 5.0, "started_at is the time of the start"
        assert got.updated_at == got.started_at
        expected = replace(
            given, status=TaskStatusEnum.PROCESS, epoch=7, owner=token.owner, deliveries=3,
            started_at=got.started_at, updated_at=got.updated_at,
        )  # fmt: skip
        assert differences(got, expected) == {}
        assert differences(await get(storage, given.uuid), expected) == {}

    @check("STORAGE-21")
    async def test_start_again_after_a_lost_reply(self, bench: Bench[Storage]) -> None:
        """The same token may start a record that it holds in PROCESS again: the reply may have been lost
        (R4).

        If this fails, check that the comparison of epochs lets the very same token pass.
        """
        storage = await bench.open()
        (token,) = await started(storage)
        before = await get(storage, token.uuid)
        verdicts = await storage.start_many([token, token])
        assert [verdict.kind for verdict in verdicts] == [Start.STARTED] * 2
        assert all(verdict.record is not None for verdict in verdicts)
        after = await get(storage, token.uuid)
        assert (after.status, after.epoch, after.owner) == (before.status, before.epoch, before.owner)

    @check("STORAGE-22")
    async def test_start_conflict(self, bench: Bench[Storage]) -> None:
        """A start needs an epoch above the stored one (R4): a lower one, or the same one of another
        owner, is a conflict that names the stored epoch and changes nothing.

        If this fails, check that the comparison is strict, and that an equal epoch needs the same owner.
        """
        storage = await bench.open()
        (token,) = await started(storage, epoch=5)
        strangers = [token._replace(epoch=4), token._replace(owner=owner()), token._replace(epoch=1)]
        assert await storage.start_many(strangers) == [StartVerdict(Start.CONFLICT, epoch=5)] * 3
        got = await get(storage, token.uuid)
        assert (got.epoch, got.owner) == (5, token.owner), "the token was overwritten"

    @check("STORAGE-23")
    async def test_a_higher_epoch_takes_over(self, bench: Bench[Storage]) -> None:
        """A higher epoch takes a PROCESS record over; the owner before it can settle nothing any more (R4).

        If this fails, check that a start writes the new token, and a settle compares it.
        """
        storage, now = await bench.open(), bench.now()
        (old,) = await started(storage, epoch=5)
        new = old._replace(epoch=6, owner=owner(), deliveries=2)
        (verdict,) = await storage.start_many([new])
        assert verdict.kind is Start.STARTED
        assert await storage.settle_many([success(old, now, "old")]) == [REJECTED], "the fence is lost"
        assert await storage.settle_many([success(new, now, "new")]) == [ACCEPTED]
        assert await storage.settle_many([success(old, now, "old")]) == [REJECTED], "a result was changed"
        assert (await get(storage, old.uuid)).returning == "new"

    @check("STORAGE-24")
    async def test_a_token_starts_one_run(self, bench: Bench[Storage]) -> None:
        """A token whose run was given back, by retry or release, cannot start the record again.

        If this fails, check that the same token passes only while the record is PROCESS (R4).
        """
        storage, now = await bench.open(), bench.now()
        for give_back in (retry, release):
            (token,) = await started(storage, epoch=5)
            assert await storage.settle_many([give_back(token, now)]) == [ACCEPTED]
            assert await storage.start_many([token]) == [StartVerdict(Start.CONFLICT, epoch=5)]
            (again,) = await storage.start_many([token._replace(epoch=6)])
            assert again.kind is Start.STARTED

    @check("STORAGE-25")
    async def test_start_of_what_is_over_or_unknown(self, bench: Bench[Storage]) -> None:
        """A start of a terminal record is `terminal`, whatever the token (R5); of an unknown one `missing`.

        If this fails, check that the status is looked at before the epoch.
        """
        storage, now = await bench.open(), bench.now()
        tokens = await started(storage, n=4)
        await storage.settle_many([success(tokens[0], now), error(tokens[1], now), cancel(tokens[2], now)])
        await storage.bury_many([bury(tokens[3].uuid)], expires_at=now + 10)
        for epoch in (10**7, 1, tokens[0].epoch):
            asked = [token._replace(epoch=epoch) for token in tokens]
            assert await storage.start_many(asked) == [StartVerdict(Start.TERMINAL)] * 4
        assert await storage.start_many([handle(uuid4())]) == [StartVerdict(Start.MISSING)]

    @check("STORAGE-26")
    async def test_start_of_what_is_not_due(self, bench: Bench[Storage]) -> None:
        """A start before `available_at` is `not due` with the seconds left, and changes nothing; after
        it, it runs.

        If this fails, check that `start_many` compares `available_at` with the clock.
        """
        storage = await bench.open()
        given = record(now=bench.now(), available_at=bench.now() + bench.short)
        await add(storage, given)
        (verdict,) = await storage.start_many([handle(given.uuid, epoch=1)])
        assert verdict.kind is Start.NOT_DUE
        assert 0 < verdict.delay <= bench.short + 0.001
        got = await get(storage, given.uuid)
        assert (got.status, got.epoch, got.started_at) == (TaskStatusEnum.NEW, 0, None)
        await bench.elapse(bench.short)

        async def runs() -> bool:
            return (await storage.start_many([handle(given.uuid, epoch=2)]))[0].kind is Start.STARTED

        await bench.eventually(runs, "a record that is due starts")

    @check("STORAGE-27")
    async def test_start_verdicts_stand_in_order(self, bench: Bench[Storage]) -> None:
        """The verdicts of a batch of starts stand in the order asked, each with what belongs to it.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        storage, now = await bench.open(), bench.now()
        held, over = await started(storage, epoch=9, n=2)
        await storage.settle_many([success(over, now)])
        new, later, newer = record(), record(available_at=now + bench.long), record()
        await add(storage, new, later, newer)
        asked = [
            handle(newer.uuid), held._replace(epoch=3), handle(uuid4()), handle(later.uuid), handle(new.uuid), over,
        ]  # fmt: skip
        verdicts = await storage.start_many(asked)
        assert [verdict.kind for verdict in verdicts] == [
            Start.STARTED, Start.CONFLICT, Start.MISSING, Start.NOT_DUE, Start.STARTED, Start.TERMINAL,
        ]  # fmt: skip
        uuids = [verdict.record.uuid for verdict in verdicts if verdict.record is not None]
        assert uuids == [newer.uuid, new.uuid]

    @check("STORAGE-28")
    async def test_settle(self, bench: Bench[Storage]) -> None:
        """An accepted settle writes its changes and nothing else; the record keeps its last token.

        If this fails, check that `settle_many` writes every field that `changes` names.
        """
        storage, now = await bench.open(), bench.now()
        for outcome in (success, error, cancel):
            (token,) = await started(storage)
            before, settle = await get(storage, token.uuid), outcome(token, now)
            assert await storage.settle_many([settle]) == [ACCEPTED]
            assert differences(await get(storage, token.uuid), replace(before, **settle.changes)) == {}

    @check("STORAGE-29")
    async def test_settle_again_after_a_lost_reply(self, bench: Bench[Storage]) -> None:
        """A settle by the token that has settled is `already mine` and changes nothing, whatever its
        outcome (I2).

        If this fails, check that the token stays in the record when it is settled.
        """
        storage, now = await bench.open(), bench.now()
        for outcome in (success, error, cancel, retry, release):
            (token,) = await started(storage)
            assert await storage.settle_many([outcome(token, now)]) == [ACCEPTED]
            before = await get(storage, token.uuid)
            assert await storage.settle_many([outcome(token, now + 1)]) == [MINE], outcome.__name__
            assert await storage.settle_many([error(token, now + 2)]) == [MINE]
            assert differences(await get(storage, token.uuid), before) == {}, "a settled record was changed"

    @check("STORAGE-30")
    async def test_settle_rejected(self, bench: Bench[Storage]) -> None:
        """A settle needs the very token that started the record (R4): another owner, a lower or higher
        epoch, a record that was never started or is unknown are `rejected` and change nothing.

        If this fails, check that both epoch and owner are compared.
        """
        storage, now = await bench.open(), bench.now()
        (token,) = await started(storage)
        fresh = record()
        await add(storage, fresh)
        before = await get(storage, token.uuid)
        strangers = [
            token._replace(owner=owner()), token._replace(epoch=token.epoch - 1), token._replace(epoch=99),
            handle(fresh.uuid), handle(uuid4()),
        ]  # fmt: skip
        for outcome in (success, error, cancel, retry, release):
            verdicts = await storage.settle_many([outcome(each, now) for each in strangers])
            assert verdicts == [REJECTED] * 5
        assert differences(await get(storage, token.uuid), before) == {}
        assert differences(await get(storage, fresh.uuid), fresh) == {}
        assert await storage.get_many([strangers[4].uuid]) == [None]

    @check("STORAGE-31")
    async def test_settle_verdicts_stand_in_order(self, bench: Bench[Storage]) -> None:
        """The verdicts of a batch stand in the order of its settles; of two settles of one token the
        first counts.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        storage, now = await bench.open(), bench.now()
        a, b, c = await started(storage, n=3)
        await storage.settle_many([success(b, now)])
        batch = [
            success(c, now, 1), success(b, now), success(a._replace(epoch=1), now), error(c, now), retry(a, now),
        ]  # fmt: skip
        assert await storage.settle_many(batch) == [ACCEPTED, MINE, REJECTED, MINE, ACCEPTED]
        assert (await get(storage, c.uuid)).returning == 1
        assert (await get(storage, a.uuid)).status == "new"

    @check("STORAGE-32")
    async def test_a_retry(self, bench: Bench[Storage]) -> None:
        """A retry makes the record NEW again with its attempt counted, due when the settle says; where it names no
        `available_at`, after the delay of its nack by the storage's own clock, whatever the worker's shows.

        If this fails, check that RETRY writes status NEW and `available_at`, or else now + `nack.delay`.
        """
        storage, now = await bench.open(), bench.now()
        (token,) = await started(storage)
        assert await storage.settle_many([retry(token, now, bench.long, attempt=1)]) == [ACCEPTED]
        got = await get(storage, token.uuid)
        assert (got.status, got.attempt, got.deliveries) == ("new", 1, 0)
        assert got.available_at == now + bench.long
        (verdict,) = await storage.start_many([token._replace(epoch=token.epoch + 1)])
        assert verdict.kind is Start.NOT_DUE, "an early redelivery finds the record not due"
        for outcome in (Outcome.RETRY, Outcome.RELEASE):
            (token,) = await started(storage)
            settle = retry(token, now + WRONG, bench.long)
            del settle.changes["available_at"]
            assert await storage.settle_many([replace(settle, outcome=outcome)]) == [ACCEPTED]
            got = await get(storage, token.uuid)
            assert abs(got.available_at - now - bench.long) < WRONG / 2, "due by the storage's own clock"

    @check("STORAGE-33")
    async def test_then(self, bench: Bench[Storage]) -> None:
        """Records in `then` are added with an accepted settle, once; with a rejected one they are not;
        one that is there already is left as it is.

        If this fails, check that `then` is written in the step of its settle, under the same condition.
        """
        storage, now = await bench.open(), bench.now()
        good, bad = await started(storage, n=2)
        there = record(digest="there")
        await add(storage, there)
        follow, never = [record(args=(1,)), record()], record()
        batch = [
            success(good, now, then=(*follow, replace(there, digest="other"))),
            success(bad._replace(epoch=99), now, then=(never,)),
        ]
        assert await storage.settle_many(batch) == [ACCEPTED, REJECTED]
        assert differences(await get(storage, follow[0].uuid), follow[0]) == {}
        found = await storage.get_many([follow[1].uuid, never.uuid, there.uuid])
        assert [each is None for each in found] == [False, True, False]
        assert found[2] is not None
        assert found[2].digest == "there"
        assert await storage.settle_many(batch[:1]) == [MINE]
        assert (await storage.counts()).get("new") == 3

    @check("STORAGE-34")
    async def test_one_settle_is_accepted(self, bench: Bench[Storage]) -> None:
        """When one token settles many times at once, one settle is accepted (I3), the others are `already
        mine`.

        If this fails, check that comparing and writing are one atomic step.
        """
        storage, now = await bench.open(), bench.now()
        clients = [storage, await bench.open(like=storage)]
        (token,) = await started(storage)
        batches = await bench.within(
            asyncio.gather(*(clients[i % 2].settle_many([success(token, now, i)]) for i in range(12))),
            "settles by many clients",
        )
        verdicts = [batch[0] for batch in batches]
        assert verdicts.count(ACCEPTED) == 1
        assert verdicts.count(MINE) == 11
        assert (await get(storage, token.uuid)).returning == verdicts.index(ACCEPTED)

    @check("STORAGE-35")
    async def test_many_start_at_once(self, bench: Bench[Storage]) -> None:
        """When owners with different epochs start and settle one record at once, one result stands, and
        it is that of an accepted settle (I2, I3).

        If this fails, check that comparing and writing the token are one atomic step.
        """
        storage, now = await bench.open(), bench.now()
        clients = [storage, await bench.open(like=storage)]
        given = record()
        await add(storage, given)

        async def run(i: int) -> SettleVerdict:
            token = handle(given.uuid, epoch=i + 1, owner=f"owner-{i}")
            (verdict,) = await clients[i % 2].start_many([token])
            if verdict.kind is not Start.STARTED:
                return REJECTED
            await asyncio.sleep(0)
            return (await clients[i % 2].settle_many([success(token, now, i)]))[0]

        verdicts = await bench.within(asyncio.gather(*(run(i) for i in range(12))), "runs by many owners")
        assert verdicts.count(ACCEPTED) <= 1, "two results were accepted"
        got = await get(storage, given.uuid)
        if ACCEPTED in verdicts:
            assert got.returning == verdicts.index(ACCEPTED)
        else:
            assert got.status == "process"
