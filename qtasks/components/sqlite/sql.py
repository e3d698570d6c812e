"""Set-based statements: many rows in one statement, with few distinct statement texts.

Each step of a statement gives up the interpreter lock and has to get it back, which is slow while
the event loop is busy; so a batch is one statement, not one for each row. Values are bound, not
passed as JSON: that keeps floats exact and blobs blobs.

The `sqlite3` module looks for an adapter for each `None` and each `bytes` that it binds, which takes
0.3 µs, as long as twenty numbers and often longer than the statement works on the row. So what is the
same for all rows stands in the text of a statement, and blobs are bound as `bytearray` (`blob`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final, TypeVar

from qtasks.components.sqlite.schema import DELAYED, READY

T = TypeVar("T")

CHUNK: Final = 128

blob: Final = bytearray
"""What a blob is bound as."""

FRESH: Final = ("created_at", "updated_at", "available_at", "payload")
"""What there is to write of a new record; the other columns of it are as in `FRESH_REST`."""

FRESH_REST: Final = {
    "status": "0", "epoch": "0", "owner": "''", "attempt": "0", "deliveries": "0", "cancel_requested": "0", "dead": "0",
}  # fmt: skip
ENTRY_REST: Final = {"entry_epoch": "0", "entry_owner": "''", "entry_deliveries": "0", "restored": "0"}
"""Columns of a new record, and of a new entry, that are the same for all, as SQL; what is named nowhere is NULL."""


def padded(count: int) -> int:
    """The next power of two: batches of many lengths share few statements."""
    return 1 << (count - 1).bit_length()


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Pieces of at most `size`."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def rounds(items: Sequence[T], key: Callable[[T], Any]) -> Iterator[list[int]]:
    """Indexes of the items such that no round has a key twice: a second item with the same key has to
    see what became of the first."""
    if len(items) == 1:
        yield [0]
        return
    pending = list(range(len(items)))
    while pending:
        seen: set[Any] = set()
        now: list[int] = []
        later: list[int] = []
        for index in pending:
            mark = key(items[index])
            if mark in seen:
                later.append(index)
            else:
                seen.add(mark)
                now.append(index)
        yield now
        pending = later


@cache
def _select(columns: str, field: str, count: int, where: str) -> str:
    marks = ",".join("?" * count)
    return f"SELECT {columns} FROM tasks WHERE app = ? AND {field} IN ({marks}){where}"


def select_in(
    connection: sqlite3.Connection, app: int, columns: str, field: str, keys: Sequence[Any], where: str = ""
) -> Iterator[Any]:
    """Rows of tasks whose `field` is one of the keys, in no order."""
    if keys and type(keys[0]) is bytes:
        keys = list(map(blob, keys))
    for piece in chunks(keys):
        size = padded(len(piece))
        padding = (piece[-1],) * (size - len(piece))
        yield from connection.execute(
            _select(columns, field, size, where), (app, *piece, *padding)
        ).fetchall()


@cache
def _update(columns: tuple[str, ...], count: int) -> str:
    names = ",".join(f"n{number}" for number in range(len(columns)))
    row = f"({','.join('?' * (len(columns) + 1))})"
    sets = ",".join(f"{column} = v.n{number}" for number, column in enumerate(columns))
    return (
        f"WITH v(seq,{names}) AS (VALUES {','.join([row] * count)}) "
        f"UPDATE tasks SET {sets} FROM v WHERE tasks.seq = v.seq"
    )


def update_rows(
    connection: sqlite3.Connection, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Sets columns of tasks; each row is the seq and then the values."""
    empty = (0,) * (len(columns) + 1)  # no row has the seq 0
    for piece in chunks(rows):
        size = padded(len(piece))
        values = chain(chain.from_iterable(piece), *((empty,) * (size - len(piece))))
        connection.execute(_update(columns, size), tuple(values))


@cache
def _delete(table: str, field: str, count: int, where: str) -> str:
    return f"DELETE FROM {table} WHERE {field} IN ({','.join('?' * count)}){where}"


def delete_in(
    connection: sqlite3.Connection, table: str, field: str, keys: Sequence[Any], where: str = ""
) -> None:
    """Deletes rows whose `field` is one of the keys."""
    for piece in chunks(keys):
        size = padded(len(piece))
        connection.execute(
            _delete(table, field, size, where), (*piece, *((piece[-1],) * (size - len(piece))))
        )


@cache
def _settle(app: int, columns: tuple[str, ...], count: int, acked: bool) -> str:
    names = ",".join(f"n{number}" for number in range(len(columns)))
    row = f"({','.join('?' * (len(columns) + 3))})"
    sets = ",".join(f"{column} = v.n{number}" for number, column in enumerate(columns))
    # The plus keeps the planner from beginning with an index of all that is open or leased.
    held = "AND +state = 2 AND entry_epoch = v.epoch AND entry_owner = v.owner" if acked else ""
    return (
        f"WITH v(uuid,epoch,owner,{names}) AS (VALUES {','.join([row] * count)}) "
        f"UPDATE tasks SET {sets}{', state = NULL' if acked else ''} FROM v "
        f"WHERE app = {int(app)} AND tasks.uuid = v.uuid AND +status = 1 "
        f"AND tasks.epoch = v.epoch AND tasks.owner = v.owner {held}"
    )


def settle_rows(
    connection: sqlite3.Connection, app: int, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]],
    *, acked: bool,
) -> None:  # fmt: skip
    """Sets columns of records that are PROCESS under a token; each row is uuid, epoch and owner, and then the values.

    Parameters:
        acked: the entry is leased under the same token, and goes with it.
    """
    empty = (0,) * (len(columns) + 3)
    for piece in chunks(rows):
        size = padded(len(piece))
        values = chain(chain.from_iterable(piece), *((empty,) * (size - len(piece))))
        connection.execute(_settle(app, columns, size, acked), tuple(values))


def _pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces of few different lengths."""
    begin = 0
    for size in (64, 16, 4, 1):
        while len(rows) - begin >= size:
            yield rows[begin : begin + size]
            begin += size


@cache
def _insert(columns: tuple[str, ...], count: int) -> str:
    row = f"({','.join('?' * len(columns))})"
    return f"INSERT INTO tasks ({','.join(columns)}) VALUES {','.join([row] * count)}"


def insert_rows(
    connection: sqlite3.Connection, columns: tuple[str, ...], rows: Sequence[Iterable[Any]]
) -> None:
    """Inserts rows into tasks, in their order."""
    for piece in _pieces(rows):
        connection.execute(_insert(columns, len(piece)), tuple(chain.from_iterable(piece)))


_FRESH: Final = ("uuid", "queue", "priority", "due_at", *FRESH)


@cache
def _insert_fresh(app: int, count: int) -> str:
    columns = (*_FRESH, "pushed_at", "state", "app", *FRESH_REST, *ENTRY_REST)
    marks = ",".join("?" * (len(_FRESH) + 2))
    rest = ",".join((str(int(app)), *FRESH_REST.values(), *ENTRY_REST.values()))
    rows = ",".join([f"({marks},{rest})"] * count)
    return f"INSERT INTO tasks ({','.join(columns)}) VALUES {rows} ON CONFLICT (app, uuid) DO NOTHING"


def insert_fresh(connection: sqlite3.Connection, app: int, now: float, rows: Sequence[Sequence[Any]]) -> None:
    """Inserts new tasks that wait, unless they are there; each row is uuid, queue, priority, when it is due, and then
    the values of `FRESH`. An entry that is due later than `now` is delayed, any other ready."""
    for piece in _pieces(rows):
        values: list[Any] = []
        for row in piece:
            due = row[3]
            values += row
            values += (due, DELAYED if due > now else READY)
        connection.execute(_insert_fresh(app, len(piece)), values)
