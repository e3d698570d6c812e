"""The broker's half in SQL: entries under leases and tokens. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from qtasks.components.primitives import (
    Buried,
    DeliveryHandle,
    DropVerdict,
    Nack,
    PushItem,
    PushVerdict,
    QueueSize,
    SweepReport,
)
from qtasks.components.sqlite.schema import BURIED, DELAYED, LEASED, READY

HELD = "app = ? AND uuid = ? AND state = 2 AND entry_epoch = ? AND entry_owner = ?"
NO_ENTRY = "state = NULL, entry_epoch = NULL, entry_owner = NULL, lease_until = NULL, reason = NULL"
USED_UP = "its deliveries are used up: {} of {}; each time its worker was lost"


def push(db: sqlite3.Connection, app: int, item: PushItem, now: float) -> PushVerdict:
    """As `Broker.push_many` for one entry."""
    state = DELAYED if item.available_at > now else READY
    found = db.execute(
        "SELECT state FROM tasks WHERE app = ? AND uuid = ?", (app, item.uuid.bytes)
    ).fetchone()
    if found is None:
        db.execute(
            "INSERT INTO tasks (app, uuid, state, queue, priority, due_at, pushed_at, entry_epoch, entry_deliveries, "
            "restored) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
            (app, item.uuid.bytes, state, item.queue, item.priority, *_due(item), item.min_epoch),
        )
        return PushVerdict.PUSHED
    if found[0] is not None:
        return PushVerdict.ALREADY_THERE
    db.execute(
        "UPDATE tasks SET state = ?, queue = ?, priority = ?, due_at = ?, pushed_at = ?, entry_epoch = ?, "
        "entry_deliveries = 0, restored = 0 WHERE app = ? AND uuid = ?",
        (state, item.queue, item.priority, *_due(item), item.min_epoch, app, item.uuid.bytes),
    )
    return PushVerdict.PUSHED


def _due(item: PushItem) -> tuple[float, float]:
    """`due_at`, which a nack moves, and `pushed_at`, which is what the handle tells."""
    return item.available_at, item.available_at


Claimed = tuple[DeliveryHandle, tuple[Any, ...]]
"""A handle, and the columns that were asked for beside it."""


def claim(
    db: sqlite3.Connection, app: int, n: int, queues: Sequence[str], owner: str, until: float, now: float,
    columns: str = "seq",
) -> list[Claimed]:  # fmt: skip
    """As `Broker.claim`.

    Parameters:
        until: when the lease ends, Unix seconds.
        columns: what else is read of each row, before the claim.
    """
    db.execute("UPDATE tasks SET state = 0 WHERE app = ? AND state = 1 AND due_at <= ?", (app, now))
    rows: list[tuple[Any, ...]] = []
    for queue in dict.fromkeys(queues):
        if len(rows) >= n:
            break
        rows += db.execute(
            "SELECT seq, uuid, entry_epoch, entry_deliveries, restored, queue, priority, pushed_at, "
            f"{columns} FROM tasks WHERE app = ? AND state = 0 AND queue = ? ORDER BY priority, seq LIMIT ?",
            (app, queue, n - len(rows)),
        ).fetchall()
    if not rows:
        return []
    epoch: int = db.execute("SELECT epoch FROM apps WHERE id = ?", (app,)).fetchone()[0]
    epoch = max(epoch, *(row[2] for row in rows))
    claimed: list[Claimed] = []
    leased: list[tuple[Any, ...]] = []
    for seq, uuid, _, deliveries, restored, queue, priority, available_at, *rest in rows:
        epoch += 1
        handle = DeliveryHandle(
            UUID(bytes=uuid), epoch, owner, deliveries + 1, bool(restored), queue, priority, available_at
        )
        claimed.append((handle, tuple(rest)))
        leased.append((epoch, owner, deliveries + 1, until, seq))
    db.executemany(
        "UPDATE tasks SET state = 2, entry_epoch = ?, entry_owner = ?, entry_deliveries = ?, lease_until = ?, "
        "restored = 0 WHERE seq = ?",
        leased,
    )
    db.execute("UPDATE apps SET epoch = ? WHERE id = ?", (epoch, app))
    return claimed


def extend(db: sqlite3.Connection, app: int, handle: DeliveryHandle, until: float) -> bool:
    """Renews a lease where the token holds."""
    done = db.execute(f"UPDATE tasks SET lease_until = ? WHERE {HELD}", (until, *_key(app, handle)))
    return done.rowcount == 1


def ack(db: sqlite3.Connection, app: int, handle: DeliveryHandle) -> DropVerdict:
    """Forgets an entry where the token holds."""
    key = _key(app, handle)
    if db.execute(f"DELETE FROM tasks WHERE {HELD} AND status IS NULL", key).rowcount:
        return DropVerdict.DONE
    return _verdict(db.execute(f"UPDATE tasks SET {NO_ENTRY} WHERE {HELD}", key))


def nack(db: sqlite3.Connection, app: int, item: Nack, now: float) -> DropVerdict:
    """Puts an entry back where the token holds."""
    assigned, values = back(item, now)
    return _verdict(
        db.execute(f"UPDATE tasks SET {assigned} WHERE {HELD}", (*values, *_key(app, item.handle)))
    )


def back(item: Nack, now: float) -> tuple[str, tuple[Any, ...]]:
    """The assignments that put an entry back, and their values."""
    state, due_at = (DELAYED, now + item.delay) if item.delay > 0 else (READY, now)
    return (
        "state = ?, due_at = ?, entry_deliveries = ?, entry_epoch = ?, entry_owner = NULL, lease_until = NULL",
        (state, due_at, max(item.deliveries, 0), max(item.handle.epoch, item.min_epoch)),
    )


def bury(db: sqlite3.Connection, app: int, handle: DeliveryHandle, reason: str) -> DropVerdict:
    """Takes an entry out of delivery where the token holds."""
    return _verdict(
        db.execute(
            f"UPDATE tasks SET state = 3, lease_until = NULL, reason = ? WHERE {HELD}",
            (reason, *_key(app, handle)),
        )
    )


def sweep(db: sqlite3.Connection, app: int, limit: int, max_deliveries: int, now: float) -> SweepReport:
    """As `Broker.sweep`. The epoch stays as a floor, and the owner goes, so the old token holds nothing (R3)."""
    rows = db.execute(
        "SELECT seq, uuid, entry_epoch, entry_deliveries FROM tasks "
        "WHERE app = ? AND state = 2 AND lease_until <= ? ORDER BY lease_until LIMIT ?",
        (app, now, limit),
    ).fetchall()
    restored: list[UUID] = []
    buried: list[Buried] = []
    for seq, uuid, epoch, deliveries in rows:
        if deliveries < max_deliveries:
            restored.append(UUID(bytes=uuid))
            db.execute(
                "UPDATE tasks SET state = ?, restored = 1, due_at = ?, entry_owner = NULL, lease_until = NULL "
                "WHERE seq = ?",
                (READY, now, seq),
            )
        else:
            reason = USED_UP.format(deliveries, max_deliveries)
            buried.append(Buried(UUID(bytes=uuid), epoch, reason))
            db.execute(
                "UPDATE tasks SET state = ?, entry_owner = NULL, lease_until = NULL, reason = ? WHERE seq = ?",
                (BURIED, reason, seq),
            )
    return SweepReport(restored, buried)


def audit(db: sqlite3.Connection, app: int, limit: int) -> list[UUID]:
    """Entries that no index finds: leased without an end, or in a state that there is not."""
    rows = db.execute(
        "SELECT seq, uuid FROM tasks WHERE app = ? AND state IS NOT NULL AND (state NOT IN (0, 1, 2, 3) "
        "OR (state = 2 AND lease_until IS NULL) OR (state = 1 AND due_at IS NULL)) LIMIT ?",
        (app, limit),
    ).fetchall()
    db.executemany(
        "UPDATE tasks SET state = 0, entry_owner = NULL WHERE seq = ?", [(seq,) for seq, _ in rows]
    )
    return [UUID(bytes=uuid) for _, uuid in rows]


def discard_all(db: sqlite3.Connection, app: int, uuids: Sequence[UUID]) -> None:
    """Forgets entries in any state."""
    for uuid in uuids:
        key = (app, uuid.bytes)
        if not db.execute("DELETE FROM tasks WHERE app = ? AND uuid = ? AND status IS NULL", key).rowcount:
            db.execute(f"UPDATE tasks SET {NO_ENTRY} WHERE app = ? AND uuid = ?", key)


def sizes(rows: Sequence[tuple[str, int, int]]) -> dict[str, QueueSize]:
    """Entries by queue, from rows of (queue, state, count)."""
    found: dict[str, dict[int, int]] = {}
    for queue, state, count in rows:
        found.setdefault(queue, {})[state] = count
    return {
        queue: QueueSize(counts.get(READY, 0), counts.get(DELAYED, 0), counts.get(LEASED, 0))
        for queue, counts in found.items()
        if counts.keys() - {BURIED}
    }


def flush(db: sqlite3.Connection, app: int) -> None:
    """Forgets all entries."""
    db.execute("DELETE FROM tasks WHERE app = ? AND status IS NULL", (app,))
    db.execute(f"UPDATE tasks SET {NO_ENTRY} WHERE app = ? AND state IS NOT NULL", (app,))


def _key(app: int, handle: DeliveryHandle) -> tuple[int, bytes, int, str]:
    return app, handle.uuid.bytes, handle.epoch, handle.owner


def _verdict(cursor: sqlite3.Cursor) -> DropVerdict:
    return DropVerdict.DONE if cursor.rowcount == 1 else DropVerdict.LOST
