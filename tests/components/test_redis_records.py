"""How a record lies in Redis: each form of it is read back as it was written, as short as docs/redis.md says."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtasks.codec import Encoded
from qtasks.components.primitives import Added, Update
from qtasks.components.redis.records import (
    UnreadableError,
    decode_finished,
    decode_open,
    decode_shown,
    encode_part,
)
from qtasks.errors import EncodeError
from qtasks.schemas import TaskRecord
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer
from tests.support.redis_servers import servers

DIGESTS = ("0" * 32, "ff" * 16, "AB" * 16, "0a" * 15, "", "words", "é" * 300)
BODIES = (
    {},
    {"args": (1, "two")},
    {"kwargs": {"key": "a\tb\nc"}},
    {"retry": 0},
    {"retry": 3, "args": ([],)},
    {"priority": -128},
    {"priority": 127, "retry": 1, "extra": {"trace": True}},
    {"result_ttl": 5.0, "replay_of": uuid4()},
)


@pytest.fixture(scope="module", params=servers())
def server(request):
    with RedisServer(request.param, appendonly="no") as started:
        yield started


def every_form():
    """Records with every combination of their parts."""
    now = time.time()
    for digest, body, unique, later in itertools.product(DIGESTS, BODIES, (None, "", "k\n"), (0.0, -60.0)):
        uuid = uuid4()
        key = None if unique is None else unique and f"{unique}{uuid}"
        yield record(
            uuid=uuid, digest=digest, unique_key=key, created_at=now, updated_at=now, available_at=now + later, **body
        )  # fmt: skip


async def test_every_form_is_read_back_as_it_was_written(server):
    async with opened(server.url()) as (broker, storage, _, _):
        records = [task for task in every_form() if task.unique_key != ""]
        await broker.add_and_push(records, None)
        uuids = [task.uuid for task in records]
        assert await storage.get_many(uuids) == records
        later = time.time() + 3600
        await storage.update_many([Update(uuid, {"available_at": later}) for uuid in uuids])
        moved = [replace(task, available_at=later) for task in records]
        assert await storage.get_many(uuids) == moved
        await storage.update_many([Update(uuid, {"available_at": 1.5, "progress": 9}) for uuid in uuids])
        assert await storage.get_many(uuids) == [
            replace(task, available_at=1.5, progress=9) for task in records
        ]


async def test_an_empty_unique_key_is_a_key(server):
    async with opened(server.url()) as (broker, storage, _, _):
        for task in every_form():
            if task.unique_key == "":
                await broker.add_and_push([task], None)
                assert await storage.get_many([task.uuid]) == [task]
                await storage.cancel_many([task.uuid], "no", expires_at=time.time() + 60)


async def test_a_unique_key_that_is_too_long_is_refused_by_name(server):
    async with opened(server.url()) as (broker, _, _, _):
        longest = record(unique_key="x" * 65534)
        ((kind, _),) = await broker.add_and_push([longest], None)
        assert kind is Added.ADDED
        with pytest.raises(EncodeError, match="unique_key takes 65536 bytes"):
            await broker.add_and_push([replace(longest, unique_key="x" * 65535)], None)


async def test_arguments_that_are_json_already_are_not_written_again(server):
    async with opened(server.url()) as (broker, storage, _, _):
        task = record(args=Encoded(b'["a"]'), kwargs=Encoded(b'{"b":[1]}'), extra=Encoded(b'{"c":null}'))
        await broker.add_and_push([task], None)
        (found,) = await storage.get_many([task.uuid])
        assert (found.args, found.kwargs, found.extra) == (("a",), {"b": [1]}, {"c": None})


async def test_a_record_is_as_short_as_it_is_said_to_be(server):
    async with opened(server.url()) as (broker, _, _, link):
        now = time.time()
        tasks = [
            record(task_name="send", args=args, digest="1f" * 16, retry=0, created_at=now, updated_at=now,
                   available_at=now)
            for args in ((), ("user1@example.org",))
        ]  # fmt: skip
        await broker.add_and_push(tasks, None)
        with server.client(db=link.target.db) as client:
            found = [client.hget("qtasks:{app}:rec", task.uuid.bytes) for task in tasks]
        assert [value[32:] for value in found] == [
            b'["send","default"]',
            b'["send","default",["user1@example.org"]]',
        ]


async def test_a_finished_record_keeps_what_it_was(server):
    async with opened(server.url()) as (broker, storage, _, _):
        records = [task for task in every_form() if task.unique_key != ""]
        await broker.add_and_push(records, None)
        while claimed := await broker.claim_and_start(100, QUEUE, "me", 30.0):
            await broker.settle_and_ack([success(handle) for handle, _ in claimed])
        for task, found in zip(records, await storage.get_many([task.uuid for task in records]), strict=True):
            assert found is not None
            assert found.finished_at is not None
            for name in (
                "args",
                "kwargs",
                "retry",
                "priority",
                "created_at",
                "digest",
                "unique_key",
                "extra",
            ):
                assert getattr(found, name) == getattr(task, name)


TASK = record(args=(1,), extra={"a": 1}, replay_of=uuid4(), unique_key="k")
OPEN = b"R" + bytes(6) + encode_part(TASK)
TOKEN = struct.pack(">cdIddH", b"P", 3.0, 1, 1.0, 2.0, 2) + b"me"
FINISHED = struct.pack(">ccBdH", b"F", b"s", 0, 1.0, len(TOKEN)) + TOKEN + OPEN + b'\n{"finished_at":2.0}'

damage = st.lists(
    st.tuples(st.integers(0, len(FINISHED)), st.integers(0, 9), st.binary(max_size=9)),
    min_size=1, max_size=3,
)  # fmt: skip


def damaged(value: bytes, where: list[tuple[int, int, bytes]]) -> bytes:
    """The value with other bytes in some places."""
    for at, size, other in where:
        at %= len(value) + 1
        value = value[:at] + other + value[at + size :]
    return value


def outcome(read: Callable[[UUID, bytes], TaskRecord], value: bytes) -> TaskRecord | UnreadableError:
    try:
        return read(TASK.uuid, value)
    except UnreadableError as error:
        return error


@given(damage, damage, damage)
def test_whatever_bytes_are_there_they_are_a_record_or_unreadable(first, second, third):
    """One damaged record must not break the batch, or the page, that it is in."""
    for read, value in ((decode_open, OPEN), (decode_finished, FINISHED)):
        assert isinstance(outcome(read, damaged(value, first)), TaskRecord | UnreadableError)
    assert decode_shown(TASK.uuid, b"R", OPEN, TOKEN, b'"why"') is not None
    decode_shown(TASK.uuid, b"R", OPEN, damaged(TOKEN, second), damaged(b'"why"', third))
    decode_shown(TASK.uuid, b"F", damaged(FINISHED, second), b"", b"")


@pytest.mark.parametrize(("old", "new"), [(b'"replay_of":"', b'"replay_of":5,"x":"'), (b',{"', b',[],{"')])
def test_json_of_another_shape_is_unreadable(old, new):
    assert OPEN.count(old) == 1
    with pytest.raises(UnreadableError, match=str(TASK.uuid)):
        decode_open(TASK.uuid, OPEN.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"), [(b"Fs", b"F?"), (b'\n{"finished_at":2.0}', b'\n["finished_at"]'), (b"P@", b"P\x7f\xf0")]
)
def test_a_finished_record_of_another_shape_is_unreadable(old, new):
    assert FINISHED.count(old) == 1
    with pytest.raises(UnreadableError):
        decode_finished(TASK.uuid, FINISHED.replace(old, new))
