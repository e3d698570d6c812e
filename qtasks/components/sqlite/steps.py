"""The steps that touch both halves of a row, or end a delivery (R2, R4, R6, R7)."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from qtasks.components.delivery import not_started, push_item
from qtasks.components.primitives import (
    DeliveryHandle,
    Nack,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.components.rules import STATUS_OF_OUTCOME, may_settle
from qtasks.components.sqlite import entries, records
from qtasks.components.sqlite.entries import BACK, CLAIMED, LEASE, Bury, Claim
from qtasks.components.sqlite.records import START, NewTask, Starter
from qtasks.components.sqlite.rows import CODE, RECORD_COLUMNS, STATUS, Changes
from qtasks.components.sqlite.schema import LEASED
from qtasks.components.sqlite.sql import rounds, select_in, update_rows
from qtasks.components.sqlite.writer import Context
from qtasks.schemas import TaskRecord

log = logging.getLogger("qtasks.sqlite")

NO_RECORD = "the storage has no record of this task"

Started = tuple[DeliveryHandle, TaskRecord]


def claim_and_start(
    connection: sqlite3.Connection, context: Context, items: Sequence[Claim]
) -> list[list[Started]]:
    """`Colocated.claim_and_start`."""
    return [_claim_and_start(connection, context, item) for item in items]


def _claim_and_start(connection: sqlite3.Connection, context: Context, item: Claim) -> list[Started]:
    starter = Starter(context)
    rows = entries.due_rows(connection, context.app, f"{CLAIMED}, {RECORD_COLUMNS}", item, starter.now)
    if not rows:
        return []
    first = entries.draw_epochs(connection, context.app, len(rows))
    until = starter.now + item.lease
    started: list[Started] = []
    leases: list[tuple[Any, ...]] = []
    rest: list[tuple[DeliveryHandle, StartVerdict]] = []
    for number, row in enumerate(rows):
        handle = entries.handle_of(row, first + number, item.owner)
        leases.append((row[0], *entries.lease_values(handle, until)))
        recorded = row[8] is not None
        verdict = starter.start(handle, row[0], row[7:]) if recorded else StartVerdict(Start.MISSING)
        if verdict.record is not None:
            started.append((handle, verdict.record))
        else:
            rest.append((handle, verdict))
    if rest or len(starter.rows) != len(rows):
        update_rows(connection, LEASE, leases)
        update_rows(connection, START, starter.rows)
        starter.write_unreadable(connection)
        _not_started(connection, context, rest, starter.now)
    else:
        # A row for each lease, in the same order: one statement writes both halves.
        both = [(*lease, *start[1:]) for lease, start in zip(leases, starter.rows, strict=True)]
        update_rows(connection, (*LEASE, *START), both)
    return started


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


class SettleRow(NamedTuple):
    """A `Settle`, made ready for its row."""

    handle: DeliveryHandle
    status: int
    changes: Changes
    then: tuple[NewTask, ...]
    nack: Nack | None


def settle_row(settle: Settle, *, push: bool) -> SettleRow:
    """A settle in columns; `push`: whether `then` is queued in the same step.

    Raises:
        EncodeError: a value has no JSON form.
    """
    then = tuple(records.new_task(record, push_item(record) if push else None) for record in settle.then)
    status = CODE[STATUS_OF_OUTCOME[settle.outcome]]
    return SettleRow(settle.handle, status, Changes(settle.changes), then, settle.nack)


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
    verdicts = [SettleVerdict.REJECTED] * len(items)
    for indexes in rounds(items, lambda item: item.handle.uuid):
        _settle_round(connection, context, items, indexes, verdicts, with_entries)
    return verdicts


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
