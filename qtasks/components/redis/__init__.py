"""Redis ≥ 6.2 and Valkey: broker, storage and global config (DELIVERY.md, "Redis")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtasks.components.redis.broker import RedisBroker
from qtasks.components.redis.global_config import RedisGlobalConfig
from qtasks.components.redis.link import RedisLink
from qtasks.components.redis.storage import RedisStorage
from qtasks.components.redis.target import Target, parse_url

if TYPE_CHECKING:
    from qtasks.backends import Backend

__all__ = [
    "RedisBroker", "RedisGlobalConfig", "RedisLink", "RedisStorage", "Target",
    "backend_from_url", "parse_url",
]  # fmt: skip


def backend_from_url(url: str) -> Backend:
    """Broker, storage and global config over the same connections.

    Raises:
        ConfigError: the URL cannot be read.
    """
    from qtasks.backends import Backend

    link = RedisLink(url)
    return Backend(RedisBroker(link), RedisStorage(link), RedisGlobalConfig(link))
