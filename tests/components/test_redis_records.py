"""How a record lies in Redis: each form of it is read back as it was written, as short as docs/redis.md says."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from qtasks.codec import Encoded
from qtasks.components.primitives import Update
from tests.support.redis_pair import QUEUE, opened, record, success
from tests.support.redis_server import RedisServer, flavours

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


@pytest.fixture(scope="module", params=flavours(), ids=lambda program: program.rsplit("/", 1)[-1])
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
