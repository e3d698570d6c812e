"""What the tests of the Redis backend share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.redis_server import RedisServer
from tests.support.redis_servers import servers


@pytest.fixture(scope="module", params=servers())
def program(request: pytest.FixtureRequest) -> Any:
    """A server program; whoever asks for it runs once with each."""
    return request.param


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server that all tests of a file share; a file that needs another one has its own."""
    with RedisServer(appendonly="yes", appendfsync="no") as started:
        yield started
