"""The storage's half of a row: what each primitive does to records, inside a transaction (R4, R5)."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from qtasks.components.primitives import (
    Added,
    AddVerdict,
    Buried,
    CancelVerdict,
    DeliveryHandle,
    PushItem,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.components.rules import may_settle, may_start
from qtasks.components.sqlite.entries import ENTRY, entry_values, raise_epoch
from qtasks.components.sqlite.rows import (
    RECORD,
    RECORD_COLUMNS,
    STATUS,
    Changes,
    digest_of,
    fresh_values,
    record_of,
    record_values,
    unfolded,
)
from qtasks.components.sqlite.schema import CANCEL, ERROR, NEW, PROCESS
from qtasks.components.sqlite.sql import (
    blob,
    delete_in,
    insert_fresh,
    insert_rows,
    rounds,
    select_in,
    update_rows,
)
from qtasks.components.sqlite.writer import Context
from qtasks.schemas import TaskRecord, TaskStatusEnum

log = logging.getLogger("qtasks.sqlite")


class NewTask(NamedTuple):
    """A record to be added, in columns; with `push`, its entry too.

    Attributes:
        fresh: the values of `FRESH`, for a record that is new and has no unique key.
        written: the values of `RECORD` for any other.
        max_queue: waiting entries of its queue above which it is refused.
    """

    uuid: UUID
    digest: str
    unique_key: str | None
    fresh: tuple[Any, ...] | None
    written: tuple[Any, ...] = ()
    push: PushItem | None = None
    max_queue: int | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of `RECORD`."""
        return self.written if self.fresh is None else unfolded(self.fresh)


def new_task(record: TaskRecord, push: PushItem | None = None, max_queue: int | None = None) -> NewTask:
    """A record, made ready for its row.

    Raises:
        EncodeError: a field has no JSON form.
    """
    fresh = fresh_values(record)
    written = record_values(record) if fresh is None else ()
    return NewTask(record.uuid, record.digest, record.unique_key, fresh, written, push, max_queue)


def add(connection: sqlite3.Connection, context: Context, items: Sequence[NewTask]) -> list[AddVerdict]:
    """`Storage.add_many`; with entries, `Colocated.add_and_push`."""
    verdicts: list[AddVerdict] = [AddVerdict(Added.ADDED, item.uuid) for item in items]
    left = _add_fresh(connection, context, items)
    rest = [items[index] for index in left]
    for indexes in rounds(rest, lambda item: item.uuid):
        _add_round(connection, context, items, [left[index] for index in indexes], verdicts)
    raise_epoch(connection, context.app, max((item.push.min_epoch for item in rest if item.push), default=0))
    return verdicts


def _add_fresh(connection: sqlite3.Connection, context: Context, items: Sequence[NewTask]) -> list[int]:
    """Adds new tasks in one statement, if nothing speaks against any; gives the indexes of those that are left."""
    rows: list[tuple[Any, ...]] = []
    for item in items:
        push = item.push
        if item.fresh is None or push is None or push.min_epoch or item.max_queue is not None:
            return list(range(len(items)))
        rows.append((blob(item.uuid.bytes), push.queue, push.priority, push.available_at, *item.fresh))
    (last,) = connection.execute("SELECT max(seq) FROM tasks").fetchone()
    before = connection.total_changes
    insert_fresh(connection, context.app, context.clock(), rows)
    if connection.total_changes - before == len(rows):
        return []
    # Some are there already, or are named twice.
    added = {uuid for (uuid,) in connection.execute("SELECT uuid FROM tasks WHERE seq > ?", (last or 0,))}
    left: list[int] = []
    for index, item in enumerate(items):
        if item.uuid.bytes in added:
            added.remove(item.uuid.bytes)
        else:
            left.append(index)
    return left


def _add_round(
    connection: sqlite3.Connection, context: Context, items: Sequence[NewTask],
    indexes: list[int], verdicts: list[AddVerdict],
) -> None:  # fmt: skip
    keys = [items[index].uuid.bytes for index in indexes]
    columns = "uuid, seq, state, status, payload"
    there = {row[0]: row for row in select_in(connection, context.app, columns, "uuid", keys)}
    unique = _holders(connection, context.app, [items[index].unique_key for index in indexes])
    adding = _Adding(context.app, context.clock())
    room: dict[str, int] = {}
    for index, key in zip(indexes, keys, strict=True):
        item, row = items[index], there.get(key)
        if row is not None and row[3] is not None:
            same = digest_of(row[4]) == item.digest
            verdicts[index] = AddVerdict(Added.SAME if same else Added.CONFLICT, item.uuid)
            if same and row[3] <= PROCESS:
                adding.queue_again(item, row)
        elif item.unique_key is not None and item.unique_key in unique:
            verdicts[index] = AddVerdict(Added.EXISTS, unique[item.unique_key])
        elif not _has_room(connection, context.app, item, room):
            verdicts[index] = AddVerdict(Added.FULL, item.uuid)
        else:
            adding.add(item, key, row)
            if item.unique_key is not None:
                unique[item.unique_key] = item.uuid
    adding.write(connection)


class _Adding:
    """What one round of adding has to write."""

    def __init__(self, app: int, now: float) -> None:
        self._app = app
        self._now = now
        self._records: list[tuple[Any, ...]] = []
        self._both: list[tuple[Any, ...]] = []
        self._completed: list[tuple[Any, ...]] = []
        self._pushed: list[tuple[Any, ...]] = []

    def add(self, item: NewTask, key: bytes, row: Sequence[Any] | None) -> None:
        """A new record; `row` (uuid, seq, state, …) is there if the entry came before it."""
        if row is not None:
            self._completed.append((row[1], *item.values))
            self.queue_again(item, row)
        elif item.push is None:
            self._records.append((self._app, blob(key), *item.values))
        else:
            self._both.append((self._app, blob(key), *entry_values(item.push, self._now), *item.values))

    def queue_again(self, item: NewTask, row: Sequence[Any]) -> None:
        """A record that stands: its entry, if it is wanted and missing."""
        if item.push is not None and row[2] is None:
            self._pushed.append((row[1], *entry_values(item.push, self._now)))

    def write(self, connection: sqlite3.Connection) -> None:
        """Writes all of it."""
        insert_rows(connection, ("app", "uuid", *RECORD), self._records)
        insert_rows(connection, ("app", "uuid", *ENTRY, *RECORD), self._both)
        update_rows(connection, RECORD, self._completed)
        update_rows(connection, ENTRY, self._pushed)


def _holders(connection: sqlite3.Connection, app: int, keys: Sequence[str | None]) -> dict[str, UUID]:
    wanted = [key for key in keys if key is not None]
    if not wanted:
        return {}
    where = " AND unique_key IS NOT NULL AND status <= 1"
    rows = select_in(connection, app, "unique_key, uuid", "unique_key", wanted, where)
    return {key: UUID(bytes=uuid) for key, uuid in rows}


def _has_room(connection: sqlite3.Connection, app: int, item: NewTask, room: dict[str, int]) -> bool:
    if item.max_queue is None or item.push is None:
        return True
    queue = item.push.queue
    if queue not in room:
        (waiting,) = connection.execute(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE app = ? AND queue = ? AND state = 0 LIMIT ?))"
            " + (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE app = ? AND queue = ? AND state = 1 LIMIT ?))",
            (app, queue, item.max_queue) * 2,
        ).fetchone()
        room[queue] = item.max_queue - waiting
    room[queue] -= 1
    return room[queue] >= 0


START: Final = ("status", "epoch", "owner", "started_at", "updated_at", "deliveries")
"""What a start sets."""

ENDED: Final = ("status", "owner", "finished_at", "updated_at", "expires_at")
DIED: Final = (*ENDED, "dead", "traceback")


class Starter:
    """Starts deliveries of one batch; gathers what has to be written.

    Attributes:
        rows: values of `START`, each behind its seq.
    """

    def __init__(self, context: Context, now: float) -> None:
        self._context = context
        self.now = now
        self.rows: list[tuple[Any, ...]] = []
        self._unreadable: list[tuple[Any, ...]] = []

    def start(self, handle: DeliveryHandle, seq: int, row: Sequence[Any]) -> StartVerdict:
        """The verdict on one delivery; `row` is of `RECORD_COLUMNS`."""
        status, epoch, owner, available_at = row[1], row[2], row[3], row[8]
        kind = may_start(STATUS[status], epoch, owner, available_at, handle, self.now)
        if kind is Start.CONFLICT:
            return StartVerdict(kind, epoch=epoch)
        if kind is Start.NOT_DUE:
            return StartVerdict(kind, delay=available_at - self.now)
        if kind is not Start.STARTED:
            return StartVerdict(kind)
        try:
            record = record_of(row)
        except ValueError as error:
            # One corrupt row must not stop the batch: it ends here, and is listed among the dead.
            log.error("task %s is buried: %s", handle.uuid, error)
            self._unreadable.append(
                (seq, *died_values(self.now, self.now + self._context.dead_ttl, str(error)))
            )
            return StartVerdict(Start.TERMINAL)
        if epoch != handle.epoch:
            record.status = TaskStatusEnum.PROCESS
            record.epoch, record.owner, record.deliveries = handle.epoch, handle.owner, handle.deliveries
            record.started_at = record.updated_at = self.now
            self.rows.append(
                (seq, PROCESS, handle.epoch, handle.owner, self.now, self.now, handle.deliveries)
            )
        return StartVerdict(kind, record)

    def write_unreadable(self, connection: sqlite3.Connection) -> None:
        """Ends the records that cannot be read."""
        update_rows(connection, DIED, self._unreadable)


def start(
    connection: sqlite3.Connection, context: Context, items: Sequence[DeliveryHandle]
) -> list[StartVerdict]:
    """`Storage.start_many`."""
    verdicts = [StartVerdict(Start.MISSING)] * len(items)
    for indexes in rounds(items, lambda handle: handle.uuid):
        keys = [items[index].uuid.bytes for index in indexes]
        columns = f"seq, {RECORD_COLUMNS}"
        rows = select_in(connection, context.app, columns, "uuid", keys, " AND status IS NOT NULL")
        there = {row[1]: row for row in rows}
        starter = Starter(context, context.clock())
        for index, key in zip(indexes, keys, strict=True):
            if key in there:
                verdicts[index] = starter.start(items[index], there[key][0], there[key][1:])
        update_rows(connection, START, starter.rows)
        starter.write_unreadable(connection)
    return verdicts


def ended_values(status: int, now: float, expires_at: float) -> tuple[Any, ...]:
    """The values of `ENDED`: without its owner a late settle is rejected."""
    return (status, "", now, now, expires_at)


def died_values(now: float, expires_at: float, reason: str) -> tuple[Any, ...]:
    """The values of `DIED`."""
    return (*ended_values(ERROR, now, expires_at), 1, reason)


class BuryRecord(NamedTuple):
    """One item of `Storage.bury_many`."""

    buried: Buried
    expires_at: float


def bury(connection: sqlite3.Connection, context: Context, items: Sequence[BuryRecord]) -> list[bool]:
    """`Storage.bury_many`."""
    now = context.clock()
    done = [False] * len(items)
    for indexes in rounds(items, lambda item: item.buried.uuid):
        keys = [items[index].buried.uuid.bytes for index in indexes]
        rows = select_in(connection, context.app, "uuid, seq, epoch", "uuid", keys, " AND status <= 1")
        there = {row[0]: row for row in rows}
        changed: list[tuple[Any, ...]] = []
        for index, key in zip(indexes, keys, strict=True):
            buried, expires_at = items[index]
            row = there.get(key)
            if row is not None and row[2] <= buried.epoch:
                changed.append((row[1], *died_values(now, expires_at, buried.reason)))
                done[index] = True
        update_rows(connection, DIED, changed)
    return done


class Cancel(NamedTuple):
    """One item of `Storage.cancel_many`."""

    uuid: UUID
    reason: str
    expires_at: float


def cancel(connection: sqlite3.Connection, context: Context, items: Sequence[Cancel]) -> list[CancelVerdict]:
    """`Storage.cancel_many`."""
    now = context.clock()
    verdicts = [CancelVerdict.MISSING] * len(items)
    for indexes in rounds(items, lambda item: item.uuid):
        keys = [items[index].uuid.bytes for index in indexes]
        rows = select_in(
            connection, context.app, "uuid, seq, status", "uuid", keys, " AND status IS NOT NULL"
        )
        there = {row[0]: row for row in rows}
        ended: list[tuple[Any, ...]] = []
        asked: list[tuple[Any, ...]] = []
        for index, key in zip(indexes, keys, strict=True):
            item, row = items[index], there.get(key)
            if row is None:
                continue
            if row[2] == NEW:
                ended.append((row[1], *ended_values(CANCEL, now, item.expires_at), item.reason))
                verdicts[index] = CancelVerdict.CANCELLED
            elif row[2] == PROCESS:
                asked.append((row[1], 1, item.reason))
                verdicts[index] = CancelVerdict.REQUESTED
            else:
                verdicts[index] = CancelVerdict.TERMINAL
        update_rows(connection, (*ENDED, "cancel_reason"), ended)
        update_rows(connection, ("cancel_requested", "cancel_reason"), asked)
    return verdicts


class UpdateRow(NamedTuple):
    """One item of `Storage.update_many`."""

    uuid: UUID
    changes: Changes


def update(connection: sqlite3.Connection, context: Context, items: Sequence[UpdateRow]) -> list[bool]:
    """`Storage.update_many`; rare, so row by row."""
    done = []
    for item in items:
        row = next(
            select_in(connection, context.app, "seq, payload", "uuid", [item.uuid.bytes], " AND status <= 1"),
            None,
        )
        done.append(row is not None and _update(connection, context.app, item, row))
    return done


def _update(connection: sqlite3.Connection, app: int, item: UpdateRow, row: Sequence[Any]) -> bool:
    changes = item.changes
    seq, payload = row
    columns, values = changes.columns, changes.values
    if "unique_key" in columns:
        key = values[columns.index("unique_key")]
        if _holders(connection, app, [key]).get(key, item.uuid) != item.uuid:
            return False
    if changes.payload is not None:
        columns, values = (*columns, "payload"), (*values, changes.patched(payload))
    if columns:
        update_rows(connection, columns, [(seq, *values)])
    return True


def drop_records(connection: sqlite3.Connection, app: int, rows: Sequence[tuple[int, bytes, Any]]) -> None:
    """Deletes records with their items; rows are (seq, uuid, state), and an entry stays where there is one."""
    nothing = (None,) * len(RECORD)
    update_rows(connection, RECORD, [(seq, *nothing) for seq, _, state in rows if state is not None])
    delete_in(connection, "tasks", "seq", [seq for seq, _, state in rows if state is None])
    delete_in(connection, "items", "uuid", [uuid for _, uuid, _ in rows], f" AND app = {int(app)}")


def delete(connection: sqlite3.Connection, context: Context, items: Sequence[UUID]) -> list[bool]:
    """`Storage.delete_many`."""
    keys = [uuid.bytes for uuid in items]
    rows = list(select_in(connection, context.app, "seq, uuid, state", "uuid", keys, " AND status >= 2"))
    drop_records(connection, context.app, rows)
    left = {row[1] for row in rows}
    done = []
    for key in keys:
        done.append(key in left)
        left.discard(key)  # named twice, it is deleted once
    return done


class Purge(NamedTuple):
    """One step of `Storage.purge`."""

    before: float
    dead_max: int
    limit: int


def purge(connection: sqlite3.Connection, context: Context, items: Sequence[Purge]) -> list[int]:
    """`Storage.purge`, `limit` records at most, so that no transaction is long."""
    deleted = []
    for item in items:
        rows = connection.execute(
            "SELECT seq, uuid, state FROM tasks WHERE app = ? AND expires_at IS NOT NULL AND status >= 2 "
            "AND expires_at < ? ORDER BY expires_at LIMIT ?",
            (context.app, item.before, item.limit),
        ).fetchall()
        if not rows:
            (dead,) = connection.execute(
                "SELECT count(*) FROM tasks WHERE app = ? AND dead = 1", (context.app,)
            ).fetchone()
            rows = connection.execute(
                "SELECT seq, uuid, state FROM tasks WHERE app = ? AND dead = 1 ORDER BY finished_at, seq LIMIT ?",
                (context.app, max(0, min(item.limit, dead - item.dead_max))),
            ).fetchall()
        drop_records(connection, context.app, rows)
        deleted.append(len(rows))
    return deleted


def flush(connection: sqlite3.Connection, context: Context, items: Sequence[None]) -> list[None]:
    """`Storage.flush`."""
    app = (context.app,)
    nothing = ",".join(f"{column} = NULL" for column in RECORD)
    connection.execute("DELETE FROM tasks WHERE app = ? AND state IS NULL", app)
    connection.execute(f"UPDATE tasks SET {nothing} WHERE app = ? AND status IS NOT NULL", app)
    connection.execute("DELETE FROM items WHERE app = ?", app)
    return [None] * len(items)


class Append(NamedTuple):
    """One call of `Storage.append_items`."""

    handle: DeliveryHandle
    begin: int
    values: tuple[bytes, ...]


def append(connection: sqlite3.Connection, context: Context, items: Sequence[Append]) -> list[bool]:
    """`Storage.append_items`. What stood at `index` and after it is replaced, so that a new run of the
    generator leaves nothing of the one before.
    """
    return [_append(connection, context.app, item) for item in items]


def _append(connection: sqlite3.Connection, app: int, item: Append) -> bool:
    key = item.handle.uuid.bytes
    row = next(
        select_in(connection, app, "status, epoch, owner", "uuid", [key], " AND status IS NOT NULL"), None
    )
    if row is None or may_settle(STATUS[row[0]], row[1], row[2], item.handle) is not SettleVerdict.ACCEPTED:
        return False
    (last,) = connection.execute(
        "SELECT max(number) FROM items WHERE app = ? AND uuid = ?", (app, key)
    ).fetchone()
    if item.begin > (-1 if last is None else last) + 1:
        return False
    connection.execute("DELETE FROM items WHERE app = ? AND uuid = ? AND number >= ?", (app, key, item.begin))
    connection.executemany(
        "INSERT INTO items (app, uuid, number, value) VALUES (?, ?, ?, ?)",
        [(app, key, item.begin + offset, value) for offset, value in enumerate(item.values)],
    )
    return True
