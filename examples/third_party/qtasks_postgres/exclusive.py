"""The exclusive id of an app: one owner at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from qtasks_postgres.rows import json_text

Rows = Callable[..., Awaitable[list[Any]]]

_HOLD = """
    UPDATE apps SET exclusive_owner = new.owner, exclusive_until = moment() + new.ttl
    FROM (SELECT %s::integer AS app, %s::text AS owner, %s::float8 AS ttl) new
    WHERE id = new.app AND (exclusive_owner IS NULL OR exclusive_owner = new.owner OR exclusive_until <= moment())
    RETURNING id
    """
_RELEASE = """
    UPDATE apps SET exclusive_owner = NULL, exclusive_until = NULL WHERE id = %s AND exclusive_owner = %s RETURNING id
    """


async def hold(rows: Rows, owner: str, ttl: float) -> bool:
    """As `Broker.hold_exclusive`."""
    return bool(await rows(_HOLD, json_text(owner), ttl))


async def release(rows: Rows, owner: str) -> None:
    """As `Broker.release_exclusive`."""
    await rows(_RELEASE, json_text(owner))
