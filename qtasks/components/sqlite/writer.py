"""Group commit: all writes of this process to one file go through one coroutine.

It gathers what the callers of the last moment want, runs it as a few set-based statements in one
transaction, and answers only after the commit. It is never cancelled with a caller: who has handed
an operation in may go away, the operation is done all the same.

While it waits for the writer's thread, that thread takes what has come since by itself; both never take at once.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

from qtasks._failpoints import hit
from qtasks.components.sqlite.faults import Fault, backend_error, fault_of
from qtasks.components.sqlite.lane import Lane
from qtasks.errors import BackendError, NotStartedError

BATCH: Final = 500
GO_ON: Final = 16
"""Transactions that the writer's thread makes one after another before it lets other users of the connection in."""
BUSY_PATIENCE: Final = 30.0
"""Seconds of a locked file after which the callers are told; the writer itself goes on."""

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


class Context(NamedTuple):
    """What all items of one statement share.

    Attributes:
        app: number of the app in this file.
        clock: gives Unix seconds.
        grace: seconds that an entry without a record is kept.
        dead_ttl: seconds that a record is kept that cannot be read.
    """

    app: int
    clock: Callable[[], float]
    grace: float = 0.0
    dead_ttl: float = 0.0


Apply = Callable[[sqlite3.Connection, Context, Sequence[I]], list[R]]
"""A primitive: items in, one result for each; runs inside a transaction, in the writer's thread."""


Transaction = Callable[[sqlite3.Connection, "list[_Run]"], tuple[list[list[Any]], bool]]


@dataclass(slots=True, eq=False)
class _Operation:
    apply: Apply[Any, Any]
    context: Context
    items: Sequence[Any]
    future: asyncio.Future[list[Any]]
    on_bad: Callable[[Any, BaseException], Any] | None


@dataclass(slots=True, eq=False)
class _Run:
    """Operations of one kind, merged."""

    apply: Apply[Any, Any]
    context: Context
    items: list[Any]
    operations: list[_Operation]


class _Bad(NamedTuple):
    error: BaseException


class Writer:
    """Owns the write connection of one file.

    Parameters:
        lane: the write connection.
        path: for messages.
        committed: called on the loop after each commit that changed something.
    """

    def __init__(self, lane: Lane, path: Path, committed: Callable[[], None]) -> None:
        self._lane = lane
        self._path = path
        self._committed = committed
        self._waiting: deque[_Operation] = deque()
        # What is being written. The thread puts the next ones here as it goes on.
        self._current: list[_Run] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve(), name=f"qtasks writer {path.name}")

    async def submit(
        self,
        apply: Apply[I, R],
        context: Context,
        items: Sequence[I],
        on_bad: Callable[[I, BaseException], R] | None = None,
    ) -> list[R]:
        """Runs a primitive on items with whatever else waits, in one transaction.

        Parameters:
            on_bad: the result for an item that cannot be written; without it the call raises, after
                the other items are written.

        Raises:
            TransientError, FatalError: nothing of it was written.
            BackendError: an item cannot be written.
        """
        if not items:
            return []
        if self._closing or self._task.done():
            raise NotStartedError(f"SQLite file {self._path} is closed")
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append(_Operation(apply, context, items, future, on_bad))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Writes what still waits, then ends."""
        self._closing = True
        self._wake.set()
        await asyncio.wait((self._task,))

    async def _serve(self) -> None:
        try:
            while not (self._closing and not self._waiting):
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    self._current = self._take()
                    await self._write()
                    self._current = []
        finally:
            # Only when the loop itself goes down: nobody may wait for ever. The thread may take of them still.
            closed = NotStartedError(f"SQLite file {self._path} is closed")
            self._fail_all(self._current, closed)
            for operation in tuple(self._waiting):
                _fail(operation, closed)

    def _take(self) -> list[_Run]:
        runs: dict[tuple[Apply[Any, Any], Context], _Run] = {}
        taken = 0
        while self._waiting and taken < BATCH:
            operation = self._waiting.popleft()
            taken += len(operation.items)
            key = (operation.apply, operation.context)
            run = runs.get(key)
            if run is None:
                runs[key] = _Run(operation.apply, operation.context, list(operation.items), [operation])
            else:
                run.items.extend(operation.items)
                run.operations.append(operation)
        return list(runs.values())

    async def _write(self) -> None:
        transaction = _together
        give_up_at = self._loop.time() + BUSY_PATIENCE
        while True:
            runs = self._current
            try:
                results, changed = await self._lane.run(partial(self._go_on, transaction))
            except Exception as error:
                kind = fault_of(error)
                if self._current is not runs:  # what it began with is written
                    transaction, give_up_at = _together, self._loop.time() + BUSY_PATIENCE
                if kind is Fault.BUSY and self._loop.time() < give_up_at:
                    await asyncio.sleep(random.uniform(0.001, 0.02))
                    continue
                if kind is Fault.ROW and transaction is _together:
                    transaction = _one_by_one
                    continue
                failure = backend_error(error, self._path)
                failure.__cause__ = error
                self._fail_all(self._current, failure)
                return
            self._written(self._current, results, changed)
            return

    def _go_on(
        self, transaction: Transaction, connection: sqlite3.Connection
    ) -> tuple[list[list[Any]], bool]:
        """Writes the current operations, and then what has come meanwhile, as long as there is something; gives the
        results of the last ones. Runs in the writer's thread, which so needs no turn of the event loop, which may be
        busy, between two transactions."""
        left = GO_ON
        while True:
            runs = self._current
            results, changed = transaction(connection, runs)
            left -= 1
            if not (left and self._waiting):
                return results, changed
            self._loop.call_soon_threadsafe(self._written, runs, results, changed)
            transaction = _together
            self._current = self._take()

    def _written(self, runs: list[_Run], results: list[list[Any]], changed: bool) -> None:
        if changed:
            self._committed()
        for run, result in zip(runs, results, strict=True):
            self._answer(run, result)

    def _fail_all(self, runs: list[_Run], failure: Exception) -> None:
        for run in runs:
            for operation in run.operations:
                _fail(operation, failure)

    def _answer(self, run: _Run, results: list[Any]) -> None:
        begin = 0
        for operation in run.operations:
            own = results[begin : begin + len(operation.items)]
            begin += len(operation.items)
            if operation.future.done():
                continue  # its caller was cancelled
            try:
                operation.future.set_result(self._judged(operation, own))
            except BackendError as error:
                operation.future.set_exception(error)

    def _judged(self, operation: _Operation, results: list[Any]) -> list[Any]:
        for index, result in enumerate(results):
            if isinstance(result, _Bad):
                if operation.on_bad is None:
                    shown = repr(operation.items[index])[:200]
                    raise BackendError(
                        f"SQLite file {self._path} does not take one of {len(results)} items, the others are "
                        f"written: {result.error!r}: {shown}"
                    ) from result.error
                results[index] = operation.on_bad(operation.items[index], result.error)
        return results


def _fail(operation: _Operation, failure: Exception) -> None:
    if not operation.future.done():
        operation.future.set_exception(failure)


def _together(connection: sqlite3.Connection, runs: list[_Run]) -> tuple[list[list[Any]], bool]:
    before = connection.total_changes
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [run.apply(connection, run.context, run.items) for run in runs]
        hit("sqlite.before_commit")
        connection.execute("COMMIT")
        hit("sqlite.after_commit_before_reply")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return results, connection.total_changes != before


def _one_by_one(connection: sqlite3.Connection, runs: list[_Run]) -> tuple[list[list[Any]], bool]:
    """The same, when something in it was bad: each item under a savepoint, so that it fails alone."""
    before = connection.total_changes
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [[_guarded(connection, run, item) for item in run.items] for run in runs]
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return results, connection.total_changes != before


def _guarded(connection: sqlite3.Connection, run: _Run, item: Any) -> Any:
    connection.execute("SAVEPOINT item")
    try:
        result = run.apply(connection, run.context, [item])[0]
    except Exception as error:
        if fault_of(error) is not Fault.ROW:
            raise
        connection.execute("ROLLBACK TO item")
        result = _Bad(error)
    connection.execute("RELEASE item")
    return cast(Any, result)
