"""Renews leases from a thread of its own, over a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from qtasks.components.broker import LeaseKeeper
from qtasks.components.primitives import DeliveryHandle, HoldVerdict
from qtasks.components.sqlite import entries
from qtasks.components.sqlite.faults import backend_error
from qtasks.components.sqlite.schema import BUSY_TIMEOUT, prepare
from qtasks.components.sqlite.sql import chunks
from qtasks.components.sqlite.writer import BATCH, Context


class SQLiteLeaseKeeper(LeaseKeeper):
    """Connects when it is first used, since a connection belongs to one thread.

    Parameters:
        path: the file.
        context: of the broker that it works for.
    """

    def __init__(self, path: Path, context: Context) -> None:
        self._path = path
        self._context = context
        self._connection: sqlite3.Connection | None = None

    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        try:
            verdicts: list[HoldVerdict] = []
            # In pieces, so that other writers get in between.
            for piece in chunks(handles, BATCH):
                verdicts += self._extend([entries.Extend(handle, lease) for handle in piece])
            return verdicts
        except sqlite3.Error as error:
            raise backend_error(error, self._path) from error

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _extend(self, items: list[entries.Extend]) -> list[HoldVerdict]:
        connection = self._connection
        if connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT)
            prepare(connection, fsync=False, cache_kib=1024)
            self._connection = connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            verdicts = entries.extend(connection, self._context, items)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return verdicts
