"""What is opened for a run is closed exactly once, in reverse order, however the run ends."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qtasks import QueueTasks, TaskCancelError, TaskDefer, TaskRejected, current_task, hookimpl
from tests.apps import WAIT, ended, make_app, serving
from tests.plugins.support import until


class Opens:
    """Opens two resources for each run, the second inside the first."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @asynccontextmanager
    async def resource(self, name: str) -> AsyncIterator[None]:
        self.log.append(f"open {name}")
        try:
            yield
        except BaseException as error:
            self.log.append(f"{name}: {type(error).__name__}")
            raise
        finally:
            self.log.append(f"close {name}")

    @hookimpl(tryfirst=True)
    async def task_executor_args_replace(self) -> None:
        for name in "ab":
            await current_task().resources.enter_async_context(self.resource(name))


def story(error: str | None = None) -> list[str]:
    """What one run leaves in the log."""
    told = (lambda name: [f"{name}: {error}"]) if error else (lambda name: [])
    return ["open a", "open b", *told("b"), "close b", *told("a"), "close a"]


@pytest.fixture
def opens() -> Opens:
    return Opens()


@pytest.fixture
def app(tmp_path: Path, opens: Opens) -> QueueTasks:
    return make_app("memory", tmp_path, plugins=[opens], concurrency=1)


async def run_once(app: QueueTasks, code: Callable[..., Any], **options: Any) -> Any:
    app.task(name="task", **options)(code)
    async with app, serving(app):
        return await ended(app, (await app.add_task("task")).uuid)


def raising(error: BaseException) -> Callable[..., Any]:
    async def code() -> None:
        raise error

    return code


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError(), "error"), (TaskCancelError(), "cancel"), (TaskRejected(), "error")],
    ids=lambda value: type(value).__name__,
)
async def test_an_error_is_told(app: QueueTasks, opens: Opens, error: Exception, status: str) -> None:
    assert (await run_once(app, raising(error))).status == status
    assert opens.log == story(type(error).__name__)


async def test_success(app: QueueTasks, opens: Opens) -> None:
    async def code() -> list[str]:
        return list(opens.log)

    assert (await run_once(app, code)).returning == ["open a", "open b"]
    assert opens.log == story()


async def test_each_run_of_a_retry_has_its_own(app: QueueTasks, opens: Opens) -> None:
    await run_once(app, raising(ValueError()), retry=1, retry_delay=0)
    assert opens.log == 2 * story("ValueError")


async def test_a_task_that_defers_itself(app: QueueTasks, opens: Opens) -> None:
    async def code() -> None:
        if len(opens.log) == 2:
            raise TaskDefer(0)

    assert (await run_once(app, code)).status == "success"
    assert opens.log == story("TaskDefer") + story()


async def test_max_time(app: QueueTasks, opens: Opens) -> None:
    async def code() -> None:
        await asyncio.sleep(WAIT)

    assert "max_time" in (await run_once(app, code, max_time=0.01)).traceback
    assert opens.log == story("CancelledError")


@pytest.mark.parametrize("kind", ["generator", "async_generator", "function"])
async def test_generators_and_threads(app: QueueTasks, opens: Opens, kind: str) -> None:
    def generator() -> Any:
        yield from opens.log

    async def async_generator() -> Any:
        for line in list(opens.log):
            yield line

    def function() -> list[str]:
        return list(opens.log)

    record = await run_once(app, {f.__name__: f for f in (generator, async_generator, function)}[kind])
    assert record.returning == ["open a", "open b"]
    assert opens.log == story()


async def test_a_stream(app: QueueTasks, opens: Opens) -> None:
    async def code() -> Any:
        yield list(opens.log)

    assert (await run_once(app, code, stream=True)).returning == [["open a", "open b"]]
    assert opens.log == story()


async def test_a_plugin_that_stops_the_task_after_they_were_opened(app: QueueTasks, opens: Opens) -> None:
    stops: list[Exception] = [TaskDefer(0), ValueError("broken"), TaskCancelError()]

    class Stops:
        @hookimpl
        def task_executor_args_replace(self) -> None:
            raise stops.pop(0)

    app.add_plugin(Stops())

    async def code() -> None: ...

    assert (await run_once(app, code)).status == "cancel"
    assert opens.log == story("TaskDefer") + story("PluginError") + story("TaskCancelError")


async def test_cancelled_by_a_client_released_at_shutdown_and_lost(tmp_path: Path, opens: Opens) -> None:
    app = make_app("memory", tmp_path, plugins=[opens], concurrency=1, shutdown_timeout=0.0)

    @app.task(name="task")
    async def task() -> None:
        await asyncio.Event().wait()

    async def opened(times: int) -> None:
        async def look() -> bool:
            return opens.log.count("open b") == times

        await until(look)

    async with app:
        async with serving(app):
            first = await app.add_task("task")
            await opened(1)
            await first.cancel()
            await ended(app, first.uuid)
            second = await app.add_task("task")
            await opened(2)
            app.worker.lost(app.worker.held())

            async def closed() -> bool:
                return opens.log.count("close a") == 2

            await until(closed)
            await second.cancel()
            third = await app.add_task("task")
            await opened(3)
        assert opens.log == 3 * story("CancelledError")
        released = await app.get(third.uuid)
        assert released is not None
        assert released.status == "new"


async def test_what_a_thread_uses_stays_open_until_it_returns(app: QueueTasks, opens: Opens) -> None:
    go_on, log = threading.Event(), opens.log

    def code() -> None:
        go_on.wait(WAIT)
        log.append("thread returns")

    app.task(name="task", max_time=0.01)(code)
    async with app, serving(app):
        task = await app.add_task("task")
        assert (await ended(app, task.uuid)).status == "error"
        assert log == ["open a", "open b"]
        go_on.set()

        async def closed() -> bool:
            return "close a" in log

        await until(closed)
    assert log == ["open a", "open b", "thread returns", *story("ThreadStillRunning")[2:]]


async def test_an_error_in_closing_fails_a_task_that_went_well(app: QueueTasks, opens: Opens) -> None:
    async def code() -> None:
        async def commit() -> None:
            raise OSError("cannot commit")

        current_task().resources.push_async_callback(commit)

    record = await run_once(app, code)
    assert (record.status, record.attempt) == ("error", 1)
    assert "cannot commit" in record.traceback
    assert opens.log == story("OSError")


async def test_an_error_in_closing_does_not_hide_the_tasks_own(app: QueueTasks, opens: Opens) -> None:
    async def code() -> None:
        async def roll_back() -> None:
            raise OSError("cannot roll back")

        current_task().resources.push_async_callback(roll_back)
        raise ValueError("the cause")

    assert "the cause" in (await run_once(app, code)).traceback
    assert opens.log == story("OSError")


@asynccontextmanager
async def hangs_first() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.Event().wait()


async def hangs_second() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise OSError("gone")


HUNG = re.compile(
    r"was stopped in hangs_first \(tests\.worker\.test_resources, line \d+\), "
    r"hangs_second \(tests\.worker\.test_resources, line \d+\)"
)


async def opens_what_hangs() -> None:
    """Two of the three things that are to be closed never answer."""
    resources = current_task().resources
    resources.push_async_callback(hangs_second)
    resources.callback(lambda: None)
    await resources.enter_async_context(hangs_first())


async def test_what_hangs_in_closing_is_stopped_and_fails_a_task_that_went_well(
    app: QueueTasks, opens: Opens
) -> None:
    """Each in its turn, and what was opened before is closed as ever."""

    async def code() -> None:
        await opens_what_hangs()

    record = await run_once(app, code, max_time=0.05)
    assert (record.status, record.attempt) == ("error", 1)
    assert "closing what the run used took longer than max_time (0.05 s)" in record.traceback
    assert HUNG.search(record.traceback)
    assert opens.log == story("OSError")


@pytest.mark.parametrize("way", ["raises", "too long", "cancelled"])
async def test_what_hangs_in_closing_is_logged_where_the_task_has_an_error(
    app: QueueTasks, opens: Opens, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """The task ends as it would have, and its slot is free."""

    async def code() -> None:
        await opens_what_hangs()
        if way == "raises":
            raise ValueError("the cause")
        if way == "cancelled":
            current_task().cancel("the cause")
        await asyncio.Event().wait()

    record = await run_once(app, code, max_time=0.05)
    cause = {"raises": "ValueError: the cause", "too long": "the task ran longer than max_time"}.get(
        way, "the cause"
    )
    assert record.status == ("cancel" if way == "cancelled" else "error")
    assert cause in (record.traceback or record.cancel_reason)
    assert HUNG.search(caplog.text)
    assert opens.log == story("OSError")


async def test_a_worker_that_stops_does_not_wait_for_what_hangs_in_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a `max_time` nothing else ends it; the task is left to its lease."""
    monkeypatch.setattr("qtasks.components.worker.ending.STOPPING", 0.01)
    app = make_app("memory", tmp_path, concurrency=1, shutdown_timeout=0.01)
    closing = asyncio.Event()

    @app.task(name="task")
    async def code() -> None:
        async def hangs() -> None:
            closing.set()
            await asyncio.Event().wait()

        current_task().resources.push_async_callback(hangs)

    async with app:
        async with serving(app):
            task = await app.add_task("task")
            await asyncio.wait_for(closing.wait(), WAIT)
        found = await app.get(task.uuid)
    assert found is not None
    assert found.status == "process"


async def test_a_resource_cannot_take_the_error_away(app: QueueTasks) -> None:
    async def code() -> None:
        current_task().resources.push(lambda *error: True)
        raise ValueError("stands")

    assert "stands" in (await run_once(app, code)).traceback


async def test_after_the_run_nothing_can_be_opened(app: QueueTasks) -> None:
    contexts = []

    async def code() -> None:
        contexts.append(current_task())

    await run_once(app, code)
    with pytest.raises(RuntimeError, match="run of task 'task' is over"):
        _ = contexts[0].resources
    with pytest.raises(LookupError):
        current_task()
