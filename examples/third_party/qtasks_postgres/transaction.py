"""Adding tasks in a transaction that the caller has begun and will end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import tuple_row

from qtasks_postgres.faults import backend_error
from qtasks_postgres.target import Target

Caller: TypeAlias = AsyncConnection[Any] | Connection[Any]

_connection: ContextVar[Caller | None] = ContextVar("qtasks_postgres_connection", default=None)


def current() -> Caller | None:
    """The connection in whose transaction tasks are added here, if there is one."""
    return _connection.get()


@contextmanager
def using(connection: Caller) -> Iterator[None]:
    """Tasks that are added, or got, inside this block go out on this connection."""
    token = _connection.set(connection)
    try:
        yield
    finally:
        _connection.reset(token)


async def execute(connection: Caller, target: Target, statement: str, values: Sequence[Any]) -> list[Any]:
    """The rows of a statement of ours, whose function is looked up in our schema.

    Raises:
        BackendError: it failed, and the caller's transaction with it.
    """
    qualified = sql.SQL(statement.replace("FROM ", "FROM {}.", 1)).format(sql.Identifier(target.schema))
    try:
        if isinstance(connection, AsyncConnection):
            async with connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(qualified, values)
                return await cursor.fetchall()
        return await asyncio.to_thread(_blocking, connection, qualified, values)
    except psycopg.Error as error:
        raise backend_error(error, target.label) from error


def _blocking(connection: Connection[Any], statement: sql.Composed, values: Sequence[Any]) -> list[Any]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
