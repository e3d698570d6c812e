"""What the tests of the encryption share: keys, a secret, applications on stores that can be looked into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from qtasks import QueueConfig, QueueTasks
from qtasks.plugins.at_rest import AtRest
from qtasks.plugins.compression import CompressionPlugin
from qtasks.plugins.encryption import EncryptionPlugin
from qtasks.schemas import TaskRecord

SECRET = "4111-PLAINTEXT-1111"
LONG = f"{SECRET} " * 200
OLD, NEW = EncryptionPlugin.new_key(), EncryptionPlugin.new_key()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store that can be looked into from outside."""
    if request.param == "redis":
        found: str = request.getfixturevalue("redis_server").url()
        return found
    return f"sqlite:///{tmp_path / 'queue.db'}"


def make(url: str, *plugins: object, **settings: Any) -> QueueTasks:
    fast = {"release_delay": 0.01, "release_max_delay": 0.02, "max_deliveries": 3}
    return QueueTasks(url=url, config=QueueConfig(**{**fast, **settings}), plugins=plugins)


async def record(app: QueueTasks, uuid: UUID) -> TaskRecord:
    found = (await app.storage.get_many([uuid]))[0]
    assert found is not None
    return found


ORDERS: dict[str, Callable[[], list[AtRest]]] = {
    "alone": lambda: [EncryptionPlugin([NEW])],
    "encryption first": lambda: [EncryptionPlugin([NEW]), CompressionPlugin(minimum=10)],
    "compression first": lambda: [CompressionPlugin(minimum=10), EncryptionPlugin([NEW])],
}
