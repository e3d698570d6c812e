"""The application for blocking code is the same application."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from qtasks.app import QueueTasks as AsyncQueueTasks
from qtasks.context import TaskContext
from qtasks.errors import TaskNotFoundError, WrongLoopError
from qtasks.schemas import TaskRequest, TaskStatusEnum
from qtasks.sync import QueueTasks
from tests.support.redis_server import RedisServer


@pytest.fixture
def sync_app(url: str) -> QueueTasks:
    """A blocking application."""
    return QueueTasks(url=url)


def test_adding_running_and_reading(sync_app: QueueTasks) -> None:
    @sync_app.task(name="double")
    def double(x: int) -> int:
        return 2 * x

    @sync_app.task(name="count", stream=True, echo=True)
    def count(ctx: TaskContext, to: int) -> Iterator[int]:
        yield from range(to)

    with sync_app:
        serving = asyncio.run_coroutine_threadsafe(sync_app.app.serve(), sync_app._portal._loop)  # type: ignore[union-attr]
        task = double.add_task(4)
        assert sync_app.wait_result(task.uuid, 10).returning == 8
        assert double.options(timeout=10).add_task(5).returning == 10
        many = sync_app.add_tasks([TaskRequest(task_name="double", args=(i,)) for i in range(3)])
        assert [sync_app.wait_result(task.uuid, 10).returning for task in many] == [0, 2, 4]
        assert sync_app.ping()
        assert sync_app.inspect().records["success"] == 5
        counted = count.add_task(3)
        assert list(sync_app.stream(counted.uuid)) == [0, 1, 2]
        assert list(sync_app.follow(counted.uuid))[-1].returning == [0, 1, 2]
        assert sync_app.get_all(limit=1)[0][0].uuid == counted.uuid
        sync_app._call(sync_app.app.stop)
        serving.result(30)
        sync_app.flush_all()
        assert sync_app.get(task.uuid) is None
    assert double(1) == 2


def test_the_first_call_starts_it_and_close_ends_it(sync_app: QueueTasks) -> None:
    task = sync_app.add_task("any", args=(1,))
    found = sync_app.get(task.uuid)
    assert found is not None
    assert found.status is TaskStatusEnum.NEW
    assert sync_app.cancel(task.uuid)
    assert list(sync_app.dead()) == []
    sync_app.close()
    with pytest.raises(TaskNotFoundError):
        sync_app.cancel(uuid4())
    sync_app.close()


async def test_on_an_event_loop_it_says_what_to_use(sync_app: QueueTasks) -> None:
    await asyncio.get_running_loop().run_in_executor(None, sync_app.get, uuid4())
    with pytest.raises(WrongLoopError, match=r"qtasks.QueueTasks with await"):
        sync_app.get(uuid4())
    await asyncio.get_running_loop().run_in_executor(None, sync_app.close)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork_the_child_starts_its_own(tmp_path: Path) -> None:
    app = QueueTasks(url=f"sqlite:///{tmp_path / 'queue.db'}")
    first = app.add_task("any")
    child = os.fork()
    if child == 0:
        try:
            app.add_task("any", uuid=uuid4())
            os._exit(0 if app.get(first.uuid) is not None else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert app._call(app.app.storage.counts)["new"] == 2
    app.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork_the_connections_of_the_parent_are_left_alone(redis_server: RedisServer) -> None:
    """Also where the parent was adding a task at that moment: the child has its own, the parent goes on with its."""
    app = QueueTasks(url=redis_server.url())
    app.add_task("any")
    redis_server.pause()
    adding = threading.Thread(target=app.add_task, args=("any",))
    try:
        adding.start()
        while not app.app.broker._combined._flying:  # type: ignore[attr-defined]
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            try:
                app.add_task("any")
                app.close()
                os._exit(0)
            except BaseException:
                os._exit(4)
    finally:
        redis_server.resume()
        adding.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    app.add_task("any")
    assert app._call(app.app.storage.counts)["new"] == 4
    app.close()


def test_it_can_wrap_an_application_that_is_there(url: str) -> None:
    inner = AsyncQueueTasks(url=url)
    with QueueTasks(app=inner) as app:
        assert app.add_task("any").status is TaskStatusEnum.NEW
        assert app.app is inner


def test_schedules_of_a_blocking_application() -> None:
    app = QueueTasks(url="memory://")

    @app.every(60, key="often")
    @app.cron("0 9 * * *")
    @app.task(name="report")
    def report() -> int:
        return 1

    assert report() == 1
    assert app.app.pm.has("schedule")
    assert [each.key for each in app.app.tasks["report"].extra["schedule"]] == ["", "often"]
