"""The steps that touch both halves of a row, or end a delivery (R2, R4, R6, R7)."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from qtasks.codec import decode
from qtasks.components.delivery import not_started, push_item
from qtasks.components.primitives import (
    DeliveryHandle,
    Nack,
    Outcome,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.components.rules import STATUS_OF_OUTCOME, may_settle
from qtasks.components.sqlite import entries, records
from qtasks.components.sqlite.entries import BACK, CLAIMED, LEASE, Bury, Claim
from qtasks.components.sqlite.packed import Pack, select_packs
from qtasks.components.sqlite.records import NewTask, Starter
from qtasks.components.sqlite.rows import CODE, RECORD_COLUMNS, STATUS, Changes, record_of
from qtasks.components.sqlite.schema import LEASED, PROCESS
from qtasks.components.sqlite.sql import blob, chunks, padded, rounds, select_in, settle_rows, update_rows
from qtasks.components.sqlite.writer import Context
from qtasks.schemas import TaskRecord, TaskStatusEnum

log = logging.getLogger("qtasks.sqlite")

NO_RECORD = "the storage has no record of this task"

_START = (
    "UPDATE tasks SET state = 2, entry_epoch = ? + seq, entry_owner = ?, entry_deliveries = entry_deliveries + 1, "
    "restored = 0, lease_until = ?, status = 1, epoch = ? + seq, owner = ?, started_at = ?, updated_at = ?, "
    "deliveries = entry_deliveries + 1 WHERE seq IN "
)


class Claimed(NamedTuple):
    """What `claim_and_start` gives, to be read on the event loop: the writer's thread has enough to do.

    Attributes:
        packs: tasks that are delivered for the first time, and nothing else, or else
        rows: of `CLAIMED` and `RECORD_COLUMNS`, as they were before.
        epoch: the epoch of a task is this and its seq.
        now: when they started.
    """

    packs: list[Pack]
    rows: list[Any]
    epoch: int
    now: float


def claim_and_start(
    connection: sqlite3.Connection, context: Context, items: Sequence[Claim]
) -> list[Claimed]:
    """`Colocated.claim_and_start`."""
    return [_claim_and_start(connection, context, item) for item in items]


def _claim_and_start(connection: sqlite3.Connection, context: Context, item: Claim) -> Claimed:
    now = context.clock()
    packs = select_packs(connection, context.app, item.queues, item.n, now)
    if packs is None and entries.promote(connection, context.app, now):
        packs = select_packs(connection, context.app, item.queues, item.n, now)
    if packs is None:
        return _claim_rows(connection, context, item, now)
    if not packs:
        return Claimed([], [], 0, now)
    lowest, highest = min(pack.lowest for pack in packs), max(pack.highest for pack in packs)
    epoch = _epochs(connection, context.app, lowest, highest)
    token = (epoch, item.owner)
    for pack in packs:
        values = (*token, now + item.lease, *token, now, now, f"[{pack.seqs}]")
        connection.execute(f"{_START}(SELECT value FROM json_each(?))", values)
    return Claimed(packs, [], epoch, now)


def _claim_rows(connection: sqlite3.Connection, context: Context, item: Claim, now: float) -> Claimed:
    rows = entries.due_rows(connection, context.app, f"{CLAIMED}, {RECORD_COLUMNS}", item)
    if not rows:
        return Claimed([], [], 0, now)
    seqs = [row[0] for row in rows]
    epoch = _epochs(connection, context.app, min(seqs), max(seqs))
    started = [row for row in rows if _may_start(row, epoch, now)]
    for piece in chunks([row[0] for row in started]):
        marks = ",".join("?" * padded(len(piece)))
        padding = (0,) * (padded(len(piece)) - len(piece))
        token = (epoch, item.owner)
        values = (*token, now + item.lease, *token, now, now, *piece, *padding)
        connection.execute(f"{_START}({marks})", values)
    if len(started) < len(rows):
        odd = [row for row in rows if not _may_start(row, epoch, now)]
        _claim_odd(connection, context, item, odd, epoch, now)
    return Claimed([], started, epoch, now)


def _epochs(connection: sqlite3.Connection, app: int, lowest: int, highest: int) -> int:
    """An epoch for every seq in between, so that one statement without a list of pairs can give them: it is what this
    gives, and the seq."""
    return entries.draw_epochs(connection, app, highest - lowest + 1) - lowest


def _may_start(row: Sequence[Any], epoch: int, now: float) -> bool:
    """R4 for a new token: what `may_start` calls STARTED, where it is nearly always."""
    status, known, available_at = row[8], row[9], row[15]
    return status is not None and status <= PROCESS and known < epoch + row[0] and available_at <= now


def _claim_odd(
    connection: sqlite3.Connection, context: Context, item: Claim, rows: Sequence[Any], epoch: int, now: float
) -> None:
    """Claims what cannot start, and puts it where it belongs."""
    starter = Starter(context, now)
    leases: list[tuple[Any, ...]] = []
    rest: list[tuple[DeliveryHandle, StartVerdict]] = []
    for row in rows:
        handle = entries.handle_of(row, epoch + row[0], item.owner)
        leases.append((row[0], *entries.lease_values(handle, now + item.lease)))
        recorded = row[8] is not None
        verdict = starter.start(handle, row[0], row[7:]) if recorded else StartVerdict(Start.MISSING)
        rest.append((handle, verdict))
    update_rows(connection, LEASE, leases)
    _not_started(connection, context, rest, now)


def started_rows(connection: sqlite3.Connection, app: int, pack: Pack) -> list[Any]:
    """The rows of a pack that has been started, as `Claimed` has them: of `CLAIMED` and `RECORD_COLUMNS`, before it."""
    columns = f"{CLAIMED}, {RECORD_COLUMNS}".replace("entry_deliveries", "entry_deliveries - 1")
    seqs = decode(f"[{pack.seqs}]")
    rows = {row[0]: row for row in select_in(connection, app, columns, "seq", seqs)}
    return [rows[seq] for seq in seqs if seq in rows]


def started_task(row: Sequence[Any], claimed: Claimed, owner: str) -> tuple[DeliveryHandle, TaskRecord]:
    """The delivery and the record of one row.

    Raises:
        UnreadableError: the record is damaged; the error has the delivery.
    """
    handle = entries.handle_of(row, claimed.epoch + row[0], owner)
    try:
        record = record_of(row[7:])
    except ValueError as error:
        raise UnreadableError(handle, str(error)) from error
    record.status = TaskStatusEnum.PROCESS
    record.epoch, record.owner, record.deliveries = handle.epoch, owner, handle.deliveries
    record.started_at = record.updated_at = claimed.now
    return handle, record


class UnreadableError(ValueError):
    """A record that was started cannot be read."""

    def __init__(self, handle: DeliveryHandle, reason: str) -> None:
        super().__init__(reason)
        self.handle = handle


def buried_settle(error: UnreadableError, now: float, dead_ttl: float) -> Settle:
    """The settle that ends what cannot be read: it is listed among the dead, and does not come again."""
    changes = {
        "status": TaskStatusEnum.ERROR, "updated_at": now, "finished_at": now, "expires_at": now + dead_ttl,
        "traceback": str(error), "dead": True,
    }  # fmt: skip
    return Settle(error.handle, Outcome.ERROR, changes)


def _not_started(
    connection: sqlite3.Connection,
    context: Context,
    rest: Sequence[tuple[DeliveryHandle, StartVerdict]],
    now: float,
) -> None:
    acks: list[DeliveryHandle] = []
    nacks: list[Nack] = []
    overdue: list[Bury] = []
    for handle, verdict in rest:
        if verdict.kind is Start.TERMINAL:
            acks.append(handle)  # R7
        elif verdict.kind is Start.MISSING and now > handle.available_at + context.grace:
            overdue.append(Bury(handle, NO_RECORD))
        else:
            nacks.append(not_started(handle, verdict))
    if acks:
        entries.ack(connection, context, acks)
    if nacks:
        entries.nack(connection, context, nacks)
    if overdue:
        entries.bury(connection, context, overdue)


_CODE = {outcome: CODE[status] for outcome, status in STATUS_OF_OUTCOME.items()}


class SettleRow(NamedTuple):
    """A `Settle`, made ready for its row.

    Attributes:
        plain: what `settle_rows` takes, where nothing goes back or follows, which is nearly always.
    """

    handle: DeliveryHandle
    status: int
    changes: Changes
    then: tuple[NewTask, ...]
    nack: Nack | None
    plain: tuple[Any, ...] | None


class UnevenError(Exception):
    """Some settles of a batch hold their tokens and some do not: each has to be looked at."""


def settle_row(settle: Settle, *, push: bool) -> SettleRow:
    """A settle in columns; `push`: whether `then` is queued in the same step.

    Raises:
        EncodeError: a value has no JSON form.
    """
    handle, status, changes = settle.handle, _CODE[settle.outcome], Changes(settle.changes)
    then: tuple[NewTask, ...] = ()
    if settle.then:
        then = tuple(records.new_task(record, push_item(record) if push else None) for record in settle.then)
    plain = None
    if settle.nack is None and not then and changes.payload is None:
        plain = (blob(handle.uuid.bytes), handle.epoch, handle.owner, status, *changes.values)
    return SettleRow(handle, status, changes, then, settle.nack, plain)


def settle(
    connection: sqlite3.Connection, context: Context, items: Sequence[SettleRow]
) -> list[SettleVerdict]:
    """`Storage.settle_many`."""
    return _settle(connection, context, items, with_entries=False)


def settle_and_ack(
    connection: sqlite3.Connection, context: Context, items: Sequence[SettleRow]
) -> list[SettleVerdict]:
    """`Colocated.settle_and_ack`."""
    return _settle(connection, context, items, with_entries=True)


def _settle(
    connection: sqlite3.Connection, context: Context, items: Sequence[SettleRow], *, with_entries: bool
) -> list[SettleVerdict]:
    if _settle_plain(connection, context, items, with_entries):
        return [SettleVerdict.ACCEPTED] * len(items)
    verdicts = [SettleVerdict.REJECTED] * len(items)
    for indexes in rounds(items, lambda item: item.handle.uuid):
        _settle_round(connection, context, items, indexes, verdicts, with_entries)
    return verdicts


def _settle_plain(
    connection: sqlite3.Connection, context: Context, items: Sequence[SettleRow], with_entries: bool
) -> bool:
    """The batch as it nearly always is, in a statement per set of columns: every token holds, nothing goes back or
    follows. If it is not so, nothing is done, and every item is looked at.

    Raises:
        UnevenError: some of it is so: the writer undoes it, and repeats it item by item.
    """
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for item in items:
        if item.plain is None:
            return False
        groups.setdefault(item.changes.columns, []).append(item.plain)
    before = connection.total_changes
    for columns, rows in groups.items():
        settle_rows(connection, context.app, ("status", *columns), rows, acked=with_entries)
    settled = connection.total_changes - before
    if 0 < settled < len(items):
        raise UnevenError(f"{settled} of {len(items)} settles hold their tokens")
    return settled > 0


def _settle_round(
    connection: sqlite3.Connection, context: Context, items: Sequence[SettleRow],
    indexes: list[int], verdicts: list[SettleVerdict], with_entries: bool,
) -> None:  # fmt: skip
    now = context.clock()
    keys = [items[index].handle.uuid.bytes for index in indexes]
    payload = "payload" if any(items[index].changes.payload is not None for index in indexes) else "NULL"
    columns = f"uuid, seq, status, epoch, owner, state, entry_epoch, entry_owner, {payload}"
    rows = select_in(connection, context.app, columns, "uuid", keys, " AND status IS NOT NULL")
    there = {row[0]: row for row in rows}
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    then: list[NewTask] = []
    for index, key in zip(indexes, keys, strict=True):
        item, row = items[index], there.get(key)
        if row is None:
            continue
        verdict = verdicts[index] = may_settle(STATUS[row[2]], row[3], row[4], item.handle)
        if verdict is SettleVerdict.REJECTED:
            continue  # R6
        names, values = _ended(item, row[8], now) if verdict is SettleVerdict.ACCEPTED else ((), ())
        if with_entries and row[5] == LEASED and row[6:8] == item.handle[1:3]:
            more, ends = _given_back(item, now)
            names, values = names + more, values + ends
        if verdict is SettleVerdict.ACCEPTED:
            then.extend(item.then)
        if names:
            groups.setdefault(names, []).append((row[1], *values))
    for group, changed in groups.items():
        update_rows(connection, group, changed)
    epochs = (items[index].nack for index in indexes)
    entries.raise_epoch(connection, context.app, max((nack.min_epoch for nack in epochs if nack), default=0))
    if then:
        records.add(connection, context, then)


def _ended(item: SettleRow, payload: bytes, now: float) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The columns of the record that an accepted settle sets, and their values."""
    names, values = ("status", *item.changes.columns), (item.status, *item.changes.values)
    if item.nack is not None and "available_at" not in names:
        names, values = (*names, "available_at"), (*values, now + item.nack.delay)
    if item.changes.payload is None:
        return names, values
    return (*names, "payload"), (*values, item.changes.patched(payload))


def _given_back(item: SettleRow, now: float) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The columns of the entry that an ack or nack sets, and their values."""
    return (("state",), (None,)) if item.nack is None else (BACK, entries.back_values(item.nack, now))


def rejected(item: SettleRow, error: BaseException) -> SettleVerdict:
    """The verdict on a settle that the file does not take: its lease runs out, and it is delivered again."""
    log.error("the outcome of task %s cannot be written: %r", item.handle.uuid, error)
    return SettleVerdict.REJECTED
