"""The steps of the protocol with Redis as one half of a pairing, or both: the same rules everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from qtasks.components.broker import Broker
from qtasks.components.delivery import ColocatedDelivery, Delivery, SplitDelivery, delivery_of
from qtasks.components.memory import MemoryBroker, MemoryStorage
from qtasks.components.primitives import Added, Nack, Outcome, Settle, SettleVerdict
from qtasks.components.redis import RedisBroker, RedisLink, RedisStorage
from qtasks.components.sqlite import SQLiteBroker, SQLiteStorage
from qtasks.components.storage import Storage
from qtasks.manager import PluginManager
from qtasks.schemas import TaskStatusEnum
from tests.support.redis_pair import QUEUE, record, success
from tests.support.redis_server import RedisServer

PAIRINGS = ("redis", "redis+redis", "redis+sqlite", "sqlite+redis", "redis+memory", "memory+redis")


class Pair(NamedTuple):
    """A pairing that is open."""

    broker: Broker
    storage: Storage
    delivery: Delivery


@pytest.fixture(scope="module")
def server():
    with RedisServer(appendonly="yes", appendfsync="no") as started:
        started.restrict()
        yield started


@pytest.fixture(params=PAIRINGS)
async def pair(request, server, tmp_path) -> AsyncIterator[Pair]:
    def halves(kind: str) -> tuple[Broker, Storage]:
        if kind == "redis":
            link = RedisLink(server.url(restricted=True))
            return RedisBroker(link), RedisStorage(link)
        if kind == "sqlite":
            return SQLiteBroker(tmp_path / "q.db"), SQLiteStorage(tmp_path / "q.db")
        return MemoryBroker(), MemoryStorage()

    first, _, second = request.param.partition("+")
    broker, storage = halves(first)
    if second:
        _, storage = halves(second)
    pm = PluginManager()
    for part in (broker, storage):
        part.bind(pm, app_name="app")
        await part.open()
    delivery = delivery_of(broker, storage)
    assert isinstance(delivery, SplitDelivery if second else ColocatedDelivery)
    yield Pair(broker, storage, delivery)
    for part in (broker, storage):
        await part.close()


async def one(pair: Pair, owner: str = "me", lease: float = 30.0):
    """The next claimed task, waited for."""
    while not (claimed := await pair.delivery.claim(1, QUEUE, owner, lease)):
        await asyncio.sleep(0.005)
    return claimed[0]


async def test_a_task_from_add_to_result(pair):
    task, follower = record(args=(1,)), record()
    assert [v.kind for v in await pair.delivery.add([task])] == [Added.ADDED]
    assert [v.kind for v in await pair.delivery.add([task])] == [Added.SAME]
    handle, got = await one(pair)
    assert (got.uuid, got.status, got.epoch, got.args) == (
        task.uuid,
        TaskStatusEnum.PROCESS,
        handle.epoch,
        (1,),
    )
    settle = success(handle, "result")
    settle.then = (follower,)
    assert await pair.delivery.settle([settle]) == [SettleVerdict.ACCEPTED]
    assert await pair.delivery.settle([settle]) == [SettleVerdict.ALREADY_MINE]
    finished = await pair.storage.wait_settled(task.uuid, 5.0)
    assert finished is not None
    assert finished.returning == "result"
    handle, _ = await one(pair)
    assert handle.uuid == follower.uuid
    assert await pair.broker.contains_many([task.uuid]) == [False]


async def test_a_retry_comes_back_with_its_attempt(pair):
    await pair.delivery.add([record()])
    handle, _ = await one(pair)
    now = time.time()
    changes = {
        "status": TaskStatusEnum.NEW, "attempt": 1, "deliveries": 0, "available_at": now + 0.05, "updated_at": now,
    }  # fmt: skip
    retry = Settle(handle, Outcome.RETRY, changes, nack=Nack(handle, 0.05))
    assert await pair.delivery.settle([retry]) == [SettleVerdict.ACCEPTED]
    again, got = await one(pair)
    assert (again.uuid, again.deliveries, got.attempt) == (handle.uuid, 1, 1)
    assert again.epoch > handle.epoch
    assert time.time() >= now + 0.05


async def test_a_lost_worker_is_superseded(pair):
    await pair.delivery.add([record()])
    lost, _ = await one(pair, "lost", 0.02)
    while not (await pair.broker.sweep(10, 5)).restored:
        await asyncio.sleep(0.005)
    handle, got = await one(pair, "new")
    assert handle.restored
    assert (handle.deliveries, got.owner) == (2, "new")
    assert await pair.delivery.settle([success(lost, "late")]) == [SettleVerdict.REJECTED]
    assert await pair.delivery.settle([success(handle, "good")]) == [SettleVerdict.ACCEPTED]
    assert (await pair.storage.get_many([handle.uuid]))[0].returning == "good"


async def test_a_terminal_task_is_acked_without_a_run(pair):
    task = record()
    await pair.delivery.add([task])
    await pair.storage.cancel_many([task.uuid], "no", expires_at=time.time() + 60)
    assert await pair.delivery.claim(1, QUEUE, "me", 30.0) == []
    assert await pair.broker.contains_many([task.uuid]) == [False]


async def test_the_cap(pair):
    pair.broker.config = pair.broker.config.model_copy(update={"max_queue": 2})
    verdicts = await pair.delivery.add([record(), record(), record()])
    assert [v.kind for v in verdicts] == [Added.ADDED, Added.ADDED, Added.FULL]
    assert await pair.storage.get_many([verdicts[2].uuid]) == [None]
