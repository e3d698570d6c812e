"""Checks of `cancel_many`, `bury_many`, `update_many`, `delete_many` and `purge`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any
from uuid import uuid4

from qtasks.components.primitives import Buried, CancelVerdict, SettleVerdict, Start, Update
from qtasks.components.storage import Storage
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import HOSTILE, error, handle, record, release, success
from qtasks.testing.storage.adding import add, bury, differences, get
from qtasks.testing.storage.running import ACCEPTED, REJECTED, started

CANCELLED, REQUESTED = CancelVerdict.CANCELLED, CancelVerdict.REQUESTED
TERMINAL, MISSING = CancelVerdict.TERMINAL, CancelVerdict.MISSING


class Changing(Suite):
    """`cancel_many`, `cancel_requested_many`, `bury_many`, `update_many`, `delete_many`, `purge`."""

    @check("STORAGE-40")
    async def test_cancel(self, bench: Bench[Storage]) -> None:
        """A NEW record is cancelled: CANCEL with the reason, `finished_at` and `expires_at`; a PROCESS
        one is asked to; a terminal or unknown one says so. The verdicts stand in the order asked.

        If this fails, check that NEW → CANCEL is one compare-and-set.
        """
        storage, now = await bench.open(), bench.now()
        running, over = await started(storage, n=2)
        await storage.settle_many([success(over, now, 1)])
        new = record()
        await add(storage, new)
        asked = [running.uuid, uuid4(), new.uuid, over.uuid, new.uuid]
        verdicts = await storage.cancel_many(asked, "because", expires_at=now + 77)
        assert verdicts == [REQUESTED, MISSING, CANCELLED, TERMINAL, TERMINAL]
        got = await get(storage, new.uuid)
        assert (got.status, got.cancel_reason, got.expires_at) == ("cancel", "because", now + 77)
        assert got.finished_at is not None
        assert (await get(storage, over.uuid)).cancel_reason is None
        (verdict,) = await storage.start_many([handle(new.uuid, epoch=99)])
        assert verdict.kind is Start.TERMINAL

    @check("STORAGE-41")
    async def test_cancel_of_a_running_task(self, bench: Bench[Storage]) -> None:
        """A PROCESS record that is asked to cancel stays PROCESS, says so to `cancel_requested_many`, and
        its owner settles it as usual.

        If this fails, check that the request changes neither status nor token.
        """
        storage, now = await bench.open(), bench.now()
        asked, other = await started(storage, n=2)
        uuids = [other.uuid, asked.uuid, uuid4(), asked.uuid]
        assert await storage.cancel_requested_many(uuids) == [False] * 4
        for _ in range(2):
            assert await storage.cancel_many([asked.uuid], "because", expires_at=now) == [REQUESTED]
        assert await storage.cancel_requested_many(uuids) == [False, True, False, True]
        got = await get(storage, asked.uuid)
        assert (got.status, got.epoch, got.owner) == ("process", asked.epoch, asked.owner)
        assert (got.cancel_requested, got.cancel_reason) == (True, "because")
        assert await storage.settle_many([success(asked, now, 1)]) == [ACCEPTED]

    @check("STORAGE-42")
    async def test_a_late_settle_of_a_cancelled_task(self, bench: Bench[Storage]) -> None:
        """When a task that was given back is cancelled, a repeated settle of its last owner changes
        nothing (R5).

        If this fails, check that a cancel clears the owner of the record.
        """
        storage, now = await bench.open(), bench.now()
        (token,) = await started(storage)
        await storage.settle_many([release(token, now)])
        assert await storage.cancel_many([token.uuid], "", expires_at=now + 9) == [CANCELLED]
        before = await get(storage, token.uuid)
        assert await storage.settle_many([success(token, now)]) == [REJECTED]
        assert differences(await get(storage, token.uuid), before) == {}

    @check("STORAGE-43")
    async def test_bury(self, bench: Bench[Storage]) -> None:
        """A burial makes an open record ERROR and dead, with the reason as traceback, once; the late
        settle of the lost worker is rejected.

        If this fails, check that `bury_many` clears the owner.
        """
        storage, now = await bench.open(), bench.now()
        (token,) = await started(storage, epoch=5)
        new = record()
        await add(storage, new)
        batch = [Buried(token.uuid, 5, "lost"), Buried(uuid4(), 9, "x"), Buried(new.uuid, 0, "unreadable")]
        assert await storage.bury_many(batch, expires_at=now + 50) == [True, False, True]
        for uuid, reason in ((token.uuid, "lost"), (new.uuid, "unreadable")):
            got = await get(storage, uuid)
            assert (got.status, got.dead, got.traceback) == ("error", True, reason)
            assert got.expires_at == now + 50
            assert got.finished_at is not None
        assert await storage.bury_many(batch, expires_at=now + 99) == [False] * 3
        assert await storage.settle_many([success(token, now)]) == [SettleVerdict.REJECTED]

    @check("STORAGE-44")
    async def test_bury_respects_the_fence(self, bench: Bench[Storage]) -> None:
        """A burial with an epoch below the stored one, or of a terminal record, changes nothing (R4, R5).

        If this fails, check that `bury_many` compares epoch and status in the step that writes.
        """
        storage, now = await bench.open(), bench.now()
        running, over = await started(storage, epoch=5, n=2)
        await storage.settle_many([success(over, now, "kept")])
        batch = [Buried(running.uuid, 4, "x"), Buried(over.uuid, 10**6, "x")]
        assert await storage.bury_many(batch, expires_at=now) == [False, False]
        assert (await get(storage, running.uuid)).status == "process"
        assert (await get(storage, over.uuid)).returning == "kept"
        assert await storage.settle_many([success(running, now)]) == [ACCEPTED]

    @check("STORAGE-45")
    async def test_update(self, bench: Bench[Storage]) -> None:
        """An update changes the fields it names of open records, and nothing else; a terminal or unknown
        record is False and stays as it is.

        If this fails, check that `update_many` looks at the status in the step that writes.
        """
        storage, now = await bench.open(), bench.now()
        running, over = await started(storage, n=2)
        await storage.settle_many([success(over, now, 1)])
        new = record(args=(1,))
        await add(storage, new)
        before = await get(storage, running.uuid)
        changes: dict[str, Any] = {"extra": {"a": [1]}, "progress": 0.5, "updated_at": now + 3}
        batch = [
            Update(over.uuid, changes), Update(running.uuid, changes), Update(uuid4(), changes),
            Update(new.uuid, {"priority": 5, "kwargs": {"k": None}, "args": ()}),
        ]  # fmt: skip
        assert await storage.update_many(batch) == [False, True, False, True]
        assert differences(await get(storage, running.uuid), replace(before, **changes)) == {}
        expected = replace(new, priority=5, kwargs={"k": None}, args=())
        assert differences(await get(storage, new.uuid), expected) == {}
        assert (await get(storage, over.uuid)).progress is None

    @check("STORAGE-46")
    async def test_update_never_touches_the_fence(self, bench: Bench[Storage]) -> None:
        """An update of uuid, status, epoch or owner is refused with `ValueError`, or leaves these as they
        are.

        If this fails, check that `update_many` sorts out `FENCED_FIELDS`.
        """
        storage = await bench.open()
        (token,) = await started(storage)
        before = await get(storage, token.uuid)
        fenced = {"uuid": uuid4(), "status": TaskStatusEnum.SUCCESS, "epoch": 99, "owner": "me"}
        for name, value in fenced.items():
            with contextlib.suppress(ValueError):
                await storage.update_many([Update(token.uuid, {name: value})])
        assert differences(await get(storage, token.uuid), before) == {}

    @check("STORAGE-47")
    async def test_delete(self, bench: Bench[Storage]) -> None:
        """Terminal records are deleted; open and unknown ones are False and stay.

        If this fails, check that `delete_many` looks at the status in the step that deletes.
        """
        storage, now = await bench.open(), bench.now()
        over, running = await started(storage, n=2)
        await storage.settle_many([success(over, now)])
        new = record()
        await add(storage, new)
        asked = [new.uuid, over.uuid, running.uuid, uuid4(), over.uuid]
        assert await storage.delete_many(asked) == [False, True, False, False, False]
        found = await storage.get_many(asked[:3])
        assert [each is None for each in found] == [False, True, False]
        assert sum(v for k, v in (await storage.counts()).items() if k != "dead") == 2

    @check("STORAGE-48")
    async def test_purge_by_time(self, bench: Bench[Storage]) -> None:
        """A purge deletes terminal records whose `expires_at` is over, and says how many; open ones stay.

        If this fails, check the comparison of `expires_at`, and that it is written at every end.
        """
        storage, now = await bench.open(), bench.now()
        tokens = await started(storage, n=3)
        settles = [success(tokens[0], now), error(tokens[1], now)]
        for settle, lives in zip(settles, (10, 1000), strict=True):
            settle.changes["expires_at"] = now + lives
        await storage.settle_many(settles)
        new, cancelled = record(), record()
        await add(storage, new, cancelled)
        await storage.cancel_many([cancelled.uuid], "", expires_at=now + 20)
        assert await storage.purge(now + 5, 100) == 0
        assert await storage.purge(now + 500, 100) == 2
        uuids = [tokens[0].uuid, cancelled.uuid, tokens[1].uuid, tokens[2].uuid, new.uuid]
        found = await storage.get_many(uuids)
        assert [each is None for each in found] == [True, True, False, False, False]

    @check("STORAGE-49")
    async def test_purge_bounds_the_dead(self, bench: Bench[Storage]) -> None:
        """A purge deletes the oldest dead records above `dead_max`; terminal ones that are not dead stay.

        If this fails, check the order of the dead set.
        """
        storage, now = await bench.open(), bench.now()
        tokens = await started(storage, n=6)
        for i, token in enumerate(tokens[:5]):
            settle = error(token, now + i, dead=True)
            settle.changes["expires_at"] = now + 10_000
            await storage.settle_many([settle])
        await storage.settle_many([error(tokens[5], now)])
        assert await storage.purge(now, 2) == 3
        found = await storage.get_many([each.uuid for each in tokens])
        assert [each is None for each in found] == [True, True, True, False, False, False]
        assert await storage.purge(now, 2) == 0

    @check("STORAGE-50")
    async def test_hostile_reasons(self, bench: Bench[Storage]) -> None:
        """A reason, a traceback, an owner are data: whatever text is in them comes back as it was, and an
        owner is compared exactly.

        If this fails, check how text is quoted, and the collation of the columns.
        """
        storage, now = await bench.open(), bench.now()
        records = [record() for _ in HOSTILE]
        await add(storage, *records)
        for text, each in zip(HOSTILE, records, strict=True):
            token = handle(each.uuid, epoch=3, owner=text)
            await storage.start_many([token])
            strangers = [success(token._replace(owner=other), now) for other in HOSTILE if other != text]
            assert set(await storage.settle_many(strangers)) == {REJECTED}, f"owner {text!r}"
            assert await storage.bury_many([Buried(each.uuid, 3, text)], expires_at=now) == [True]
            assert (await get(storage, each.uuid)).traceback == text
        others = [record() for _ in HOSTILE]
        await add(storage, *others)
        for text, each in zip(HOSTILE, others, strict=True):
            await storage.cancel_many([each.uuid], text, expires_at=now)
            assert (await get(storage, each.uuid)).cancel_reason == text

    @check("STORAGE-51")
    async def test_dead_is_in_the_record(self, bench: Bench[Storage]) -> None:
        """A record that is settled ERROR and dead, or buried, is in the dead set; others are not; its
        deletion takes it out.

        If this fails, check that every way to `dead` reaches the index of the dead.
        """
        storage, now = await bench.open(), bench.now()
        tokens = await started(storage, n=4)
        await storage.settle_many(
            [error(tokens[0], now, dead=True), error(tokens[1], now), success(tokens[2], now)]
        )
        await storage.bury_many([bury(tokens[3].uuid)], expires_at=now + 9)
        dead = {each.uuid for each in (await storage.scan_dead(None, 10)).records}
        assert dead == {tokens[0].uuid, tokens[3].uuid}
        await storage.delete_many([tokens[0].uuid])
        page = await storage.scan_dead(None, 10)
        assert [each.uuid for each in page.records] == [tokens[3].uuid]
        assert (await storage.counts()).get("dead") == 1
