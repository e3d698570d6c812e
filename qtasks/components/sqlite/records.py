"""The storage's half in SQL: records under rules R4 and R5. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from qtasks.codec import decode
from qtasks.components.primitives import (
    FENCED_FIELDS,
    Added,
    AddVerdict,
    Buried,
    CancelVerdict,
    DeliveryHandle,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
    Update,
)
from qtasks.components.rules import STATUS_OF_OUTCOME, may_settle, may_start
from qtasks.components.sqlite.rows import (
    COLUMNS,
    STATUS_OF,
    assignments,
    changed_payload,
    insert_values,
    record_of,
)
from qtasks.components.sqlite.schema import CANCEL, ERROR, NEW, PROCESS
from qtasks.schemas import TaskRecord

_MARKS = ", ".join("?" * (COLUMNS.count(",") + 1))
_INSERT = f"INSERT INTO tasks (app, {COLUMNS}) VALUES (?, {_MARKS})"
# An entry may be there before its record (a broker paired with another storage before).
_FILL = f"UPDATE tasks SET ({COLUMNS}) = ({_MARKS}) WHERE app = ? AND uuid = ?"
_SELECT = f"SELECT {COLUMNS} FROM tasks WHERE app = ? AND uuid = ? AND status IS NOT NULL"


def add(db: sqlite3.Connection, app: int, record: TaskRecord) -> AddVerdict:
    """As `Storage.add_many` for one record."""
    uuid = record.uuid.bytes
    found = db.execute("SELECT status, payload FROM tasks WHERE app = ? AND uuid = ?", (app, uuid)).fetchone()
    if found is not None and found[0] is not None:
        try:
            same = decode(found[1])[7] == record.digest
        except ValueError:
            same = False
        return AddVerdict(Added.SAME if same else Added.CONFLICT, record.uuid)
    if record.unique_key is not None:
        holder = db.execute(
            "SELECT uuid FROM tasks WHERE app = ? AND unique_key = ? AND status <= 1",
            (app, record.unique_key),
        ).fetchone()
        if holder is not None:
            return AddVerdict(Added.EXISTS, UUID(bytes=holder[0]))
    if found is None:
        db.execute(_INSERT, (app, *insert_values(record)))
    else:
        db.execute(_FILL, (*insert_values(record), app, uuid))
    return AddVerdict(Added.ADDED, record.uuid)


def get(db: sqlite3.Connection, app: int, uuid: UUID) -> TaskRecord | None:
    """The record. Raises `ValueError` where it is corrupt."""
    row = db.execute(_SELECT, (app, uuid.bytes)).fetchone()
    return None if row is None else record_of(row)


def start(
    db: sqlite3.Connection, app: int, handle: DeliveryHandle, now: float, expires_at: float
) -> StartVerdict:
    """As `Storage.start_many` for one delivery. A corrupt record is written off, so that it is terminal."""
    row = db.execute(_SELECT, (app, handle.uuid.bytes)).fetchone()
    if row is None:
        return StartVerdict(Start.MISSING)
    status, epoch, owner, available_at = STATUS_OF[row[1]], row[15], row[16], row[6]
    kind = may_start(status, epoch, owner, available_at, handle, now)
    if kind is Start.CONFLICT:
        return StartVerdict(kind, epoch=epoch)
    if kind is Start.NOT_DUE:
        return StartVerdict(kind, delay=available_at - now)
    if kind is Start.TERMINAL:
        return StartVerdict(kind)
    try:
        record = record_of(row)
    except ValueError as error:
        write_off(db, app, handle.uuid, str(error), now, expires_at)
        return StartVerdict(Start.TERMINAL)
    if epoch != handle.epoch:
        started(record, handle, now)
        db.execute(
            "UPDATE tasks SET status = 1, epoch = ?, owner = ?, started_at = ?, updated_at = ?, deliveries = ? "
            "WHERE app = ? AND uuid = ?",
            (handle.epoch, handle.owner, now, now, handle.deliveries, app, handle.uuid.bytes),
        )
    return StartVerdict(kind, record)


def started(record: TaskRecord, handle: DeliveryHandle, now: float) -> None:
    """Puts the start into a record that was read before it."""
    record.status = STATUS_OF[PROCESS]
    record.epoch, record.owner = handle.epoch, handle.owner
    record.started_at = record.updated_at = now
    record.deliveries = handle.deliveries


def settle(db: sqlite3.Connection, app: int, item: Settle, also: str = "") -> SettleVerdict:
    """As `Storage.settle_many` for one delivery, without `then`.

    Parameters:
        also: further assignments, for the entry in the same row.
    """
    handle, uuid = item.handle, item.handle.uuid.bytes
    columns, values, inside = assignments({**item.changes, "status": STATUS_OF_OUTCOME[item.outcome]})
    if inside:
        row = db.execute(
            "SELECT payload FROM tasks WHERE app = ? AND uuid = ? AND status IS NOT NULL", (app, uuid)
        ).fetchone()
        if row is not None:
            columns.append("payload")
            values.append(changed_payload(row[0], inside))
    done = db.execute(
        f"UPDATE tasks SET {' = ?, '.join(columns)} = ?{also} "
        "WHERE app = ? AND uuid = ? AND status = 1 AND epoch = ? AND owner = ?",
        (*values, app, uuid, handle.epoch, handle.owner),
    ).rowcount
    if done:
        return SettleVerdict.ACCEPTED
    found = db.execute(
        "SELECT status, epoch, owner FROM tasks WHERE app = ? AND uuid = ? AND status IS NOT NULL",
        (app, uuid),
    ).fetchone()
    if found is None:
        return SettleVerdict.REJECTED
    return may_settle(STATUS_OF[found[0]], found[1], found[2], handle)


def bury(db: sqlite3.Connection, app: int, item: Buried, now: float, expires_at: float) -> bool:
    """As `Storage.bury_many` for one entry."""
    return (
        db.execute(
            "UPDATE tasks SET status = ?, dead = 1, traceback = ?, owner = '', updated_at = ?, finished_at = ?, "
            "expires_at = ? WHERE app = ? AND uuid = ? AND status <= 1 AND epoch <= ?",
            (ERROR, item.reason, now, now, expires_at, app, item.uuid.bytes, item.epoch),
        ).rowcount
        == 1
    )


def write_off(
    db: sqlite3.Connection, app: int, uuid: UUID, reason: str, now: float, expires_at: float
) -> None:
    """Ends a record that cannot be read: what it holds is lost, that it was there is not."""
    db.execute(
        "UPDATE tasks SET status = ?, dead = 1, traceback = ?, owner = '', updated_at = ?, finished_at = ?, "
        "expires_at = ?, result = NULL, progress = NULL, "
        """payload = '["corrupt", "default", 0, [], {}, {}, null, "", null, null]' """
        "WHERE app = ? AND uuid = ?",
        (ERROR, reason, now, now, expires_at, app, uuid.bytes),
    )


def cancel(
    db: sqlite3.Connection, app: int, uuid: UUID, reason: str, now: float, expires_at: float
) -> CancelVerdict:
    """As `Storage.cancel_many` for one task."""
    row = db.execute(
        "SELECT status FROM tasks WHERE app = ? AND uuid = ? AND status IS NOT NULL", (app, uuid.bytes)
    ).fetchone()
    if row is None:
        return CancelVerdict.MISSING
    if row[0] == NEW:
        db.execute(
            "UPDATE tasks SET status = ?, cancel_reason = ?, owner = '', updated_at = ?, finished_at = ?, "
            "expires_at = ? WHERE app = ? AND uuid = ?",
            (CANCEL, reason, now, now, expires_at, app, uuid.bytes),
        )
        return CancelVerdict.CANCELLED
    if row[0] == PROCESS:
        db.execute(
            "UPDATE tasks SET cancel_requested = 1, cancel_reason = ? WHERE app = ? AND uuid = ?",
            (reason, app, uuid.bytes),
        )
        return CancelVerdict.REQUESTED
    return CancelVerdict.TERMINAL


def update(db: sqlite3.Connection, app: int, item: Update) -> bool:
    """As `Storage.update_many` for one record."""
    changes = {name: value for name, value in item.changes.items() if name not in FENCED_FIELDS}
    columns, values, inside = assignments(changes)
    row = db.execute(
        "SELECT payload FROM tasks WHERE app = ? AND uuid = ? AND status <= 1", (app, item.uuid.bytes)
    ).fetchone()
    if row is None:
        return False
    if inside:
        columns.append("payload")
        values.append(changed_payload(row[0], inside))
    if columns:
        db.execute(
            f"UPDATE tasks SET {' = ?, '.join(columns)} = ? WHERE app = ? AND uuid = ?",
            (*values, app, item.uuid.bytes),
        )
    return True


def forget(db: sqlite3.Connection, app: int, where: str, params: Sequence[Any]) -> int:
    """Deletes the records that fit; a row that has an entry keeps that."""
    seqs = [
        (seq, uuid)
        for seq, uuid in db.execute(
            f"SELECT seq, uuid FROM tasks WHERE app = ? AND status >= 2 AND {where}",
            (app, *params),
        )
    ]
    for seq, uuid in seqs:
        drop_record(db, seq)
        db.execute("DELETE FROM items WHERE app = ? AND uuid = ?", (app, uuid))
    return len(seqs)


def drop_record(db: sqlite3.Connection, seq: int) -> None:
    """Deletes the record's half of a row."""
    if db.execute("DELETE FROM tasks WHERE seq = ? AND state IS NULL", (seq,)).rowcount == 0:
        db.execute(
            "UPDATE tasks SET status = NULL, payload = NULL, result = NULL, unique_key = NULL, expires_at = NULL, "
            "dead = NULL WHERE seq = ?",
            (seq,),
        )


def append_items(
    db: sqlite3.Connection, app: int, handle: DeliveryHandle, index: int, items: Sequence[str]
) -> bool:
    """As `Storage.append_items`."""
    uuid = handle.uuid.bytes
    held = db.execute(
        "SELECT 1 FROM tasks WHERE app = ? AND uuid = ? AND status = 1 AND epoch = ? AND owner = ?",
        (app, uuid, handle.epoch, handle.owner),
    ).fetchone()
    if held is None:
        return False
    db.executemany(
        "INSERT INTO items (app, uuid, number, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(app, uuid, index + i, item) for i, item in enumerate(items)],
    )
    return True
