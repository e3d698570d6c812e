"""The logging context: every line of a task names it, and no line of another one does."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog
from structlog.testing import LogCapture

from qtasks import QueueConfig, QueueTasks, Task, TaskContext, TaskStatusEnum, hookimpl
from qtasks.plugins.logging_context import StructlogPlugin, TaskFilter
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins import logging_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, said, workers_up
from tests.support.commands import Running

log = structlog.get_logger()
plain = logging.getLogger("tests.logging_context")


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What structlog is told, with the context of each line."""
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.reset_defaults()


class Kept(logging.Handler):
    """Keeps the records, as the filter left them."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(TaskFilter())
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[Any]]:
    kept = Kept()
    plain.addHandler(kept)
    plain.setLevel(logging.INFO)
    yield kept.records
    plain.removeHandler(kept)


class After:
    """Writes a line when a task is over, outside of it."""

    @hookimpl
    def worker_execute_after(self, task_broker: Any) -> None:
        log.info("over", of=str(task_broker.uuid))
        plain.info("over %s", task_broker.uuid)


def expected(task: Task, attempt: int = 0) -> dict[str, Any]:
    return {"task_uuid": str(task.uuid), "task_name": task.task_name, "task_queue": "default",
            "task_attempt": attempt}  # fmt: skip


def bound(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("event", "log_level")}


async def test_lines_of_a_task_name_it_however_it_ends(lines: list[Any], records: list[Any]) -> None:
    """One slot, so that each task runs where the one before it left off."""
    app = QueueTasks(url="memory://", config=QueueConfig(concurrency=1), plugins=[StructlogPlugin(), After()])
    started = asyncio.Event()

    @app.task(name="coroutine")
    async def coroutine() -> None:
        structlog.contextvars.bind_contextvars(coroutine=1)
        log.info("in")
        plain.info("in")

    @app.task(name="thread")
    def thread() -> None:
        assert threading.current_thread() is not threading.main_thread()
        structlog.contextvars.bind_contextvars(thread=1)
        log.info("in")
        plain.info("in")

    @app.task(name="fails", retry=1, retry_delay=0)
    async def fails() -> None:
        structlog.contextvars.bind_contextvars(fails=1)
        log.info("in")
        plain.info("in")
        raise ValueError

    @app.task(name="vetoed", echo=True)
    async def vetoed(context: TaskContext) -> None:
        structlog.contextvars.bind_contextvars(vetoed=1)
        log.info("in")
        plain.info("in")
        context.cancel("no")

    @app.task(name="cancelled")
    async def cancelled() -> None:
        structlog.contextvars.bind_contextvars(cancelled=1)
        log.info("in")
        plain.info("in")
        started.set()
        await asyncio.Event().wait()

    structlog.contextvars.bind_contextvars(server="one")
    try:
        async with working(app):
            for name in ("coroutine", "thread", "fails", "vetoed", "cancelled", "coroutine"):
                lines.clear()
                records.clear()
                task = await app.add_task(name)
                if name == "cancelled":
                    await started.wait()
                    await task.cancel()
                await task.wait_result(10)
                async with asyncio.timeout(10):
                    while sum(line["event"] == "over" for line in lines) < (2 if name == "fails" else 1):
                        await asyncio.sleep(0.01)
                inside = [line for line in lines if line["event"] == "in"]
                attempts = range(2 if name == "fails" else 1)
                assert [bound(line) for line in inside] == [
                    {**expected(task, attempt), name: 1, "server": "one"} for attempt in attempts
                ]
                kept = [record for record in records if record.getMessage() == "in"]
                names = list(expected(task))
                assert [{n: getattr(record, n) for n in names} for record in kept] == [
                    expected(task, attempt) for attempt in attempts
                ]
                over = [line for line in lines if line["event"] == "over"]
                assert all(bound(line) == {"of": str(task.uuid), "server": "one"} for line in over)
                assert {record.task_uuid for record in records if record not in kept} == {"-"}
    finally:
        structlog.contextvars.clear_contextvars()


async def test_tasks_side_by_side_do_not_mix(lines: list[Any], records: list[Any]) -> None:
    app = QueueTasks(url="memory://", plugins=[StructlogPlugin()])
    all_in = asyncio.Barrier(5)

    @app.task(name="job")
    async def job(number: int) -> None:
        structlog.contextvars.bind_contextvars(number=number)
        await all_in.wait()
        log.info("in")
        plain.info("%d", number)

    async with working(app):
        tasks = [await job.add_task(number) for number in range(5)]
        for task in tasks:
            await task.wait_result(10)
    uuids = {number: str(task.uuid) for number, task in enumerate(tasks)}
    assert {line["number"]: line["task_uuid"] for line in lines if line["event"] == "in"} == uuids
    assert {int(record.getMessage()): record.task_uuid for record in records} == uuids


def test_the_plugin_holds_what_a_plugin_has_to() -> None:
    check_plugin(StructlogPlugin)


def of_task(worker: Running, uuid: UUID) -> list[dict[str, Any]]:
    events = (json.loads(line) for line in worker.lines if line.startswith("{"))
    return [event for event in events if event["task_uuid"] == str(uuid)]


async def test_two_workers_one_of_which_is_killed(redis_url: str, start_workers: StartWorkers) -> None:
    """The lines of the task name it in both processes: the one that is killed, and the one that takes over."""
    app = logging_site.make(redis_url)
    async with app:
        workers = start_workers(logging_site)
        await workers_up(app, 2)
        task = await app.add_task("job", args=(1,), kwargs={"fatal": True})
        first = await said(workers, "job 1 goes on")
        await kill(first)
        (second,) = (worker for worker in workers if worker is not first)
        done = await task.wait_result(20)
        assert (done.status, done.returning) == (TaskStatusEnum.SUCCESS, second.process.pid)
        later = await app.add_task("job", args=(2,), timeout=20)
        await said([second], "job 2 goes on")
    for worker in workers:
        assert [event["number"] for event in of_task(worker, task.uuid)] == [1]
        assert f"{task.uuid} job default job 1 goes on" in worker.output
    assert [event["number"] for event in of_task(second, later.uuid)] == [2]
