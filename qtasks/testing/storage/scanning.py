"""Checks of `scan`, `scan_open`, `scan_dead` and `counts`: pages that are exact while the storage changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from qtasks.components.primitives import Page
from qtasks.components.storage import Storage
from qtasks.schemas import TaskRecord
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import error, handle, record, success
from qtasks.testing.storage.adding import add, bury, differences
from qtasks.testing.storage.running import started

Scan = Callable[[str | None], Awaitable[Page]]
Between = Callable[[], Awaitable[None]]


async def pages(scan: Scan, limit: int | None = None, between: Between | None = None) -> list[TaskRecord]:
    """All records of a scan.

    Parameters:
        scan: gives the page of a cursor.
        limit: the bound of a page that is checked.
        between: what happens between two pages.
    """
    found: list[TaskRecord] = []
    cursor, seen = None, set()
    while True:
        page = await scan(cursor)
        assert limit is None or len(page.records) <= limit, "a page is larger than its limit"
        found.extend(page.records)
        if page.cursor is None:
            return found
        assert page.cursor not in seen, "the scan goes in circles"
        seen.add(page.cursor)
        cursor = page.cursor
        if between is not None:
            await between()


def uuids(records: list[TaskRecord]) -> list[UUID]:
    """Their uuids."""
    return [each.uuid for each in records]


class Scanning(Suite):
    """`scan`, `scan_open`, `scan_dead`, `counts`."""

    @check("STORAGE-55")
    async def test_scan(self, bench: Bench[Storage]) -> None:
        """A scan gives all records once, newest first, whole, in pages of at most `limit`, whatever their
        status.

        If this fails, check the order behind the cursor, and what happens at its ties.
        """
        storage, now = await bench.open(), bench.now()
        records = [record(now=now + i, args=(i,)) for i in range(11)]
        await add(storage, *records)
        token = handle(records[4].uuid)
        await storage.start_many([token])
        await storage.settle_many([success(token, now)])
        for limit in (1, 3, 11, 50):
            found = await pages(partial(storage.scan, limit=limit), limit)
            assert uuids(found) == uuids(records[::-1]), f"in pages of {limit}"
        untouched = [each for each in found if each.uuid != token.uuid]
        expected = [each for each in records[::-1] if each.uuid != token.uuid]
        for got, was in zip(untouched, expected, strict=True):
            assert differences(got, was) == {}

    @check("STORAGE-56")
    async def test_scan_with_equal_times(self, bench: Bench[Storage]) -> None:
        """Records that were created at the same moment appear once each, on whatever page.

        If this fails, check that the cursor does not consist of the time alone.
        """
        storage, now = await bench.open(), bench.now()
        records = [record(now=now) for _ in range(10)]
        await add(storage, *records)
        found = await pages(lambda cursor: storage.scan(cursor, 3), 3)
        assert sorted(uuids(found)) == sorted(uuids(records))

    @check("STORAGE-57")
    async def test_scan_while_it_changes(self, bench: Bench[Storage]) -> None:
        """A record that is there during the whole scan appears exactly once, while others are added,
        changed, finished and deleted between its pages.

        If this fails, check that the cursor is a place in the order, not a number of records to skip.
        """
        storage, now = await bench.open(), bench.now()
        records = [record(now=now + i) for i in range(20)]
        await add(storage, *records)
        doomed = [handle(each.uuid) for each in records[::3]]
        await storage.start_many(doomed)
        await storage.settle_many([success(each, now) for each in doomed])
        stay = [each for each in records if each.uuid not in {token.uuid for token in doomed}]
        todo = list(doomed)
        fresh = 0

        async def between() -> None:
            nonlocal fresh
            fresh += 1
            await add(storage, record(now=now + 100 + fresh))
            if todo:
                await storage.delete_many([todo.pop().uuid])
            await storage.start_many([handle(stay[fresh % len(stay)].uuid, epoch=fresh)])

        found = await pages(lambda cursor: storage.scan(cursor, 3), 3, between)
        staying = set(uuids(stay))
        seen = [uuid for uuid in uuids(found) if uuid in staying]
        assert len(seen) == len(set(seen)), "a record appeared twice"
        assert set(seen) == staying, "a record was left out"

    @check("STORAGE-58")
    async def test_scan_open(self, bench: Bench[Storage]) -> None:
        """`scan_open` gives the NEW and PROCESS records that were created before the given time, once each.

        If this fails, check that a record leaves the open ones with its terminal status, and only then.
        """
        storage, now = await bench.open(), bench.now()
        tokens = [handle(record().uuid) for _ in range(4)]
        old = [record(token.uuid, now=now - 100) for token in tokens] + [record(now=now - 50)]
        young = [record(now=now - 5) for _ in range(3)]
        await add(storage, *old, *young)
        await storage.start_many(tokens)
        await storage.settle_many([success(tokens[0], now), error(tokens[1], now)])
        await storage.cancel_many([young[0].uuid], "", expires_at=now)
        for limit in (1, 2, 100):
            found = await pages(partial(storage.scan_open, limit=limit, created_before=now - 30))
            assert sorted(uuids(found)) == sorted(uuids(old[2:])), f"in pages of {limit}"
        every = await pages(lambda cursor: storage.scan_open(cursor, 2, now + 1))
        assert sorted(uuids(every)) == sorted(uuids(old[2:] + young[1:]))

    @check("STORAGE-59")
    async def test_scan_open_while_it_changes(self, bench: Bench[Storage]) -> None:
        """A record that stays open during the whole scan is not left out, while others finish.

        If this fails, check that the cursor is a place in the order, not a number of records to skip.
        """
        storage, now = await bench.open(), bench.now()
        records = [record(now=now - 100 + i) for i in range(15)]
        await add(storage, *records)
        ending = uuids(records[::2])

        async def between() -> None:
            if ending:
                await storage.cancel_many([ending.pop(0)], "", expires_at=now)

        found = await pages(lambda cursor: storage.scan_open(cursor, 2, now), between=between)
        staying = set(uuids(records[1::2]))
        assert staying <= set(uuids(found)), "an open record was left out"

    @check("STORAGE-60")
    async def test_scan_dead(self, bench: Bench[Storage]) -> None:
        """`scan_dead` gives the dead records once each, newest first, in pages of at most `limit`.

        If this fails, check that the dead are ordered by the time they died.
        """
        storage, now = await bench.open(), bench.now()
        tokens = await started(storage, n=8)
        for i, token in enumerate(tokens[:6]):
            await storage.settle_many([error(token, now + i, dead=True)])
        await storage.settle_many([error(tokens[6], now)])
        for limit in (1, 4, 6, 50):
            found = await pages(partial(storage.scan_dead, limit=limit), limit)
            assert uuids(found) == [token.uuid for token in tokens[:6]][::-1], f"in pages of {limit}"

    @check("STORAGE-61")
    async def test_counts(self, bench: Bench[Storage]) -> None:
        """`counts` gives the records by status; `dead` counts those of the dead set, which are in `error`
        too.

        If this fails, check that every change of status moves the record from one count to the other.
        """
        storage, now = await bench.open(), bench.now()

        async def counted() -> dict[str, int]:
            return {key: n for key, n in (await storage.counts()).items() if n}

        assert await counted() == {}
        tokens = await started(storage, n=6)
        await add(storage, record(), record())
        await storage.settle_many([success(tokens[0], now), error(tokens[1], now, dead=True)])
        await storage.settle_many([error(tokens[2], now)])
        await storage.bury_many([bury(tokens[3].uuid)], expires_at=now)
        await storage.cancel_many([tokens[4].uuid], "", expires_at=now)
        new = record()
        await add(storage, new)
        await storage.cancel_many([new.uuid], "", expires_at=now)
        expected = {"new": 2, "process": 2, "success": 1, "error": 3, "cancel": 1, "dead": 2}
        assert await counted() == expected
