"""What the tests share: one server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from server import PostgresServer

# The kit's state machines follow the profile. Each of their programs has a schema of its own, which takes its time.
_SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("ci", max_examples=15, derandomize=True, **_SLOW)
settings.register_profile("nightly", max_examples=500, print_blob=True, **_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A running server."""
    with PostgresServer() as started:
        yield started
