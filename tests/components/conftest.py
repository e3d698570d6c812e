"""What the tests of the Redis backend share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.redis_servers import servers


@pytest.fixture(scope="module", params=servers())
def program(request: pytest.FixtureRequest) -> Any:
    """A server program; whoever asks for it runs once with each."""
    return request.param
