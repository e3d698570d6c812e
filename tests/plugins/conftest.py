"""What the tests of first-party plugins share: an empty store of each kind, and real worker processes on Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

from tests.app.conftest import redis_server, url
from tests.support.commands import Running, running
from tests.support.redis_server import RedisServer

__all__ = ["redis_server", "redis_url", "start_workers", "url"]

StartWorkers = Callable[..., list[Running]]


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis database."""
    return redis_server.url()


@pytest.fixture
def start_workers(redis_url: str, tmp_path: Path) -> Iterator[StartWorkers]:
    """Starts worker processes for the `app` of a module; they are ended with the test.

    A lost worker's tasks are taken over after a second, so that tests need not wait.
    """
    with ExitStack() as stack:

        def start(module: ModuleType, count: int = 2, **env: str) -> list[Running]:
            env = {"QTASKS_URL": redis_url, "QTASKS_LEASE": "1", **env}
            command = ("-A", f"{module.__name__}:app", "run")
            return [stack.enter_context(running(tmp_path, *command, **env)) for _ in range(count)]

        yield start
