"""The broker's half of a row: what each primitive does to entries, inside a transaction (R3, R8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from qtasks.components.primitives import (
    Buried,
    DeliveryHandle,
    DropVerdict,
    HoldVerdict,
    Nack,
    PushItem,
    PushVerdict,
    SweepReport,
)
from qtasks.components.sqlite.schema import BURIED, DELAYED, LEASED, READY
from qtasks.components.sqlite.sql import blob, delete_in, insert_rows, rounds, select_in, update_rows
from qtasks.components.sqlite.writer import Context
from qtasks.ids import uuid_of

ENTRY: Final = (
    "queue", "priority", "state", "due_at", "pushed_at",
    "entry_epoch", "entry_owner", "entry_deliveries", "restored",
)  # fmt: skip
BACK: Final = ("state", "due_at", "entry_deliveries", "entry_owner")
"""What a nack sets."""

_PROMOTED = 1000


class Claim(NamedTuple):
    """One call of `Broker.claim`."""

    n: int
    queues: tuple[str, ...]
    owner: str
    lease: float


class Extend(NamedTuple):
    """One handle of `Broker.extend_many`."""

    handle: DeliveryHandle
    lease: float


class Bury(NamedTuple):
    """One handle of `Broker.bury_many`."""

    handle: DeliveryHandle
    reason: str


class Sweep(NamedTuple):
    """One call of `Broker.sweep`."""

    limit: int
    max_deliveries: int


def entry_values(item: PushItem, now: float) -> tuple[Any, ...]:
    """The values of `ENTRY` for a new entry."""
    state = DELAYED if item.available_at > now else READY
    return (item.queue, item.priority, state, item.available_at, item.available_at, 0, "", 0, 0)


def back_values(nack: Nack, now: float) -> tuple[Any, ...]:
    """The values of `BACK`."""
    return (DELAYED if nack.delay > 0 else READY, now + nack.delay, nack.deliveries, "")


def raise_epoch(connection: sqlite3.Connection, app: int, epoch: int) -> None:
    """Sees to it that the next claim gets an epoch above this one."""
    if epoch > 0:
        connection.execute("UPDATE apps SET epoch = ? WHERE id = ? AND epoch < ?", (epoch, app, epoch))


def draw_epochs(connection: sqlite3.Connection, app: int, count: int) -> int:
    """Takes epochs from the app's counter; gives the first."""
    (last,) = connection.execute(
        "UPDATE apps SET epoch = epoch + ? WHERE id = ? RETURNING epoch", (count, app)
    ).fetchone()
    return int(last) - count + 1


def push(connection: sqlite3.Connection, context: Context, items: Sequence[PushItem]) -> list[PushVerdict]:
    """`Broker.push_many`."""
    now = context.clock()
    verdicts = [PushVerdict.ALREADY_THERE] * len(items)
    raise_epoch(connection, context.app, max(item.min_epoch for item in items))
    for indexes in rounds(items, lambda item: item.uuid):
        keys = [items[index].uuid.bytes for index in indexes]
        there = {row[0]: row for row in select_in(connection, context.app, "uuid, seq, state", "uuid", keys)}
        new: list[tuple[Any, ...]] = []
        joined: list[tuple[Any, ...]] = []
        for index, key in zip(indexes, keys, strict=True):
            row = there.get(key)
            if row is None:
                new.append((context.app, blob(key), *entry_values(items[index], now)))
            elif row[2] is None:
                joined.append((row[1], *entry_values(items[index], now)))
            else:
                continue
            verdicts[index] = PushVerdict.PUSHED
        insert_rows(connection, ("app", "uuid", *ENTRY), new)
        update_rows(connection, ENTRY, joined)
    return verdicts


def promote(connection: sqlite3.Connection, app: int, now: float) -> int:
    """Makes ready what is due; gives how many."""
    return connection.execute(
        "UPDATE tasks SET state = 0 WHERE seq IN "
        "(SELECT seq FROM tasks WHERE app = ? AND state = 1 AND due_at <= ? ORDER BY due_at LIMIT ?)",
        (app, now, _PROMOTED),
    ).rowcount


def due_rows(connection: sqlite3.Connection, app: int, columns: str, claim: Claim) -> list[Any]:
    """Up to `claim.n` ready entries, queue by queue, each by priority and age."""
    rows: list[Any] = []
    for queue in dict.fromkeys(claim.queues):
        left = claim.n - len(rows)
        if left <= 0:
            break
        rows += connection.execute(
            f"SELECT {columns} FROM tasks WHERE app = ? AND queue = ? AND state = 0 "
            "ORDER BY priority, seq LIMIT ?",
            (app, queue, left),
        ).fetchall()
    return rows


CLAIMED: Final = "seq, uuid, queue, priority, pushed_at, entry_deliveries, restored"
LEASE: Final = (
    "state", "entry_epoch", "entry_owner", "entry_deliveries", "restored", "lease_until",
)  # fmt: skip


def handle_of(row: Sequence[Any], epoch: int, owner: str) -> DeliveryHandle:
    """The delivery that begins with a claim of a row of `CLAIMED`."""
    _, uuid, queue, priority, pushed_at, deliveries, restored = row[:7]
    return DeliveryHandle(
        uuid_of(uuid), epoch, owner, deliveries + 1, bool(restored), queue, priority, pushed_at
    )


def lease_values(handle: DeliveryHandle, until: float) -> tuple[Any, ...]:
    """The values of `LEASE`."""
    return (LEASED, handle.epoch, handle.owner, handle.deliveries, 0, until)


def claim(
    connection: sqlite3.Connection, context: Context, items: Sequence[Claim]
) -> list[list[DeliveryHandle]]:
    """`Broker.claim`."""
    claimed = []
    for item in items:
        now = context.clock()
        promote(connection, context.app, now)
        rows = due_rows(connection, context.app, CLAIMED, item)
        handles: list[DeliveryHandle] = []
        if rows:
            first = draw_epochs(connection, context.app, len(rows))
            handles = [handle_of(row, first + number, item.owner) for number, row in enumerate(rows)]
            until = now + item.lease
            update_rows(
                connection,
                LEASE,
                [(row[0], *lease_values(handle, until)) for row, handle in zip(rows, handles, strict=True)],
            )
        claimed.append(handles)
    return claimed


class Held(NamedTuple):
    """A row whose entry is leased under the token of a handle."""

    seq: int
    recorded: bool


def held(connection: sqlite3.Connection, app: int, handles: Sequence[DeliveryHandle]) -> list[Held | None]:
    """For each handle the row, where the token holds (R3)."""
    keys = [handle.uuid.bytes for handle in handles]
    columns = "uuid, seq, status IS NOT NULL, entry_epoch, entry_owner"
    rows = {row[0]: row for row in select_in(connection, app, columns, "uuid", keys, " AND state = 2")}
    found: list[Held | None] = []
    for key, handle in zip(keys, handles, strict=True):
        row = rows.get(key)
        holds = row is not None and row[3] == handle.epoch and row[4] == handle.owner
        found.append(Held(row[1], bool(row[2])) if row is not None and holds else None)
    return found


def extend(connection: sqlite3.Connection, context: Context, items: Sequence[Extend]) -> list[HoldVerdict]:
    """`Broker.extend_many`."""
    now = context.clock()
    found = held(connection, context.app, [item.handle for item in items])
    update_rows(
        connection,
        ("lease_until",),
        [(row.seq, now + item.lease) for row, item in zip(found, items, strict=True) if row is not None],
    )
    return [HoldVerdict.LOST if row is None else HoldVerdict.HELD for row in found]


def _verdicts(items: Sequence[Any], done: set[int]) -> list[DropVerdict]:
    return [DropVerdict.DONE if index in done else DropVerdict.LOST for index in range(len(items))]


def drop(connection: sqlite3.Connection, rows: Sequence[Held]) -> None:
    """Forgets entries; a row without a record goes altogether."""
    update_rows(connection, ("state",), [(row.seq, None) for row in rows if row.recorded])
    delete_in(connection, "tasks", "seq", [row.seq for row in rows if not row.recorded])


def ack(
    connection: sqlite3.Connection, context: Context, items: Sequence[DeliveryHandle]
) -> list[DropVerdict]:
    """`Broker.ack_many`."""
    done: set[int] = set()
    for indexes in rounds(items, lambda handle: handle.uuid):
        found = held(connection, context.app, [items[index] for index in indexes])
        drop(connection, [row for row in found if row is not None])
        done.update(index for index, row in zip(indexes, found, strict=True) if row is not None)
    return _verdicts(items, done)


def nack(connection: sqlite3.Connection, context: Context, items: Sequence[Nack]) -> list[DropVerdict]:
    """`Broker.nack_many`."""
    now = context.clock()
    done: set[int] = set()
    for indexes in rounds(items, lambda item: item.handle.uuid):
        found = held(connection, context.app, [items[index].handle for index in indexes])
        rows = [(items[i], i, row) for i, row in zip(indexes, found, strict=True) if row is not None]
        update_rows(connection, BACK, [(row.seq, *back_values(item, now)) for item, _, row in rows])
        raise_epoch(connection, context.app, max((item.min_epoch for item, _, _ in rows), default=0))
        done.update(index for _, index, _ in rows)
    return _verdicts(items, done)


def bury(connection: sqlite3.Connection, context: Context, items: Sequence[Bury]) -> list[DropVerdict]:
    """`Broker.bury_many`."""
    done: set[int] = set()
    for indexes in rounds(items, lambda item: item.handle.uuid):
        found = held(connection, context.app, [items[index].handle for index in indexes])
        rows = [(index, row) for index, row in zip(indexes, found, strict=True) if row is not None]
        update_rows(
            connection,
            ("state", "reason", "entry_owner"),
            [(row.seq, BURIED, items[index].reason, "") for index, row in rows],
        )
        done.update(index for index, _ in rows)
    return _verdicts(items, done)


def sweep(connection: sqlite3.Connection, context: Context, items: Sequence[Sweep]) -> list[SweepReport]:
    """`Broker.sweep`."""
    return [_sweep(connection, context, item) for item in items]


def _sweep(connection: sqlite3.Connection, context: Context, item: Sweep) -> SweepReport:
    now = context.clock()
    report = SweepReport([], [])
    restored: list[tuple[Any, ...]] = []
    buried: list[tuple[Any, ...]] = []
    lost = connection.execute(
        "SELECT seq, uuid, entry_epoch, entry_deliveries FROM tasks "
        "WHERE app = ? AND state = 2 AND lease_until <= ? ORDER BY lease_until LIMIT ?",
        (context.app, now, item.limit),
    ).fetchall()
    for seq, key, epoch, deliveries in lost:
        uuid = UUID(bytes=key)
        if deliveries >= item.max_deliveries:
            reason = f"the worker was lost {deliveries} times while it ran this task"
            buried.append((seq, BURIED, reason, ""))
            report.buried.append(Buried(uuid, epoch, reason))
        else:
            restored.append((seq, READY, now, "", 1))
            report.restored.append(uuid)
    update_rows(connection, ("state", "reason", "entry_owner"), buried)
    update_rows(connection, ("state", "due_at", "entry_owner", "restored"), restored)
    return report


def discard(connection: sqlite3.Connection, context: Context, items: Sequence[UUID]) -> list[None]:
    """`Broker.discard_many`."""
    keys = [uuid.bytes for uuid in items]
    rows = select_in(
        connection, context.app, "seq, status IS NOT NULL", "uuid", keys, " AND state IS NOT NULL"
    )
    drop(connection, [Held(seq, bool(recorded)) for seq, recorded in rows])
    return [None] * len(items)


def flush(connection: sqlite3.Connection, context: Context, items: Sequence[None]) -> list[None]:
    """`Broker.flush`."""
    connection.execute("DELETE FROM tasks WHERE app = ? AND status IS NULL", (context.app,))
    connection.execute("UPDATE tasks SET state = NULL WHERE app = ? AND state IS NOT NULL", (context.app,))
    return [None] * len(items)
