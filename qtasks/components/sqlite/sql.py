"""Set-based statements: many rows in one statement, with few distinct statement texts.

Each step of a statement gives up the interpreter lock and has to get it back, which is slow while
the event loop is busy; so a batch is one statement, not one for each row. Values are bound, not
passed as JSON: that keeps floats exact and blobs blobs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final, TypeVar

T = TypeVar("T")

CHUNK: Final = 128


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
    for piece in chunks(keys):
        size = padded(len(piece))
        padding = (None,) * (size - len(piece))
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
    empty = (None,) * (len(columns) + 1)
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
        connection.execute(_delete(table, field, size, where), (*piece, *(None,) * (size - len(piece))))


@cache
def _insert(columns: tuple[str, ...], count: int) -> str:
    row = f"({','.join('?' * len(columns))})"
    return f"INSERT INTO tasks ({','.join(columns)}) VALUES {','.join([row] * count)}"


def insert_rows(
    connection: sqlite3.Connection, columns: tuple[str, ...], rows: Sequence[Iterable[Any]]
) -> None:
    """Inserts rows into tasks, in their order."""
    begin = 0
    for size in (64, 16, 4, 1):
        while len(rows) - begin >= size:
            piece = rows[begin : begin + size]
            connection.execute(_insert(columns, size), tuple(chain.from_iterable(piece)))
            begin += size
