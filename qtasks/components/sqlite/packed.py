"""What a claim finds, as one row: the columns of its tasks, each as one value.

The `sqlite3` module gives up the interpreter lock for each row that it fetches, and has to get it back while the event
loop is busy: a hundred rows took several milliseconds of waiting. So SQLite itself puts the rows together, which
takes no lock and less time, and the event loop reads them, a column at a time. That is the way of tasks that are
delivered for the first time, which nearly all are; where a claim finds any other, it fetches rows.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from qtasks.codec import decode
from qtasks.components.primitives import DeliveryHandle
from qtasks.components.sqlite.rows import DAMAGE, first_started
from qtasks.ids import uuid_of
from qtasks.schemas import TaskRecord

_TICK: Final = 2**22
"""Parts of a second that a time is counted in. Unix times from 2004 on are whole numbers of them, since a float has no
finer ones there; a time that is none goes the way of rows."""

_LONGEST: Final = 65_536
"""Bytes of a payload above which rows are fetched: a value of SQLite holds a thousand million bytes."""

_PLAIN: Final = (
    "status = 0 AND epoch = 0 AND entry_deliveries = 0 AND restored = 0 AND attempt = 0 AND available_at <= ? "
    "AND pushed_at = available_at AND unique_key IS NULL AND traceback IS NULL AND progress IS NULL "
    "AND cancel_requested = 0 AND cancel_reason IS NULL AND expires_at IS NULL AND result IS NULL AND dead = 0 "
    f"AND length(uuid) = 16 AND typeof(payload) = 'blob' AND length(payload) <= {_LONGEST} "
    f"AND CAST(created_at * {_TICK} AS INTEGER) = created_at * {_TICK} "
    f"AND CAST(available_at * {_TICK} AS INTEGER) = available_at * {_TICK}"
)
"""A task that was added and nothing more: all that differs from one to the next is in the columns of `Pack`."""

_SELECT: Final = f"""
SELECT EXISTS (SELECT 1 FROM tasks WHERE app = ? AND state = 1 AND due_at <= ?),
    count(*), sum(plain), min(seq), max(seq), group_concat(seq), group_concat(priority),
    group_concat(hex(uuid), ''), group_concat(CAST(created_at * {_TICK} AS INTEGER)),
    group_concat(CAST(available_at * {_TICK} AS INTEGER)), CAST(group_concat(payload) AS BLOB)
FROM (
    SELECT seq, priority, uuid, created_at, available_at, payload, {_PLAIN} AS plain
    FROM tasks WHERE app = ? AND queue = ? AND state = 0 ORDER BY priority, seq LIMIT ?
)"""


class Pack(NamedTuple):
    """Tasks of one queue that were ready.

    Attributes:
        lowest, highest: of the seqs.
        seqs, priorities, created, available: numbers with commas between them; times in `_TICK`.
        uuids: in hexadecimal, one behind the other.
        payloads: with commas between them.
    """

    queue: str
    lowest: int
    highest: int
    seqs: str
    priorities: str
    uuids: str
    created: str
    available: str
    payloads: bytes


def select_packs(
    connection: sqlite3.Connection, app: int, queues: tuple[str, ...], n: int, now: float
) -> list[Pack] | None:
    """Up to `n` ready tasks, queue by queue, each by priority and age; `None` if a delayed one has become due, or if
    rows have to be looked at."""
    packs: list[Pack] = []
    for queue in dict.fromkeys(queues):
        late, count, plain, *rest = connection.execute(_SELECT, (app, now, now, app, queue, n)).fetchone()
        if late or (count and plain != count):
            return None
        if count:
            packs.append(Pack(queue, *rest))
            n -= count
            if n <= 0:
                break
    return packs


def unpacked(pack: Pack, epoch: int, owner: str, now: float) -> list[tuple[DeliveryHandle, TaskRecord]]:
    """The deliveries and records of tasks that were started.

    Parameters:
        epoch: the epoch of a task is this and its seq.

    Raises:
        ValueError: one of the records is damaged.
    """
    uuids = bytes.fromhex(pack.uuids)
    columns = (pack.seqs, pack.priorities, pack.created, pack.available)
    started: list[tuple[DeliveryHandle, TaskRecord]] = []
    try:
        rows = zip(
            *(decode(f"[{column}]") for column in columns), decode(b"[%b]" % pack.payloads), strict=True
        )
        for at, (seq, priority, created, available, payload) in enumerate(rows):
            uuid, token, available_at = uuid_of(uuids[16 * at : 16 * at + 16]), epoch + seq, available / _TICK
            record = first_started(uuid, payload, created / _TICK, available_at, token, owner, now)
            handle = DeliveryHandle(uuid, token, owner, 1, False, pack.queue, priority, available_at)
            started.append((handle, record))
    except DAMAGE as error:
        raise ValueError(f"a stored record cannot be read: {error}") from error
    return started
