"""Claims of tasks as they were added are read from one packed row; it must say what the rows say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from unittest.mock import ANY

import pytest

from qtasks.components.primitives import Nack
from qtasks.components.sqlite import steps
from qtasks.schemas import TaskStatusEnum
from tests.components.sqlite_support import opened, raw, record, success

NOW = 1795479976.5619078
TIMES = {"created_at": NOW, "available_at": NOW - 0.0000021}


def plain_records():
    """Tasks that differ in all that a task may differ in when it is added."""
    return [
        record(**TIMES),
        record(
            **TIMES,
            args=(1.1, '"],[', "\0ü\ud7ff", None, [1, {"x": True}]),
            kwargs={"k,": {"a": [2**63, -0.5]}},
        ),
        record(**TIMES, priority=-128, queue="other", retry=3, result_ttl=0.5, digest='"'),
        record(**TIMES, priority=127, extra={"trace": {"id": "a\nb"}}, replay_of=record().uuid),
        record(created_at=NOW + 0.25, available_at=NOW, args=("x" * 1000,) * 20),
    ]


def odd_records():
    """Tasks that are looked at as rows."""
    return [
        record(created_at=0.1 + 0.2, available_at=0.3),  # finer than a time of today can be
        record(**TIMES, unique_key="only one"),
        record(**TIMES, args=("x" * 70_000,)),
        record(**TIMES, progress={"done": 1}),
        record(**TIMES, traceback="of an attempt before", attempt=1),
    ]


@pytest.mark.parametrize("way", ["packed", "rows", "mixed"])
async def test_a_claim_gives_what_was_added(tmp_path, monkeypatch, way):
    found = []
    select = steps.select_packs

    def watched(*args):
        packs = None if way == "rows" else select(*args)
        found.append(packs)
        return packs

    monkeypatch.setattr(steps, "select_packs", watched)
    async with opened(tmp_path / "f.db") as (broker, storage):
        added = plain_records() + (odd_records() if way == "mixed" else [])
        await broker.add_and_push(added, None)
        claimed = await broker.claim_and_start(100, ("other", "default"), "me", 30)
        assert [packs is not None for packs in found] == [way == "packed"]
        expected = sorted(added, key=lambda each: (each.queue != "other", each.priority))
        assert [handle.uuid for handle, _ in claimed] == [each.uuid for each in expected]
        assert len({handle.epoch for handle, _ in claimed}) == len(added)
        stored = await storage.get_many([each.uuid for each in expected])
        for (handle, started), each, there in zip(claimed, expected, stored, strict=True):
            assert started == there == replace(
                each, status=TaskStatusEnum.PROCESS, started_at=ANY, updated_at=started.started_at, deliveries=1,
                epoch=handle.epoch, owner="me",
            )  # fmt: skip
            token = (handle.uuid, handle.epoch, "me", 1, False)
            assert handle == (*token, each.queue, each.priority, each.available_at)
            assert type(started.args) is tuple
        assert all(verdict.name == "ACCEPTED" for verdict in await broker.settle_and_ack(
            [success(handle) for handle, _ in claimed]
        ))  # fmt: skip


@pytest.mark.parametrize("first", [odd_records, plain_records])
@pytest.mark.parametrize("at", range(5))
async def test_each_odd_task_is_told_apart(tmp_path, first, at):
    async with opened(tmp_path / "f.db") as (broker, _):
        await broker.add_and_push([replace(first()[at], queue="default")], None)
        packs = await broker._file._write.run(
            lambda connection: steps.select_packs(connection, broker._number, ("default",), 9, NOW)
        )
        assert (packs is None) == (first is odd_records)


async def test_what_was_delivered_before_is_no_first_delivery(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):
        await broker.add_and_push([record(**TIMES)], None)
        ((handle, _),) = await broker.claim_and_start(9, ("default",), "me", 30)
        await broker.nack_many([Nack(handle, 0.0, 1, handle.epoch)])
        packs = await broker._file._write.run(
            lambda connection: steps.select_packs(connection, broker._number, ("default",), 9, NOW + 1e6)
        )
        assert packs is None


async def test_a_uuid_that_is_none_does_not_shift_those_of_other_tasks(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):
        added = [record(**TIMES, args=(n,)) for n in range(3)]
        await broker.add_and_push(added, None)
        with raw(tmp_path / "f.db") as connection:
            connection.execute("UPDATE tasks SET uuid = x'00' WHERE seq = (SELECT min(seq) FROM tasks)")
        claimed = await broker.claim_and_start(9, ("default",), "me", 30)
        found = {started.uuid: (handle.uuid, started.args) for handle, started in claimed}
        for each in added[1:]:
            assert found[each.uuid] == (each.uuid, each.args)


OTHERS = {
    "status": 1, "epoch": 1, "entry_deliveries": 1, "restored": 1, "attempt": 1, "available_at": NOW - 1,
    "pushed_at": NOW - 1, "unique_key": "k", "result": b"1", "traceback": "t", "cancel_reason": "c",
    "cancel_requested": 1, "dead": 1, "expires_at": NOW + 1, "progress": b"1",
}  # fmt: skip
"""Columns, with what they have in a task of which a pack cannot tell all."""
TOLD = {"uuid", "seq", "priority", "created_at", "payload"}
GIVEN_ANEW = {"entry_epoch", "entry_owner", "owner", "deliveries", "updated_at", "started_at", "lease_until"}
# Claims look for these, or nothing is written there before a task has ended or was buried.
ELSEWHERE = {"app", "state", "queue", "due_at", "finished_at", "reason"}


async def test_no_column_of_a_task_is_overlooked(tmp_path):
    async with opened(tmp_path / "f.db") as (broker, _):
        with raw(tmp_path / "f.db") as connection:
            names = {row[1] for row in connection.execute("PRAGMA table_info(tasks)")}
            assert names == OTHERS.keys() | TOLD | GIVEN_ANEW | ELSEWHERE
            for name, value in OTHERS.items():
                added = record(**TIMES, queue=name)
                await broker.add_and_push([added], None)
                select = partial(steps.select_packs, connection, broker._number, (name,), 9, NOW)
                assert select() is not None
                connection.execute(f"UPDATE tasks SET {name} = ? WHERE queue = ?", (value, name))
                assert select() is None, name
