"""The exclusive id of an app in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from qtasks.components.sqlite.writer import Context


class Hold(NamedTuple):
    """One call of `Broker.hold_exclusive`; `ttl` in seconds."""

    owner: str
    ttl: float


def hold(connection: sqlite3.Connection, context: Context, items: Sequence[Hold]) -> list[bool]:
    """`Broker.hold_exclusive`."""
    now = context.clock()
    return [
        connection.execute(
            "UPDATE apps SET exclusive_owner = ?, exclusive_until = ? WHERE id = ? "
            "AND (exclusive_owner IS NULL OR exclusive_owner = ? OR exclusive_until <= ?)",
            (item.owner, now + item.ttl, context.app, item.owner, now),
        ).rowcount
        == 1
        for item in items
    ]


def release(connection: sqlite3.Connection, context: Context, items: Sequence[str]) -> list[None]:
    """`Broker.release_exclusive`."""
    for owner in items:
        connection.execute(
            "UPDATE apps SET exclusive_owner = NULL, exclusive_until = NULL WHERE id = ? AND exclusive_owner = ?",
            (context.app, owner),
        )
    return [None] * len(items)
