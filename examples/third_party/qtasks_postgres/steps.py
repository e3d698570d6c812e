"""What is written when tasks are added and when deliveries end: values for schema.sql's functions, and verdicts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from qtasks.components.primitives import Added, AddVerdict, Outcome, Settle, SettleVerdict
from qtasks.schemas import TaskRecord
from qtasks_postgres.rows import STATUSES, changed_columns, json_text, record_row, status_number

log = logging.getLogger("qtasks.postgres")

ADD = "SELECT * FROM add_tasks(%s, %s::json, %s, %s, %s)"
SETTLE = "SELECT * FROM settle_tasks(%s, %s::json, %s, %s::json, %s)"

_TERMINAL = {
    Outcome.SUCCESS: status_number(STATUSES[2]),
    Outcome.ERROR: status_number(STATUSES[3]),
    Outcome.CANCEL: status_number(STATUSES[4]),
}


class NewTask(NamedTuple):
    """A record to be added, as the values of its columns.

    Attributes:
        max_queue: waiting entries of its queue above which it is refused.
    """

    uuid: UUID
    row: dict[str, Any]
    max_queue: int | None


def new_task(record: TaskRecord, max_queue: int | None = None) -> NewTask:
    """A record, made ready.

    Raises:
        EncodeError: a field has no JSON form.
    """
    return NewTask(record.uuid, record_row(record), max_queue)


def add_values(app: int, items: Sequence[NewTask], *, push: bool) -> tuple[Any, ...]:
    """The parameters of `ADD`."""
    above = max(item.row["epoch"] for item in items)
    return app, json_text([item.row for item in items]), push, items[0].max_queue, above


def add_verdicts(items: Sequence[NewTask], rows: Sequence[tuple[str, UUID]]) -> list[AddVerdict]:
    """The verdicts; no row at all says that everything was added."""
    if not rows:
        return [AddVerdict(Added.ADDED, item.uuid) for item in items]
    return [AddVerdict(Added(kind), standing) for kind, standing in rows]


class Settling(NamedTuple):
    """A settle, made ready: its values, and the records that follow."""

    uuid: UUID
    values: dict[str, Any]
    then: tuple[dict[str, Any], ...]
    min_epoch: int


def settling(settle: Settle) -> Settling:
    """A settle, made ready.

    Raises:
        EncodeError: a value has no JSON form.
    """
    handle, nack = settle.handle, settle.nack
    values = {
        "uuid": handle.uuid, "epoch": handle.epoch, "owner": json_text(handle.owner),
        "status": _TERMINAL.get(settle.outcome, 0),
        "delay": None if nack is None else nack.delay, "back": None if nack is None else nack.deliveries,
        "c": changed_columns(settle.changes),
    }  # fmt: skip
    then = tuple(record_row(record) for record in settle.then)
    return Settling(handle.uuid, values, then, 0 if nack is None else nack.min_epoch)


def settle_values(app: int, items: Sequence[Settling], *, entries: bool) -> tuple[Any, ...]:
    """The parameters of `SETTLE`."""
    batch = [{"n": n, **item.values} for n, item in enumerate(items)]
    then = [{"parent": n, **row} for n, item in enumerate(items) for row in item.then]
    above = max(item.min_epoch for item in items)
    return app, json_text(batch), entries, json_text(then) if then else None, above


def settle_verdicts(items: Sequence[Settling], rows: Sequence[tuple[int, bool]]) -> list[SettleVerdict]:
    """The verdicts; a row names one that was not accepted, and says whether it had been before."""
    verdicts = [SettleVerdict.ACCEPTED] * len(items)
    for n, mine in rows:
        verdicts[n] = SettleVerdict.ALREADY_MINE if mine else SettleVerdict.REJECTED
    return verdicts


def rejected(item: Settling, error: Exception) -> SettleVerdict:
    """The verdict on a settle that the database does not take: its lease runs out, and it is delivered again."""
    log.error("the outcome of task %s cannot be written: %s", item.uuid, error)
    return SettleVerdict.REJECTED
