"""Results: what can be returned, what cannot, middlewares, decode, streams, processes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from qtasks.app import QueueTasks
from qtasks.context import TaskContext
from qtasks.errors import ResultTimeoutError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskStatusEnum
from tests.app.conftest import MakeApp, working


@dataclass
class Point:
    x: int
    y: int


class Model(BaseModel):
    a: int
    b: datetime


RESULTS = [
    (None, None),
    (True, True),
    ([1, [2.5, "ü"]], [1, [2.5, "ü"]]),
    ({"a": None}, {"a": None}),
    (Point(1, 2), {"x": 1, "y": 2}),
    (Model(a=1, b=datetime(2026, 1, 2, tzinfo=UTC)), {"a": 1, "b": "2026-01-02T00:00:00Z"}),
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (b"\xff\x00", "_wA="),
    ((1, 2), [1, 2]),
]


@pytest.mark.parametrize(("value", "stored"), RESULTS)
async def test_results_are_json(app: QueueTasks, value: Any, stored: Any) -> None:
    @app.task
    async def job() -> Any:
        return value

    async with working(app):
        assert (await (await job.add_task()).wait_result(10)).returning == stored


async def test_a_result_that_cannot_be_stored_is_an_error_once(app: QueueTasks) -> None:
    runs: list[str] = []

    @app.task(retry=3, retry_delay=0)
    async def unstorable() -> Any:
        runs.append("x")
        return object()

    async with working(app):
        task = await (await unstorable.add_task()).wait_result(10)
    assert task.status is TaskStatusEnum.ERROR
    assert "cannot be written as JSON" in (task.traceback or "")
    assert runs == ["x"]


async def test_waiting_ends_after_its_timeout_and_the_task_goes_on(app: QueueTasks) -> None:
    release = asyncio.Event()

    @app.task
    async def job() -> str:
        await release.wait()
        return "done"

    async with working(app):
        task = await job.add_task()
        with pytest.raises(ResultTimeoutError, match="it goes on"):
            await task.wait_result(0.05)
        release.set()
        assert (await task.wait_result(10)).returning == "done"


async def test_plain_functions_run_in_threads_and_coroutines_on_the_loop(app: QueueTasks) -> None:
    here = threading.get_ident()

    @app.task
    def plain() -> int:
        return threading.get_ident()

    @app.task
    async def coroutine() -> int:
        return threading.get_ident()

    async with working(app):
        assert (await (await plain.add_task()).wait_result(10)).returning != here
        assert (await (await coroutine.add_task()).wait_result(10)).returning == here


async def test_middlewares_and_decode(app: QueueTasks) -> None:
    seen: list[str] = []

    def before(context: Any, args: Any, kw: Any) -> Any:
        seen.append("before")
        return (args[0] + 1,), kw

    async def after(context: Any, result: int) -> int:
        seen.append("after")
        return result * 10

    @app.task(middlewares_before=(before,), middlewares_after=(after,), decode=lambda value: {"value": value})
    async def job(x: int) -> int:
        seen.append("run")
        return x

    async with working(app):
        task = await (await job.add_task(1)).wait_result(10)
    assert task.returning == {"value": 20}
    assert seen == ["before", "run", "after"]


async def test_generators_give_lists_through_their_handler(app: QueueTasks) -> None:
    @app.task(generate_handler=lambda item: item * 2)
    def plain(n: int) -> Iterator[int]:
        yield from range(n)

    async def handler(item: int) -> int:
        return item + 100

    @app.task(generate_handler=handler)
    async def coroutine(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    async with working(app):
        assert (await (await plain.add_task(3)).wait_result(10)).returning == [0, 2, 4]
        assert (await (await coroutine.add_task(3)).wait_result(10)).returning == [100, 101, 102]


# --- Streams ------------------------------------------------------------------------------------


class Redact:
    """Counts its batches and changes their items."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    @hookimpl
    def task_executor_run_task_gen(self, results: list[Any]) -> list[Any]:
        self.batches.append(len(results))
        return [f"<{item}>" for item in results]


async def test_a_stream_is_read_while_the_task_runs(app: QueueTasks) -> None:
    go_on = asyncio.Event()

    @app.task(stream=True)
    async def job() -> AsyncIterator[int]:
        for i in range(250):
            yield i
        await go_on.wait()
        yield 250

    async with working(app):
        task = await job.add_task()
        got: list[int] = []
        async for item in task.stream():
            got.append(item)
            if item == 199:  # two full batches are stored; the task still runs
                running = await app.get(task.uuid)
                assert running is not None
                assert running.status is TaskStatusEnum.PROCESS
                go_on.set()
        assert got == list(range(251))
        assert [item async for item in task.stream(start=248)] == [248, 249, 250]
        assert (await task.wait_result(10)).returning == list(range(251))


async def test_plugins_see_a_stream_batch_by_batch(app: QueueTasks) -> None:
    redact = Redact()
    app.add_plugin(redact)

    @app.task(stream=True)
    def job() -> Iterator[int]:
        yield from range(250)

    @app.task
    def whole() -> Iterator[int]:
        yield from range(250)

    async with working(app):
        task = await job.add_task()
        expected = [f"<{i}>" for i in range(250)]
        assert [item async for item in task.stream()] == expected
        assert (await task.wait_result(10)).returning == expected
        assert len(redact.batches) >= 3
        assert sum(redact.batches) == 250
        redact.batches.clear()
        assert (await (await whole.add_task()).wait_result(10)).returning == expected
        assert redact.batches == [250]


async def test_a_stream_item_that_cannot_be_stored_ends_the_task_without_a_retry(app: QueueTasks) -> None:
    runs: list[int] = []

    @app.task(stream=True, retry=3, retry_delay=0)
    async def job() -> AsyncIterator[Any]:
        runs.append(1)
        yield object()

    async with working(app):
        task = await (await job.add_task()).wait_result(10)
    assert task.status is TaskStatusEnum.ERROR
    assert "an item of the stream cannot be stored" in (task.traceback or "")
    assert runs == [1]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_an_item_is_readable_while_the_generator_is_still_at_the_next_one(
    app: QueueTasks, kind: str
) -> None:
    go_on = threading.Event()

    @app.task(name="coroutine", stream=True)
    async def coroutine() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.to_thread(go_on.wait, 60)

    @app.task(name="plain", stream=True)
    def plain() -> Iterator[int]:
        yield 1
        yield 2
        go_on.wait(60)

    async with working(app):
        task = await app.add_task(kind)
        got = []
        async for item in task.stream():
            got.append(item)
            if item == 2:
                assert not await app.ended(task.uuid)
                go_on.set()
        assert got == [1, 2]


async def test_a_stream_that_grows_beyond_the_limit_of_a_result_ends_there(make_app: MakeApp) -> None:
    app = make_app(max_payload=10_000)
    closed: list[int] = []

    @app.task(stream=True, retry=3, retry_delay=0)
    async def endless() -> AsyncIterator[str]:
        count = 0
        try:
            while True:
                count += 1
                yield "x" * 100
        finally:
            closed.append(count)

    async with working(app):
        task = await (await endless.add_task()).wait_result(60)
    assert task.status is TaskStatusEnum.ERROR
    assert "max_payload (10000 bytes)" in (task.traceback or "")
    assert len(closed) == 1
    assert 100 <= closed[0] <= 200  # one batch was stored, the second one was too much


async def test_a_client_follows_the_progress_of_a_task(app: QueueTasks) -> None:
    seen_half = asyncio.Event()

    @app.task(echo=True)
    async def job(ctx: TaskContext) -> str:
        await ctx.progress("half")
        await seen_half.wait()
        return "done"

    async with working(app):
        task = await job.add_task()
        seen = []
        async for snapshot in task.follow():
            seen.append(snapshot)
            if snapshot.progress == "half":
                seen_half.set()
    assert seen[-1].status is TaskStatusEnum.SUCCESS
    assert seen[-1].returning == "done"
    assert "half" in [snapshot.progress for snapshot in seen[:-1]]


# --- Processes ----------------------------------------------------------------------------------

process_app = QueueTasks(url="memory://")


@process_app.task(executor="process")
def pid_of(n: int) -> list[int]:
    """Runs in a process of its own."""
    return [os.getpid(), n * 2]


@process_app.task(executor="process", max_time=0.3)
def spin() -> None:
    """Never ends."""
    while True:
        pass


async def test_cpu_work_runs_in_another_process_and_is_killed_at_max_time() -> None:
    async with working(process_app):
        first = await (await pid_of.add_task(4)).wait_result(60)
        assert first.status is TaskStatusEnum.SUCCESS, first.traceback
        pid, doubled = first.returning
        assert pid != os.getpid()
        assert doubled == 8
        stuck = await (await spin.add_task()).wait_result(60)
        assert stuck.status is TaskStatusEnum.ERROR
        assert "max_time (0.3 s)" in (stuck.traceback or "")
        # The slot and the pool are free again.
        assert (await (await pid_of.add_task(5)).wait_result(60)).returning[1] == 10
