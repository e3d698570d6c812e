"""Calls that come while another is under way go out together as one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from qtasks_postgres.faults import about_an_item

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

LARGEST = 500
"""Items in one statement, unless one caller brings more."""


class Step(NamedTuple, Generic[I, R]):
    """A statement over many items.

    Attributes:
        run: makes it, for items with different keys; gives a result for each, in their order.
        key: tells items apart that must not be in one statement.
        bad: the result of an item that the store does not take, alone; without it its caller gets the error.
    """

    run: Callable[[Sequence[I]], Awaitable[list[R]]]
    key: Callable[[I], Hashable]
    bad: Callable[[I, Exception], R] | None = None


class Batches(Generic[I, R]):
    """The calls of one step, one statement at a time.

    A caller may be cancelled: its items go out all the same, since a statement is never cut off.
    """

    def __init__(self, step: Step[I, R]) -> None:
        self._step = step
        self._waiting: list[tuple[Sequence[I], asyncio.Future[list[R]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[I]) -> list[R]:
        """The results of these items, in their order."""
        if not items:
            return []
        future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="qtasks-postgres batch")
        return await future

    async def drained(self) -> None:
        """Returns when everything that was handed in is done."""
        while self._task is not None and not self._task.done():
            await asyncio.wait((self._task,))

    async def _serve(self) -> None:
        while self._waiting:
            count, taken = 0, 0
            for items, _ in self._waiting:
                if taken and count + len(items) > LARGEST:
                    break
                count, taken = count + len(items), taken + 1
            calls, self._waiting = self._waiting[:taken], self._waiting[taken:]
            results = await self._results([item for items, _ in calls for item in items])
            begin = 0
            for items, future in calls:
                own = results[begin : begin + len(items)]
                begin += len(items)
                error = next((result for result in own if isinstance(result, Exception)), None)
                if future.done():
                    continue  # its caller was cancelled
                if error is None:
                    future.set_result(own)
                else:
                    future.set_exception(error)

    async def _results(self, items: list[I]) -> list[Any]:
        """A result for each item, or the error in its place."""
        try:
            return await self._in_rounds(items)
        except Exception as error:
            if not about_an_item(error):
                return [error] * len(items)
        # Nothing of it is done. The bad item is found by sending each alone.
        results: list[Any] = []
        for item in items:
            try:
                results += await self._in_rounds([item])
            except Exception as error:
                judged = self._step.bad is not None and about_an_item(error)
                results.append(self._step.bad(item, error) if self._step.bad and judged else error)
        return results

    async def _in_rounds(self, items: list[I]) -> list[R]:
        """A second item of the same key has to see what became of the first."""
        results: list[Any] = [None] * len(items)
        pending = list(range(len(items)))
        while pending:
            first: dict[Hashable, int] = {}
            later: list[int] = []
            for index in pending:
                if first.setdefault(self._step.key(items[index]), index) != index:
                    later.append(index)
            now = list(first.values())
            for index, result in zip(now, await self._step.run([items[i] for i in now]), strict=True):
                results[index] = result
            pending = later
        return results
