"""Group commit: one bad row fails alone, a locked file is waited for, a cancelled caller undoes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from qtasks.components.primitives import Added, CancelVerdict, PushItem, SettleVerdict
from qtasks.components.sqlite import SQLiteBroker
from qtasks.errors import BackendError, FatalError, NotStartedError, TransientError, WrongLoopError
from tests.components.sqlite_support import QUEUE, opened, process, raw, record, refuse, success

LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


async def test_concurrent_callers_share_transactions(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):
        statements: list[str] = []
        await broker._file._write.run(lambda connection: connection.set_trace_callback(statements.append))
        verdicts = await asyncio.gather(*(broker.add_and_push([record()], None) for _ in range(200)))
        assert [verdict.kind for (verdict,) in verdicts] == [Added.ADDED] * 200
        assert sum(text == "COMMIT" for text in statements) <= 2


async def test_a_bad_row_fails_alone_among_callers(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        records = [record() for _ in range(20)]
        refuse(tmp_path / "f.db", records[7].uuid)
        adding = [broker.add_and_push([each], None) for each in records]
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert isinstance(results[7], BackendError)
        assert [i for i, result in enumerate(results) if isinstance(result, Exception)] == [7]
        stored = await storage.get_many([each.uuid for each in records])
        assert [i for i, each in enumerate(stored) if each is None] == [7]


async def test_a_bad_row_fails_alone_in_its_batch(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        records = [record() for _ in range(10)]
        await broker.add_and_push(records, None)
        started = await broker.claim_and_start(10, QUEUE, "me", 30)
        refuse(tmp_path / "f.db", records[3].uuid)
        verdicts = await broker.settle_and_ack([success(handle) for handle, _ in started])
        assert [i for i, verdict in enumerate(verdicts) if verdict is not SettleVerdict.ACCEPTED] == [3]
        assert (await storage.counts())["success"] == 9


async def test_a_locked_file_is_waited_for(tmp_path):
    path = tmp_path / "f.db"
    async with opened(path) as (broker, _):
        await broker._file._write.run(lambda connection: connection.execute("PRAGMA busy_timeout = 1"))
        with process(LOCKING, path) as child:
            assert child.stdout.readline() == "locked\n"
            busy = asyncio.Event()
            run = broker._file._write.run

            async def watched(function):
                try:
                    return await run(function)
                except sqlite3.OperationalError:
                    busy.set()
                    raise

            broker._file._write.run = watched
            adding = asyncio.create_task(broker.add_and_push([record()], None))
            await busy.wait()
            assert not adding.done()
            child.stdin.write("\n")
            child.stdin.flush()
            assert (await adding)[0].kind is Added.ADDED


async def test_a_file_that_stays_locked_is_told_to_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr("qtasks.components.sqlite.writer.BUSY_PATIENCE", 0.0)
    path = tmp_path / "f.db"
    async with opened(path) as (broker, _):
        await broker._file._write.run(lambda connection: connection.execute("PRAGMA busy_timeout = 1"))
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TransientError, match="locked"):
                await broker.push_many([PushItem(record().uuid)])
            other.execute("COMMIT")
        assert len(await broker.push_many([PushItem(record().uuid)])) == 1


async def test_a_full_disk_is_transient(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):

        def limit(connection):
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

        await broker._file._write.run(limit)
        with pytest.raises(TransientError, match="full"):
            await broker.add_and_push([record(args=("x" * 100_000,))], None)


async def test_a_cancelled_caller_undoes_nothing(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        one = record()
        release = threading.Event()
        holding = asyncio.create_task(broker._file._write.run(lambda connection: release.wait()))
        adding = asyncio.create_task(broker.add_and_push([one], None))
        await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        release.set()
        await holding
        await broker.push_many([PushItem(record().uuid)])
        assert (await storage.get_many([one.uuid]))[0] is not None
        assert await broker.contains_many([one.uuid]) == [True]


async def test_what_was_handed_in_is_written_before_the_close(tmp_path):
    path = tmp_path / "f.db"
    broker = SQLiteBroker(path)
    await broker.open()
    pushing = asyncio.create_task(broker.push_many([PushItem(record().uuid)]))
    await asyncio.sleep(0)
    await broker.close()
    assert len(await pushing) == 1
    with pytest.raises(NotStartedError):
        await broker.push_many([PushItem(record().uuid)])


async def test_components_of_one_file_share_the_writer(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        assert broker._file is storage._file
        await storage.close()
        assert await broker.size() == {}


async def test_another_loop_is_refused(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):
        with pytest.raises(WrongLoopError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, broker.push_many([PushItem(record().uuid)]))


async def test_a_fork_is_refused(tmp_path, monkeypatch):
    async with opened(tmp_path / "f.db") as (broker, _):
        monkeypatch.setattr(broker._file, "_process", -1)  # as a child sees it
        with pytest.raises(FatalError, match="before a fork"):
            await broker.size()


async def test_one_lost_token_in_a_batch_costs_the_others_nothing(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        await broker.add_and_push([record() for _ in range(9)], None)
        handles = [handle for handle, _ in await broker.claim_and_start(9, QUEUE, "me", 30)]
        await broker.settle_and_ack([success(handles[4], "first")])
        late = handles[7]._replace(epoch=handles[7].epoch + 100)
        settles = [success(handle, "second") for handle in (*handles[:7], late, handles[8])]
        verdicts = await broker.settle_and_ack(settles)
        expected = [SettleVerdict.ACCEPTED] * 9
        expected[4], expected[7] = SettleVerdict.ALREADY_MINE, SettleVerdict.REJECTED
        assert verdicts == expected
        results = [each.returning for each in await storage.get_many([handle.uuid for handle in handles])]
        assert results == ["second"] * 4 + ["first"] + ["second"] * 2 + [None, "second"]
        assert (await broker.size())["default"].leased == 1


async def test_a_batch_with_tasks_that_are_there_adds_the_others(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        known, new = record(), record()
        await broker.add_and_push([known], None)
        other = record(uuid=known.uuid, digest="another")
        verdicts = await broker.add_and_push([known, new, other, new], None)
        kinds = [verdict.kind for verdict in verdicts]
        assert kinds == [Added.SAME, Added.ADDED, Added.CONFLICT, Added.SAME]
        assert (await broker.size())["default"].ready == 2
        assert await storage.get_many([known.uuid, new.uuid]) == [known, new]


async def test_a_claim_sorts_out_what_cannot_start(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        plain, early, conflicting = record(), record(available_at=9e9), record(epoch=700, owner="before")
        orphan = PushItem(record().uuid, available_at=9e9)
        await storage.add_many([early, conflicting])
        await broker.add_and_push([plain], None)
        await broker.push_many(
            [PushItem(early.uuid), PushItem(conflicting.uuid), orphan._replace(available_at=0.0)]
        )
        claimed = await broker.claim_and_start(9, QUEUE, "me", 30)
        assert [found.uuid for _, found in claimed] == [plain.uuid]
        size = (await broker.size())["default"]
        # The one with the higher epoch is ready at once; the one that is not due waits; what has no record is buried.
        assert (size.ready, size.delayed, size.leased) == (1, 1, 1)
        assert [each.uuid for each in await broker.buried(9)] == [orphan.uuid]
        ((handle, _),) = await broker.claim_and_start(9, QUEUE, "me", 30)
        assert (handle.uuid, handle.epoch > 700, handle.deliveries) == (conflicting.uuid, True, 1)


async def test_what_comes_during_a_transaction_is_written_after_it_and_fails_by_itself(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        writer, context = broker._file.writer, broker._context()
        begun, may_end = threading.Event(), threading.Event()

        def slow(connection, context, items):
            begun.set()
            assert may_end.wait(20)
            return list(items)

        first = asyncio.create_task(writer.submit(slow, context, ["first"]))
        await asyncio.to_thread(begun.wait, 20)
        bad, good = record(), record()
        refuse_later = asyncio.create_task(broker.add_and_push([good, bad], None))
        await asyncio.sleep(0)
        assert len(writer._waiting) == 1
        may_end.set()
        assert await first == ["first"]
        assert [verdict.kind for verdict in await refuse_later] == [Added.ADDED] * 2
        refuse(tmp_path / "f.db", bad.uuid)

        begun.clear(), may_end.clear()
        again = asyncio.create_task(writer.submit(slow, context, ["again"]))
        await asyncio.to_thread(begun.wait, 20)
        cancelling = [
            asyncio.create_task(storage.cancel_many([each.uuid], "no", expires_at=9e9))
            for each in (bad, good)
        ]
        await asyncio.sleep(0)
        may_end.set()
        assert await again == ["again"]
        results = await asyncio.gather(*cancelling, return_exceptions=True)
        assert isinstance(results[0], BackendError)
        assert results[1] == [CancelVerdict.CANCELLED]
