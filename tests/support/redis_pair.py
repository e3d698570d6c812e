"""Components over a real Redis, bound and open."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from qtasks.components.primitives import DeliveryHandle, Outcome, Settle
from qtasks.components.redis import RedisBroker, RedisGlobalConfig, RedisLink, RedisStorage
from qtasks.config import QueueConfig
from qtasks.manager import PluginManager
from qtasks.schemas import TaskRecord, TaskStatusEnum

QUEUE = ("default",)


class Trio(NamedTuple):
    """What one URL gives."""

    broker: RedisBroker
    storage: RedisStorage
    config: RedisGlobalConfig
    link: RedisLink


@asynccontextmanager
async def opened(url: str, app: str = "app", **settings: Any) -> AsyncIterator[Trio]:
    """Broker, storage and global config over one link."""
    link = RedisLink(url)
    trio = Trio(RedisBroker(link), RedisStorage(link), RedisGlobalConfig(link), link)
    pm = PluginManager()
    try:
        for part in trio[:3]:
            part.bind(pm, app_name=app, config=QueueConfig(**settings))
            await part.open()
        yield trio
    finally:
        for part in trio[:3]:
            await part.close()


def key(name: str, app: str = "app") -> str:
    """A key as the server has it."""
    return f"qtasks:{{{app}}}:{name}"


def record(**changes: Any) -> TaskRecord:
    """A new record, due now."""
    now = time.time() - 0.001
    times = {"created_at": now, "updated_at": now, "available_at": now}
    return TaskRecord(**{"uuid": uuid4(), "task_name": "task", "digest": "d", **times, **changes})


def success(handle: DeliveryHandle, returning: Any = None) -> Settle:
    """A settle with a result."""
    now = time.time()
    return Settle(
        handle,
        Outcome.SUCCESS,
        {
            "status": TaskStatusEnum.SUCCESS, "returning": returning, "updated_at": now, "finished_at": now,
            "expires_at": now + 3600.0,
        },
    )  # fmt: skip
