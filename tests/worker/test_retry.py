"""Retry: the `retry` plugin decides within what the task declares, and no plugin can lift the cap."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from qtasks.app import QueueTasks
from qtasks.context import TaskContext
from qtasks.errors import TaskDefer, TaskRejected
from qtasks.markers import hookimpl
from qtasks.plugins.retry import RetryPlugin
from qtasks.schemas import TaskExecSchema, TaskPrioritySchema, TaskStatusEnum, TaskStatusErrorSchema

from ..apps import alive, ended, stored

SUCCESS, ERROR = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR


class Trouble(ConnectionError):
    """A subclass of what is retried."""


def failing(app: QueueTasks, error: Exception, **options: Any) -> list[int]:
    """Declares a task that always fails; gives the attempts it was run with."""
    attempts: list[int] = []

    @app.task(name="fails", echo=True, **{"retry_delay": 0.01, **options})
    async def fails(context: TaskContext) -> None:
        attempts.append(context.attempt)
        raise error

    return attempts


@pytest.mark.parametrize("retry", [0, 1, 3])
async def test_a_task_fails_at_most_retry_plus_one_times(app: QueueTasks, retry: int) -> None:
    """I5. Each attempt has its own deliveries; the last one leaves the task dead."""
    attempts = failing(app, ValueError("always"), retry=retry)
    async with alive(app):
        record = await ended(app, (await app.add_task("fails")).uuid)
    assert attempts == list(range(retry + 1))
    assert (record.status, record.dead, record.attempt, record.deliveries) == (ERROR, True, retry + 1, 1)


@pytest.mark.parametrize(
    ("error", "runs"), [(ConnectionError(), 3), (Trouble(), 3), (ValueError(), 1), (TaskRejected("no"), 1)]
)
async def test_retry_on_exc_takes_subclasses(app: QueueTasks, error: Exception, runs: int) -> None:
    """What is not listed fails at once, and a rejection always does."""
    attempts = failing(app, error, retry=2, retry_on_exc=(ConnectionError, KeyError))
    async with alive(app):
        record = await ended(app, (await app.add_task("fails")).uuid)
    assert len(attempts) == runs
    assert record.status is ERROR


def test_delays_grow_up_to_the_longest() -> None:
    """`retry_delay` times `retry_backoff` to the power of the attempt, varied by `retry_jitter`."""
    task = TaskExecSchema(
        name="t",
        func=print,
        retry=9,
        retry_delay=2.0,
        retry_backoff=3.0,
        retry_max_delay=40.0,
        retry_jitter=0.25,
    )
    model = TaskStatusErrorSchema(task_name="t")
    for attempt, expected in enumerate([2.0, 6.0, 18.0, 40.0, 40.0]):
        held = TaskPrioritySchema(priority=0, uuid=None, name="t", attempt=attempt)
        delays = set()
        for _ in range(50):
            decided = RetryPlugin().worker_task_error_retry(task, held, ValueError(), model)
            assert decided is not None
            assert decided.retry_in is not None
            assert 0.75 * expected <= decided.retry_in <= 1.25 * expected
            delays.add(decided.retry_in)
        assert len(delays) > 1
    held = TaskPrioritySchema(priority=0, uuid=None, name="t", attempt=9)
    assert RetryPlugin().worker_task_error_retry(task, held, ValueError(), model) is None


async def test_a_retry_waits_as_long_as_was_decided(app: QueueTasks) -> None:
    """Until then the record says so, with the traceback of the failure."""
    failing(app, ValueError("first"), retry=1, retry_delay=600.0, retry_jitter=0.0)

    class Noted:
        @hookimpl
        def worker_execute_after(self) -> None:
            finished.set()

    finished = asyncio.Event()
    app.add_plugin(Noted(), name="noted")
    async with alive(app):
        task = await app.add_task("fails")
        await finished.wait()  # it fires after the settle was accepted
        record = await stored(app, task.uuid)
        assert record is not None
        assert (record.status, record.attempt, record.deliveries) == (TaskStatusEnum.NEW, 1, 0)
        assert record.available_at == pytest.approx(record.updated_at + 600.0)
        assert "ValueError: first" in (record.traceback or "")
        assert (await app.broker.size())["default"].delayed == 1
        await app.cancel(task.uuid)


async def test_without_the_retry_plugin_nothing_is_retried(app: QueueTasks) -> None:
    """It is an ordinary plugin."""
    app.pm.unregister("retry")
    attempts = failing(app, ValueError("always"), retry=5)
    async with alive(app):
        assert (await ended(app, (await app.add_task("fails")).uuid)).status is ERROR
    assert attempts == [0]


class Greedy:
    """Wants the task to be run for ever, in the way it is told."""

    def __init__(self, way: str) -> None:
        self.way = way

    @hookimpl(trylast=True)
    def worker_task_error_retry(self, model: TaskStatusErrorSchema) -> Any:
        attempt = 0 if self.way == "attempt in the model" else model.attempt
        return replace(model, retry_in=0.0, attempt=attempt)

    @hookimpl
    def broker_update(self, kw: dict[str, Any]) -> Any:
        return {"attempt": 0} if self.way == "attempt in broker_update" and kw["status"] == "new" else None

    @hookimpl
    def storage_update(self, kw: dict[str, Any]) -> Any:
        if self.way == "whole kw in storage_update" and kw["status"] == "new":
            return {"kw": {"extra": {"cleared": True}}}
        return None


@pytest.mark.parametrize(
    "way", ["retry_in", "attempt in the model", "attempt in broker_update", "whole kw in storage_update"]
)
async def test_no_plugin_lifts_the_cap(app: QueueTasks, way: str) -> None:
    """The worker caps the retries at the task's `retry`, whatever a plugin makes of the count."""
    app.add_plugin(Greedy(way), name="greedy")
    attempts = failing(app, ValueError("always"), retry=2)
    async with alive(app):
        record = await ended(app, (await app.add_task("fails")).uuid)
    assert len(attempts) == 3
    assert (record.status, record.dead, record.attempt) == (ERROR, True, 3)


async def test_a_plugin_that_fails_on_the_update_of_a_retry(app: QueueTasks) -> None:
    """Not the task's fault: put back with the delivery counted, within `max_deliveries`."""

    class Fails:
        @hookimpl
        def storage_update(self, kw: dict[str, Any]) -> None:
            if kw["status"] == "new":
                raise RuntimeError("no")

    app.add_plugin(Fails(), name="fails")
    attempts = failing(app, ValueError("always"), retry=1)
    async with alive(app):
        record = await ended(app, (await app.add_task("fails")).uuid)
    assert (record.status, record.dead) == (ERROR, True)
    assert len(attempts) == app.config.max_deliveries
    assert "storage_update" in (record.traceback or "")


async def test_the_task_that_is_put_in_the_place_of_another_brings_its_own_rules(app: QueueTasks) -> None:
    """A producer plugin may rename the task: `retry` and `result_ttl` are those of the task that runs."""

    class Renames:
        @hookimpl
        def qtasks_add_task_before_broker(self, task_name: str) -> Any:
            return {"task_name": "fails"} if task_name == "asked" else None

    @app.task(name="asked", retry=0, result_ttl=1.0)
    async def asked() -> None: ...

    attempts = failing(app, ValueError("always"), retry=1, result_ttl=77.0)
    app.add_plugin(Renames(), name="renames")
    async with alive(app):
        record = await ended(app, (await app.add_task("asked")).uuid)
    assert len(attempts) == 2
    assert (record.retry, record.result_ttl) == (1, 77.0)


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_task_defers_itself(app: QueueTasks, kind: str) -> None:
    """No failure, and the delivery is returned: more often than `max_deliveries` it may do so."""
    runs: list[int] = []

    def step(context: TaskContext) -> int:
        runs.append(context.handle.deliveries)
        if len(runs) <= app.config.max_deliveries + 2:
            raise TaskDefer(0.005)
        return context.attempt

    async def coroutine(context: TaskContext) -> int:
        return step(context)

    def thread(context: TaskContext) -> int:
        return step(context)

    app.task(name="defers", echo=True)(coroutine if kind == "coroutine" else thread)
    async with alive(app):
        record = await ended(app, (await app.add_task("defers")).uuid)
    assert (record.status, record.returning, record.deliveries) == (SUCCESS, 0, 1)
    assert set(runs) == {1}


async def test_a_plugin_that_fails_once_before_the_run(app: QueueTasks) -> None:
    """Released, and run to success the next time; the deliveries tell of it."""
    calls = []

    class Fails:
        @hookimpl
        def worker_add(self) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("not yet")

    @app.task(name="work")
    async def work() -> str:
        return "done"

    app.add_plugin(Fails(), name="fails")
    async with alive(app):
        record = await ended(app, (await app.add_task("work")).uuid)
    assert (record.status, record.returning, record.deliveries, record.attempt) == (SUCCESS, "done", 2, 0)


async def test_the_line_of_a_failed_task_names_the_class_of_its_error(
    app: QueueTasks, caplog: pytest.LogCaptureFixture
) -> None:
    """The class alone: the error's own words may show what plugins keep out of the stores."""
    caplog.set_level(logging.INFO, "qtasks.task")
    failing(app, Trouble("card 4111"), retry=1)
    async with alive(app):
        uuid = (await app.add_task("fails")).uuid
        await ended(app, uuid)
    lines = [line for line in caplog.messages if line.startswith("fails ")]
    assert [line.partition(" in ")[0] for line in lines] == [
        f"fails {uuid} retry (Trouble)",
        f"fails {uuid} error (Trouble)",
    ]
    assert [line for line in caplog.messages if line.startswith("canary ") and "(" in line] == []
    assert "4111" not in caplog.text


async def test_the_line_of_a_task_that_a_plugin_ended_names_the_class_of_that(
    app: QueueTasks, caplog: pytest.LogCaptureFixture
) -> None:
    """It went well, and could not be finished."""
    caplog.set_level(logging.INFO, "qtasks.task")

    class Breaks:
        @hookimpl
        def worker_remove_finished_task(self, task_broker: TaskPrioritySchema) -> None:
            if task_broker.name == "work":
                raise ValueError("card 4111")

    @app.task(name="work")
    async def work() -> None: ...

    app.add_plugin(Breaks())
    async with alive(app):
        task = await app.add_task("work")
        await ended(app, task.uuid)
    (line,) = (line for line in caplog.messages if line.startswith("work "))
    assert line.startswith(f"work {task.uuid} error (PluginError) in ")
