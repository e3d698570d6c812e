"""Broker, storage and global config of qtasks on PostgreSQL, and a plugin that reports slow tasks."""

from __future__ import annotations

from qtasks.backends import Backend
from qtasks_postgres.broker import PostgresBroker
from qtasks_postgres.global_config import PostgresGlobalConfig
from qtasks_postgres.link import PostgresLink
from qtasks_postgres.storage import PostgresStorage

__all__ = ["PostgresBroker", "PostgresGlobalConfig", "PostgresLink", "PostgresStorage", "backend_from_url"]


def backend_from_url(url: str) -> Backend:
    """The three components over one schema. Nothing is opened yet.

    Parameters:
        url: `postgresql://user:password@host:port/database?schema=qtasks`.

    Raises:
        ConfigError: it is not such a URL.
    """
    link = PostgresLink(url)
    return Backend(PostgresBroker(link), PostgresStorage(link), PostgresGlobalConfig(link))
