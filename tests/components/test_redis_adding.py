"""Adding to Redis: plain tasks take a short way (lua/add_plain.lua) that writes what the long one writes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from qtasks.components.primitives import Added
from qtasks.components.redis import link, scripts
from qtasks.schemas import TaskRecord, TaskStatusEnum
from tests.support.redis_pair import QUEUE, Trio, opened, record, success
from tests.support.redis_server import RedisServer

NOTHING = b"return nil"
"""In the place of add_plain.lua: the long way does everything."""

A, S, C, E, F = Added.ADDED, Added.SAME, Added.CONFLICT, Added.EXISTS, Added.FULL


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes") as started:
        yield started


def plain(**changes: Any) -> TaskRecord:
    """A record as the producer makes it."""
    return record(**{"digest": "0123456789abcdef" * 2, **changes})


Batches = list[tuple[Sequence[TaskRecord], int | None]]


def one() -> Batches:
    return [([plain()], None)]


def some_in_two_queues() -> Batches:
    return [
        ([plain(queue="mail", priority=-128), plain(priority=127), plain(queue="mail", args=("x",))], None)
    ]


def many() -> Batches:
    return [([plain(args=(n,)) for n in range(400)], None), ([plain(digest="text")], None)]


def as_many_as_there_is_room_for() -> Batches:
    return [([plain(), plain(queue="mail")], 2), ([plain()], 2)]


def one_too_many() -> Batches:
    return [([plain(), plain()], 2), ([plain(), plain(queue="mail")], 2)]


def one_twice() -> Batches:
    it = plain()
    return [([plain(), it, it, replace(it, digest="other")], None)]


def one_again() -> Batches:
    it = plain()
    return [([it], None), ([plain(), it], None), ([replace(it, digest="other")], None), ([it, it], None)]


def one_that_waits_for_its_time() -> Batches:
    it = plain()
    return [([plain(), replace(it, available_at=it.available_at + 3600.0)], None)]


def unique_keys() -> Batches:
    return [([plain(unique_key="k")], None), ([plain(unique_key="k"), plain(), plain(unique_key="")], None)]


def one_with_a_token() -> Batches:
    return [([plain(epoch=7, owner="me", status=TaskStatusEnum.PROCESS), plain()], None)]


VERDICTS: dict[Callable[[], Batches], list[Added]] = {
    one: [A],
    some_in_two_queues: [A] * 3,
    many: [A] * 401,
    as_many_as_there_is_room_for: [A] * 3,
    one_too_many: [A, A, F, A],
    one_twice: [A, A, S, C],
    one_again: [A, A, S, C, S, S],
    one_that_waits_for_its_time: [A, A],
    unique_keys: [A, E, A, A],
    one_with_a_token: [A, A],
}


def contents(server: RedisServer, trio: Trio) -> dict[bytes, Any]:
    """All that lies in the keys of the app."""
    with server.client(db=trio.link.target.db) as client:
        read = {
            b"hash": client.hgetall,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"set": client.smembers,
            b"stream": client.xrange,
            b"string": client.get,
        }
        return {key: read[client.type(key)](key) for key in client.scan_iter()}


async def added(server: RedisServer, batches: Batches) -> tuple[list[Added], dict[bytes, Any]]:
    """The verdicts on the batches, and what they leave."""
    async with opened(server.url()) as trio:
        kinds = [
            verdict.kind
            for records, cap in batches
            for verdict in await trio.broker.add_and_push(records, cap)
        ]
        return kinds, contents(server, trio)


@pytest.fixture
def take_the_long_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, everything takes the long way."""

    def without(name: str) -> scripts.Script:
        made = original(name)
        if name != "add_plain":
            return made
        return replace(made, body=NOTHING, sha=hashlib.sha1(NOTHING).hexdigest().encode())

    def switch() -> None:
        monkeypatch.setattr(scripts, "script", without)
        monkeypatch.setattr(link, "script", without)

    original = scripts.script
    return switch


@pytest.mark.parametrize("batches", VERDICTS, ids=lambda batches: batches.__name__)
async def test_both_ways_write_the_same(server, batches, take_the_long_way):
    """Whatever comes together in a batch, and whoever was there before."""
    given = batches()
    kinds, left = await added(server, given)
    assert kinds == VERDICTS[batches]
    take_the_long_way()
    assert await added(server, given) == (kinds, left)


async def test_one_that_has_finished_is_not_added_again(server):
    async with opened(server.url()) as trio:
        it = plain()
        await trio.broker.add_and_push([it], None)
        ((handle, _),) = await trio.broker.claim_and_start(1, QUEUE, "me", 30.0)
        await trio.broker.settle_and_ack([success(handle)])
        before = without_order(contents(server, trio))
        again = await trio.broker.add_and_push([it, replace(it, digest="other")], None)
        assert [verdict.kind for verdict in again] == [S, C]
        assert without_order(contents(server, trio)) == before


def without_order(left: dict[bytes, Any]) -> dict[bytes, Any]:
    """Places in the order may be drawn for nothing."""
    return {key: value for key, value in left.items() if not key.endswith(b":seq")}


async def test_an_entry_that_the_broker_has_keeps_its_token(server):
    """A record is lost while its entry is leased: added again, it is not given to two workers."""
    async with opened(server.url()) as trio:
        it = plain()
        await trio.broker.add_and_push([it], None)
        assert len(await trio.broker.claim_and_start(1, QUEUE, "me", 30.0)) == 1
        await trio.storage.flush()
        assert [verdict.kind for verdict in await trio.broker.add_and_push([it], None)] == [A]
        assert await trio.broker.claim_and_start(1, QUEUE, "other", 30.0) == []


async def test_an_idle_worker_is_told(server):
    async with opened(server.url()) as trio, opened(server.url(trio.link.target.db)) as client:
        for _ in range(3):
            waiting = asyncio.create_task(trio.broker.wait_for_work(QUEUE, 3600.0))
            await asyncio.sleep(0)
            await client.broker.add_and_push([plain()], None)
            async with asyncio.timeout(10.0):
                await waiting
                while not await trio.broker.claim_and_start(1, QUEUE, "me", 30.0):
                    await trio.broker.wait_for_work(QUEUE, 3600.0)
