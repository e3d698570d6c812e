"""The file itself: several processes and apps on it, corrupt rows, other schemas, other programs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from qtasks.components import sqlite
from qtasks.components.primitives import DeliveryHandle, HoldVerdict, PushItem, SettleVerdict
from qtasks.components.sqlite import SQLiteBroker
from qtasks.errors import ConfigError, FatalError
from qtasks.schemas import TaskStatusEnum
from tests.components.sqlite_support import QUEUE, opened, process, raw, record, success

PRODUCER = """
import asyncio, sys
from uuid import UUID
from tests.components.sqlite_support import opened, record

async def main():
    async with opened(sys.argv[1]) as (broker, storage):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await broker.add_and_push([record(uuid=UUID(sys.argv[2]), args=(7,))], None)
        found = await storage.wait_settled(UUID(sys.argv[2]), 30)
        print(found.returning, flush=True)

asyncio.run(main())
"""


async def test_another_process_wakes_the_worker_and_is_woken(tmp_path):
    path, uuid = tmp_path / "f.db", record().uuid
    async with opened(path) as (broker, _):
        with process(PRODUCER, path, uuid) as child:
            assert await asyncio.to_thread(child.stdout.readline) == "open\n"
            waiting = asyncio.create_task(broker.wait_for_work(QUEUE, 30))
            await asyncio.sleep(0)
            child.stdin.write("\n")
            child.stdin.flush()
            await asyncio.wait_for(waiting, 20)
            ((handle, found),) = await broker.claim_and_start(5, QUEUE, "me", 30)
            assert (found.uuid, found.args) == (uuid, (7,))
            assert await broker.settle_and_ack([success(handle, "done")]) == [SettleVerdict.ACCEPTED]
            assert await asyncio.to_thread(child.stdout.readline) == "done\n"


async def test_a_record_survives_to_the_bit(tmp_path):
    async with opened(tmp_path / "f.db") as (_, storage):
        odd = record(
            args=(1.1, float("inf"), "\0ü", None), kwargs={"k": [1, {"x": True}]}, created_at=1795479976.5619078,
            available_at=0.1 + 0.2, extra={"unique_key": "a\nb\0"}, unique_key="a\nb\0", replay_of=record().uuid,
            priority=-128, retry=3, result_ttl=0.5, progress={"done": 1},
        )  # fmt: skip
        await storage.add_many([odd])
        assert await storage.get_many([odd.uuid]) == [odd]


@pytest.mark.parametrize(
    "payload", [b"[", b"5", b'["t","default",0,[],{},{},null,"d",null,5]'], ids=["cut", "shape", "field"]
)
async def test_a_corrupt_row_is_buried_and_the_others_go_on(tmp_path, caplog, payload):
    path = tmp_path / "f.db"
    async with opened(path) as (broker, storage):
        records = [record() for _ in range(5)]
        await broker.add_and_push(records, None)
        with raw(path) as connection:
            connection.execute(
                "UPDATE tasks SET payload = ? WHERE uuid = ?", (payload, records[2].uuid.bytes)
            )
        assert len((await storage.scan_open(None, 10, 9e9)).records) == 5
        started = await broker.claim_and_start(10, QUEUE, "me", 30)
        assert [found.uuid for _, found in started] == [
            each.uuid for each in records if each is not records[2]
        ]
        (dead,) = (await storage.scan_dead(None, 10)).records
        assert (dead.uuid, dead.status, dead.dead) == (records[2].uuid, TaskStatusEnum.ERROR, True)
        assert "cannot be read" in dead.traceback
        assert await broker.contains_many([dead.uuid]) == [False]
        assert str(dead.uuid) in caplog.text


async def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "f.db"
    async with opened(path):
        pass
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    with pytest.raises(FatalError, match="schema of version 99"):
        await SQLiteBroker(path).open()


async def test_a_file_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "f.db"
    with raw(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(FatalError, match="another program"):
        await SQLiteBroker(path).open()


async def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "f.db"
    path.write_bytes(b"not a database at all, but long enough to be one" * 100)
    with pytest.raises(FatalError, match=r"f\.db"):
        await SQLiteBroker(path).open()


async def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FatalError, match="nowhere"):
        await SQLiteBroker(tmp_path / "nowhere" / "f.db").open()


def test_a_private_memory_database_is_refused():
    with pytest.raises(ConfigError, match="memory://"):
        SQLiteBroker(":memory:")


async def test_apps_in_one_file_do_not_meet(tmp_path):
    path = tmp_path / "f.db"
    async with opened(path, "app") as (broker, storage), opened(path, "app_x") as (other, other_storage):
        one = record(unique_key="k")
        twin = record(uuid=one.uuid, unique_key="k")
        await broker.add_and_push([one], None)
        await other.add_and_push([twin], None)
        assert broker.locality != other.locality
        await broker.flush()
        await storage.flush()
        assert await broker.size() == {}
        assert (await other.size())["default"].ready == 1
        assert (await other_storage.counts())["new"] == 1


async def test_the_epoch_counter_survives_flush_and_reopening(tmp_path):
    path, item = tmp_path / "f.db", PushItem(record().uuid)
    epochs = []
    for _ in range(3):
        async with opened(path) as (broker, _):
            await broker.push_many([item])
            (handle,) = await broker.claim(1, QUEUE, "me", 30)
            epochs.append(handle.epoch)
            await broker.flush()
    assert epochs == sorted(set(epochs))


async def test_the_lease_keeper_works_from_its_own_thread(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):
        await broker.push_many([PushItem(record().uuid)])
        (handle,) = await broker.claim(1, QUEUE, "me", 30)
        stranger = handle._replace(owner="other")
        keeper = broker.lease_keeper()

        def renew(handles: list[DeliveryHandle]) -> list[HoldVerdict]:
            try:
                return keeper.extend(handles, 60)
            finally:
                keeper.close()

        assert await asyncio.to_thread(renew, [handle, stranger]) == [HoldVerdict.HELD, HoldVerdict.LOST]


async def test_waiting_for_what_does_not_exist(tmp_path):
    async with opened(tmp_path / "f.db") as (_, storage):
        with pytest.raises(LookupError):
            await storage.wait_settled(record().uuid, 30)


async def test_many_wait_for_many(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        records = [record() for _ in range(50)]
        await broker.add_and_push(records, None)
        waiting = [
            asyncio.create_task(storage.wait_settled(each.uuid, 30)) for each in records for _ in range(2)
        ]
        started = await broker.claim_and_start(100, QUEUE, "me", 30)
        await broker.settle_and_ack([success(handle, found.uuid) for handle, found in started])
        results = await asyncio.gather(*waiting)
        assert [found.returning for found in results] == [
            str(each.uuid) for each in records for _ in range(2)
        ]


async def test_a_stream_starts_anew_with_a_new_run(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, storage):
        one = record()
        await broker.add_and_push([one], None)
        ((handle, _),) = await broker.claim_and_start(1, QUEUE, "me", 30)
        assert await storage.append_items(handle, 0, [1, 2, 3])
        assert await storage.append_items(handle, 2, [3, 4])
        assert await storage.read_items(one.uuid, 1, 10) == [2, 3, 4]
        assert not await storage.append_items(handle, 9, [10])
        assert not await storage.append_items(handle._replace(owner="other"), 0, [0])
        assert await storage.append_items(handle, 0, ["new"])
        assert await storage.read_items(one.uuid, 0, 10) == ["new"]


SERVING = """
import sys
from qtasks import QueueTasks

app = QueueTasks("app", "sqlite:///" + sys.argv[1])

@app.task(name="look")
async def look() -> float:
    return sys.getswitchinterval()

async def main():
    async with app:
        before = sys.getswitchinterval()
        task = await app.add_task("look")
        await app.serve(until_idle=True)
        return before, (await task.wait_result()).returning

import asyncio
before, embedded = asyncio.run(main())
app.run_forever(until_idle=True)
print(before == embedded, round(sys.getswitchinterval(), 6))
"""


async def test_a_process_that_only_serves_switches_threads_more_often(tmp_path):
    with process(SERVING, tmp_path / "f.db") as child:
        assert (await asyncio.to_thread(child.stdout.read)).split() == ["True", "0.0005"]


def test_no_statement_numbers_its_parameters() -> None:
    """`?1` is a name to sqlite3, which takes no sequence for names from Python 3.14 on, and warns before."""
    sources = sorted(Path(sqlite.__file__).parent.glob("*.py"))
    assert len(sources) > 10
    found = [path.name for path in sources if re.search(r"\?(\d|\{)", path.read_text(encoding="utf-8"))]
    assert found == []


async def test_what_is_read_together_is_of_one_moment(tmp_path):
    """Else a task that moves while its queue is counted, state by state, is in none of them."""
    path = tmp_path / "f.db"
    async with opened(path) as (broker, _):
        await broker.add_and_push([record()], None)

        def count_twice(connection):
            count = "SELECT count(*) FROM tasks WHERE state = 0"
            before = connection.execute(count).fetchone()
            with raw(path) as other:
                other.execute("UPDATE tasks SET state = 2")
            return before, connection.execute(count).fetchone()

        assert await broker._opened().read(count_twice) == ((1,), (1,))
        assert (await broker.size())["default"].leased == 1
        with pytest.raises(ZeroDivisionError):
            await broker._opened().read(lambda connection: 1 // 0)
        assert (await broker.size())["default"].leased == 1
