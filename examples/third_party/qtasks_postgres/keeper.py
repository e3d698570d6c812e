"""Renews leases from a thread of its own, over a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from qtasks.components.broker import LeaseKeeper
from qtasks.components.primitives import DeliveryHandle, HoldVerdict
from qtasks_postgres.faults import backend_error, lost_a_race
from qtasks_postgres.rows import json_text
from qtasks_postgres.target import Target

EXTEND: Final = """
    UPDATE tasks t SET lease_until = moment() + v.lease
    FROM items(%s::json) v
    WHERE t.app = %s AND t.uuid = v.uuid AND t.state + 0 = 2 AND t.entry_epoch = v.epoch AND t.entry_owner = v.owner
    RETURNING t.uuid
    """
_PIECE: Final = 500
_TRIES: Final = 20


def extend_values(app: int, items: Sequence[tuple[DeliveryHandle, float]]) -> tuple[Any, ...]:
    """The parameters of `EXTEND`."""
    batch = [
        {"uuid": handle.uuid, "epoch": handle.epoch, "owner": json_text(handle.owner), "lease": lease}
        for handle, lease in items
    ]
    return json_text(batch), app


def verdicts(handles: Sequence[DeliveryHandle], rows: Sequence[tuple[UUID]]) -> list[HoldVerdict]:
    """The verdicts on handles of different tasks, where these were renewed."""
    held = {uuid for (uuid,) in rows}
    return [HoldVerdict.HELD if handle.uuid in held else HoldVerdict.LOST for handle in handles]


class PostgresLeaseKeeper(LeaseKeeper):
    """Connects when it is first used, and again when the connection is lost.

    Parameters:
        target: the schema.
        app: the number of the app in it.
    """

    def __init__(self, target: Target, app: int) -> None:
        self._target = target
        self._app = app
        self._connection: psycopg.Connection[Any] | None = None

    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        found: list[HoldVerdict] = []
        try:
            # In pieces, so that settles of the same tasks get in between.
            for begin in range(0, len(handles), _PIECE):
                piece = handles[begin : begin + _PIECE]
                values = extend_values(self._app, [(handle, lease) for handle in piece])
                found += verdicts(piece, self._rows(values))
        except psycopg.Error as error:
            self.close()
            raise backend_error(error, self._target.label) from error
        return found

    def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _rows(self, values: Sequence[Any]) -> list[Any]:
        if self._connection is None:
            connection = psycopg.connect(self._target.conninfo, autocommit=True, connect_timeout=10)
            connection.execute(
                "SELECT set_config('search_path', %s, false)", [f"{self._target.schema}, pg_temp"]
            )
            connection.execute(
                "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
            )
            self._connection = connection
        for attempt in range(_TRIES):
            try:
                return self._connection.execute(EXTEND.encode(), values).fetchall()
            except psycopg.OperationalError as error:
                if not lost_a_race(error) or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")
