"""Applications for tests, one per backend, and a worker that runs beside the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qtasks.app import QueueTasks
from qtasks.config import QueueConfig
from tests.support.redis_server import RedisServer

MakeApp = Callable[..., QueueTasks]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server for all tests; each takes a database of its own."""
    with RedisServer(appendonly="yes", maxmemory_policy="noeviction") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url()
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
def make_app(url: str) -> MakeApp:
    """Makes applications on the same store; keywords are settings."""

    def make(**settings: Any) -> QueueTasks:
        plugins = settings.pop("plugins", ())
        return QueueTasks(url=url, config=QueueConfig(**settings), plugins=plugins)

    return make


@pytest.fixture
def app(make_app: MakeApp) -> QueueTasks:
    """One application with default settings."""
    return make_app()


@asynccontextmanager
async def working(app: QueueTasks) -> AsyncIterator[QueueTasks]:
    """The started application with its worker running."""
    async with app:
        serving = asyncio.create_task(app.serve())
        try:
            yield app
        finally:
            await app.stop()
            await serving
