"""An application on every backend for the tests of the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtasks.app import QueueTasks

from ..apps import BACKENDS, make_app


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend's name."""
    name: str = request.param
    return name


@pytest.fixture
def app(backend: str, tmp_path: Path) -> QueueTasks:
    """An application that is not started."""
    return make_app(backend, tmp_path)
