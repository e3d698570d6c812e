"""Checks of `wait_settled`, `get_settled`, and of the items of generators."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from qtasks.components.storage import Storage
from qtasks.errors import CapabilityError
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import HOSTILE, cancel, error, handle, owner, record, retry, success
from qtasks.testing.storage.adding import add, bury
from qtasks.testing.storage.running import started


class Waiting(Suite):
    """`wait_settled`, `get_settled`, `append_items`, `read_items`."""

    @check("STORAGE-65")
    async def test_get_settled(self, bench: Bench[Storage]) -> None:
        """`get_settled` gives a terminal record, None for an open one, and raises LookupError for an
        unknown one.

        If this fails, check that "not yet" and "not at all" are told apart.
        """
        storage, now = await bench.open(), bench.now()
        running, over = await started(storage, n=2)
        await storage.settle_many([success(over, now, 5)])
        assert await storage.get_settled(running.uuid) is None
        got = await storage.get_settled(over.uuid)
        assert got is not None
        assert got.returning == 5
        with pytest.raises(LookupError):
            await storage.get_settled(uuid4())

    @check("STORAGE-66")
    async def test_wait_for_what_is_over(self, bench: Bench[Storage]) -> None:
        """`wait_settled` gives a record that is terminal at once, None when the timeout is over, and raises
        LookupError for what is unknown, deleted or flushed.

        If this fails, check that the record is read before anything is waited for.
        """
        storage, now = await bench.open(), bench.now()
        running, over = await started(storage, n=2)
        await storage.settle_many([success(over, now, 5)])
        for timeout in (None, 0.0, 3600.0):
            got = await bench.within(storage.wait_settled(over.uuid, timeout), "a wait for a finished task")
            assert got is not None
            assert got.returning == 5
        for timeout in (0.0, 0.05):
            waiting = storage.wait_settled(running.uuid, timeout)
            assert await bench.within(waiting, "a wait with a timeout") is None
        await storage.delete_many([over.uuid])
        for uuid in (uuid4(), over.uuid):
            with pytest.raises(LookupError):
                await bench.within(storage.wait_settled(uuid, None), "a wait for an unknown task")
        await storage.flush()
        with pytest.raises(LookupError):
            await bench.within(storage.wait_settled(running.uuid, None), "a wait for a flushed task")

    @check("STORAGE-67")
    async def test_wait_for_every_end(self, bench: Bench[Storage]) -> None:
        """Who waits is given the finished record whatever its end: success, error, cancel, by a client, a
        burial.

        If this fails, check that every way to a terminal status tells those who wait.
        """
        storage, now = await bench.open(), bench.now()
        other = await bench.open(like=storage)
        tokens = await started(storage, n=4)
        new = record()
        await add(storage, new)
        uuids = [*(token.uuid for token in tokens), new.uuid]
        waiting = [asyncio.create_task(storage.wait_settled(uuid, None)) for uuid in uuids]
        await asyncio.sleep(0.01)  # not for an event: gives a waiter that polls its first look
        await other.settle_many([success(tokens[0], now, 7), error(tokens[1], now), cancel(tokens[2], now)])
        await other.bury_many([bury(tokens[3].uuid)], expires_at=now + 9)
        await other.cancel_many([new.uuid], "", expires_at=now + 9)
        found = await bench.within(asyncio.gather(*waiting), "a wait while the tasks end")
        assert [each and each.status for each in found] == ["success", "error", "cancel", "error", "cancel"]
        assert found[0] is not None
        assert found[0].returning == 7

    @check("STORAGE-68")
    async def test_a_retry_is_no_end(self, bench: Bench[Storage]) -> None:
        """A wait goes on over a retry, until the record is terminal.

        If this fails, check that a waiter is told of terminal states only, or looks again.
        """
        storage, now = await bench.open(), bench.now()
        (token,) = await started(storage, epoch=1)
        waiting = asyncio.create_task(storage.wait_settled(token.uuid, None))
        await asyncio.sleep(0)
        await storage.settle_many([retry(token, now)])
        again = token._replace(epoch=2)
        await storage.start_many([again])
        await storage.get_settled(token.uuid)
        assert not waiting.done(), "the wait ended with a retry"
        await storage.settle_many([success(again, now, 2)])
        got = await bench.within(waiting, "a wait over a retry")
        assert got is not None
        assert got.returning == 2

    @check("STORAGE-69")
    async def test_many_wait_for_one(self, bench: Bench[Storage]) -> None:
        """Many may wait for one task; each gets the record, also when one of them gives up before.

        If this fails, check that a waiter who leaves takes only himself out of the list.
        """
        storage, now = await bench.open(), bench.now()
        other = await bench.open(like=storage)
        (token,) = await started(storage)
        waiting = [
            asyncio.create_task((storage, other)[i % 2].wait_settled(token.uuid, None)) for i in range(6)
        ]
        await asyncio.sleep(0.01)  # not for an event: gives a waiter that polls its first look
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        await storage.settle_many([success(token, now, 1)])
        found = await bench.within(asyncio.gather(*waiting[1:]), "waits of many")
        assert [each and each.returning for each in found] == [1] * 5

    @check("STORAGE-70", needs=("streams",))
    async def test_items(self, bench: Bench[Storage]) -> None:
        """Items are appended by index and read from any place on, in order, up to a limit, as they were.

        If this fails, check that items are kept by their index.
        """
        storage = await bench.open()
        (token,) = await started(storage)
        items = [*HOSTILE, None, 0, {"a": [1]}]
        assert await storage.read_items(token.uuid, 0, 10) == []
        assert await storage.append_items(token, 0, items[:5]) is True
        assert await storage.append_items(token, 5, items[5:]) is True
        assert await storage.read_items(token.uuid, 0, 1000) == items
        assert await storage.read_items(token.uuid, 3, 4) == items[3:7]
        assert await storage.read_items(token.uuid, len(items), 5) == []
        assert await storage.read_items(uuid4(), 0, 5) == []

    @check("STORAGE-71", needs=("streams",))
    async def test_items_are_idempotent(self, bench: Bench[Storage]) -> None:
        """Items that are appended again at the same index, because the reply was lost, are there once.

        If this fails, check that `append_items` writes at its index, not at the end.
        """
        storage = await bench.open()
        (token,) = await started(storage)
        assert await storage.append_items(token, 0, ["a", "b"]) is True
        assert await storage.append_items(token, 0, ["a", "b"]) is True
        assert await storage.append_items(token, 1, ["b", "c"]) is True
        assert await storage.read_items(token.uuid, 0, 10) == ["a", "b", "c"]

    @check("STORAGE-72", needs=("streams",))
    async def test_items_under_the_token(self, bench: Bench[Storage]) -> None:
        """Items are refused from whoever does not hold the record: another owner, an old epoch, a settled
        or unknown task.

        If this fails, check that `append_items` compares the token and the status (R4).
        """
        storage, now = await bench.open(), bench.now()
        (token,) = await started(storage, epoch=5)
        strangers = [token._replace(owner=owner()), token._replace(epoch=4), handle(uuid4())]
        for stranger in strangers:
            assert await storage.append_items(stranger, 0, ["x"]) is False
        assert await storage.append_items(token, 0, ["mine"]) is True
        await storage.settle_many([success(token, now)])
        assert await storage.append_items(token, 1, ["late"]) is False
        assert await storage.read_items(token.uuid, 0, 9) == ["mine"]

    @check("STORAGE-73", needs=("streams",))
    async def test_items_go_with_their_record(self, bench: Bench[Storage]) -> None:
        """Items are deleted with their record: by delete, by purge, by flush.

        If this fails, check every way in which a record is deleted.
        """
        storage, now = await bench.open(), bench.now()
        tokens = await started(storage, n=3)
        for token in tokens:
            await storage.append_items(token, 0, ["x"])
        await storage.settle_many([success(token, now) for token in tokens[:2]])
        await storage.delete_many([tokens[0].uuid])
        assert await storage.read_items(tokens[0].uuid, 0, 9) == []
        await storage.purge(now + 10_000, 10)
        assert await storage.read_items(tokens[1].uuid, 0, 9) == []
        assert await storage.read_items(tokens[2].uuid, 0, 9) == ["x"]
        await storage.flush()
        assert await storage.read_items(tokens[2].uuid, 0, 9) == []

    @check("STORAGE-74", lacks=("streams",))
    async def test_items_are_refused(self, bench: Bench[Storage]) -> None:
        """A storage that does not declare `streams` refuses items with `CapabilityError`.

        If this fails, check that `append_items` and `read_items` are those of the base class, or declare
        it.
        """
        storage = await bench.open()
        (token,) = await started(storage)
        with pytest.raises(CapabilityError, match="streams"):
            await storage.append_items(token, 0, ["x"])
        with pytest.raises(CapabilityError, match="streams"):
            await storage.read_items(token.uuid, 0, 9)
