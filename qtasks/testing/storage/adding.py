"""Checks of `add_many`, `get_many` and unique keys: a record is written once and read as it was written."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import Any
from uuid import UUID, uuid4

from qtasks.components.primitives import Added, AddVerdict, Buried
from qtasks.components.storage import Storage
from qtasks.schemas import TaskRecord
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import HOSTILE, error, handle, record, retry, success

ADDED, SAME, CONFLICT, EXISTS = Added.ADDED, Added.SAME, Added.CONFLICT, Added.EXISTS


async def add(storage: Storage, *records: TaskRecord) -> None:
    """Adds records that must be new."""
    verdicts = await storage.add_many(records)
    assert verdicts == [AddVerdict(ADDED, each.uuid) for each in records], f"not added: {verdicts}"


async def get(storage: Storage, uuid: UUID) -> TaskRecord:
    """A record that must be there."""
    (found,) = await storage.get_many([uuid])
    assert found is not None, "the record is not there"
    return found


def differences(got: TaskRecord, expected: TaskRecord) -> dict[str, tuple[Any, Any]]:
    """The fields in which two records differ, types included: what there is, and what is expected."""
    found = {}
    for each in fields(TaskRecord):
        is_now, was = getattr(got, each.name), getattr(expected, each.name)
        if is_now != was or type(is_now) is not type(was) or repr(is_now) != repr(was):
            found[each.name] = (is_now, was)
    return found


class Adding(Suite):
    """`add_many`, `get_many`."""

    @check("STORAGE-01")
    async def test_a_record_is_read_as_it_was_written(self, bench: Bench[Storage]) -> None:
        """Every field of a record comes back with the value and the type it had.

        If this fails, check the field that the message names: its column, its encoding, and what stands for
        None.
        """
        storage = await bench.open()
        full = record(
            now=1_700_000_000.123456, task_name="pkg.mod:task", queue="mail", priority=-128, attempt=3,
            args=(1, -0.5, "x", None, True, [1, {"a": []}]), kwargs={"k": {"n": None}}, deliveries=2, retry=0,
            extra={"a": [1, 2.0]}, digest="abc", unique_key="key", result_ttl=0.5, replay_of=uuid4(),
            progress={"done": 0.25},
        )  # fmt: skip
        plain = record()
        await add(storage, full, plain)
        assert differences(await get(storage, full.uuid), full) == {}
        assert differences(await get(storage, plain.uuid), plain) == {}

    @check("STORAGE-02")
    async def test_hostile_text(self, bench: Bench[Storage]) -> None:
        """Text in args, kwargs (also their names), extra, digest and progress is data: it comes back as
        it was.

        If this fails, check how text is quoted, and that NUL does not end it.
        """
        storage = await bench.open()
        records = [
            record(args=(text,), kwargs={text: text}, extra={text: [text]}, digest=text, progress=text)
            for text in HOSTILE
        ]
        await add(storage, *records)
        found = await storage.get_many([each.uuid for each in records])
        for text, got, expected in zip(HOSTILE, found, records, strict=True):
            assert got is not None
            assert differences(got, expected) == {}, f"with {text!r}"

    @check("STORAGE-03")
    async def test_falsy_values(self, bench: Bench[Storage]) -> None:
        """A result that is false, zero or empty is not taken for none; numbers keep their type and
        precision.

        If this fails, check that values are compared with None, not by their truth, and encoded as JSON
        once.
        """
        storage = await bench.open()
        values: list[Any] = [
            None,
            False,
            0,
            0.0,
            "",
            [],
            {},
            True,
            1,
            1.0,
            "null",
            "0",
            2**53 + 1,
            -(2**63),
            0.1 + 0.2,
            5e-324,
        ]
        tokens = [handle(uuid4()) for _ in values]
        await add(storage, *(record(each.uuid) for each in tokens))
        await storage.start_many(tokens)
        await storage.settle_many(
            [success(each, bench.now(), value) for each, value in zip(tokens, values, strict=True)]
        )
        for each, value in zip(tokens, values, strict=True):
            returning = (await get(storage, each.uuid)).returning
            assert repr(returning) == repr(value)

    @check("STORAGE-04")
    async def test_what_is_read_is_a_copy(self, bench: Bench[Storage]) -> None:
        """Changing what was written or read changes nothing in the storage.

        If this fails, check that nothing mutable is shared with the caller.
        """
        storage = await bench.open()
        given = record(kwargs={"a": [1]}, extra={"b": {}})
        await add(storage, given)
        given.kwargs["a"].append(2)
        given.task_name = "other"
        first = await get(storage, given.uuid)
        first.extra["b"]["c"] = 1
        first.priority = 9
        second = await get(storage, given.uuid)
        assert (second.kwargs, second.extra) == ({"a": [1]}, {"b": {}})
        assert (second.task_name, second.priority) == ("task", 0)

    @check("STORAGE-05")
    async def test_add_is_idempotent(self, bench: Bench[Storage]) -> None:
        """A record whose uuid is there with the same digest is `same`, with another digest `conflict`;
        neither changes what is stored, at any status.

        If this fails, check that `add_many` inserts or reports, and never replaces.
        """
        storage = await bench.open()
        first, second = record(digest="a", args=(1,)), record(digest="a")
        await add(storage, first, second)
        token = handle(second.uuid)
        await storage.start_many([token])
        await storage.settle_many([success(token, bench.now(), 1)])
        verdicts = await storage.add_many(
            [replace(first, args=(2,)), replace(first, digest="b"), second, replace(second, digest="b")]
        )
        assert [verdict.kind for verdict in verdicts] == [SAME, CONFLICT, SAME, CONFLICT]
        assert [verdict.uuid for verdict in verdicts] == [first.uuid] * 2 + [second.uuid] * 2
        assert (await get(storage, first.uuid)).args == (1,)
        assert (await get(storage, second.uuid)).status == "success"

    @check("STORAGE-06")
    async def test_add_verdicts_stand_in_order(self, bench: Bench[Storage]) -> None:
        """The verdicts of a batch stand in the order of its records, also with duplicates inside the
        batch.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        storage = await bench.open()
        there, new, newer = record(), record(), record()
        await add(storage, there)
        batch = [new, replace(there, digest="x"), new, newer, replace(newer, digest="x"), there]
        kinds = [verdict.kind for verdict in await storage.add_many(batch)]
        assert kinds == [ADDED, CONFLICT, SAME, ADDED, CONFLICT, SAME]

    @check("STORAGE-07")
    async def test_unique_key(self, bench: Bench[Storage]) -> None:
        """While a record with a unique key is open, another one with that key `exists`, with the uuid of
        the one that stands, and is not written; the same uuid again is `same`.

        If this fails, check that the uuid is looked at before the unique key.
        """
        storage = await bench.open()
        first, second = record(unique_key="k"), record(unique_key="k")
        other, free = record(unique_key="l"), [record(), record()]
        verdicts = await storage.add_many([first, second, other, *free, first])
        kinds = [verdict.kind for verdict in verdicts]
        assert kinds == [ADDED, EXISTS, ADDED, ADDED, ADDED, SAME]
        assert verdicts[1].uuid == first.uuid, "`exists` names the record that stands"
        assert await storage.get_many([second.uuid]) == [None]

    @check("STORAGE-08")
    async def test_a_unique_key_is_held_while_open(self, bench: Bench[Storage]) -> None:
        """A unique key is held through PROCESS, retry and release, and is free once its record is terminal.

        If this fails, check that every change to a terminal status frees the key, and no other does.
        """
        storage, now = await bench.open(), bench.now()
        ends: list[Any] = ["success", "error", "cancelled", "buried"]
        for end in ends:
            first, second = record(unique_key=end), record(unique_key=end)
            await add(storage, first)
            token = handle(first.uuid)
            await storage.start_many([token])
            assert [v.kind for v in await storage.add_many([second])] == [EXISTS], "while PROCESS"
            await storage.settle_many([retry(token, now)])
            assert [v.kind for v in await storage.add_many([second])] == [EXISTS], "after a retry"
            token = handle(first.uuid, epoch=2)
            if end in ("success", "error"):
                await storage.start_many([token])
                await storage.settle_many([(success if end == "success" else error)(token, now)])
            elif end == "cancelled":
                await storage.cancel_many([first.uuid], "", expires_at=now + 100)
            else:
                await storage.bury_many([bury(first.uuid)], expires_at=now + 100)
            assert [v.kind for v in await storage.add_many([second])] == [ADDED], f"after {end}"

    @check("STORAGE-09")
    async def test_hostile_unique_keys(self, bench: Bench[Storage]) -> None:
        """Unique keys are compared as text, exactly: no pattern, no case folding, no trimming.

        If this fails, check the collation of the index, and whether the key becomes part of a larger one.
        """
        storage = await bench.open()
        records = [record(unique_key=text) for text in HOSTILE]
        await add(storage, *records)
        verdicts = await storage.add_many([record(unique_key=text) for text in HOSTILE])
        assert verdicts == [AddVerdict(EXISTS, each.uuid) for each in records]

    @check("STORAGE-10")
    async def test_many_add_the_same_at_once(self, bench: Bench[Storage]) -> None:
        """When many add the same record at the same time, one has added it; of records with one unique
        key, one.

        If this fails, check that the look-up and the insert of `add_many` are one atomic step.
        """
        storage = await bench.open()
        clients = [storage, await bench.open(like=storage)]
        same = record()
        verdicts = await bench.within(
            asyncio.gather(*(clients[i % 2].add_many([same]) for i in range(10))), "adds by many clients"
        )
        kinds = [batch[0].kind for batch in verdicts]
        assert sorted(kinds, key=str) == sorted([ADDED] + [SAME] * 9, key=str)
        verdicts = await asyncio.gather(
            *(clients[i % 2].add_many([record(unique_key="k")]) for i in range(10))
        )
        kinds = [batch[0].kind for batch in verdicts]
        assert sorted(kinds, key=str) == sorted([ADDED] + [EXISTS] * 9, key=str)
        assert len({batch[0].uuid for batch in verdicts}) == 1

    @check("STORAGE-11")
    async def test_get_in_order(self, bench: Bench[Storage]) -> None:
        """`get_many` answers in the order asked, also for duplicates, and None for strangers.

        If this fails, check that a batch that the store takes as a set is put back in the order of the
        call.
        """
        storage = await bench.open()
        records = [record() for _ in range(4)]
        await add(storage, *records)
        asked = [records[2].uuid, uuid4(), records[0].uuid, records[2].uuid]
        found = await storage.get_many(asked)
        assert [each and each.uuid for each in found] == [asked[0], None, asked[2], asked[3]]

    @check("STORAGE-12")
    async def test_empty_batches(self, bench: Bench[Storage]) -> None:
        """Every primitive takes an empty batch and gives no verdicts.

        If this fails, check that no statement with an empty list is sent to the store.
        """
        storage = await bench.open()
        assert await storage.add_many([]) == []
        assert await storage.start_many([]) == []
        assert await storage.settle_many([]) == []
        assert await storage.bury_many([], expires_at=1.0) == []
        assert await storage.cancel_many([], "", expires_at=1.0) == []
        assert await storage.cancel_requested_many([]) == []
        assert await storage.update_many([]) == []
        assert await storage.get_many([]) == []
        assert await storage.delete_many([]) == []
        assert await storage.scan(None, 10) == ([], None)

    @check("STORAGE-13")
    async def test_large_batches(self, bench: Bench[Storage]) -> None:
        """A batch of 2,500 has 2,500 verdicts, added, started, settled and read; a large payload goes
        through.

        If this fails, check the limits of the store on parameters, arguments and stack.
        """
        storage, now = await bench.open(), bench.now()
        records = [record(args=(i,)) for i in range(2500)]
        await add(storage, *records)
        tokens = [handle(each.uuid, epoch=i + 1) for i, each in enumerate(records)]
        assert {verdict.kind.value for verdict in await storage.start_many(tokens)} == {"started"}
        settles = [success(each, now, i) for i, each in enumerate(tokens)]
        assert {verdict.value for verdict in await storage.settle_many(settles)} == {"accepted"}
        found = await storage.get_many([each.uuid for each in records])
        assert [each and each.returning for each in found] == list(range(2500))
        big = record(args=("ß" * 300_000,))
        await add(storage, big)
        assert (await get(storage, big.uuid)).args == big.args


def bury(uuid: UUID, epoch: int = 10**6) -> Buried:
    """A burial above every epoch of a check."""
    return Buried(uuid, epoch, "why")
