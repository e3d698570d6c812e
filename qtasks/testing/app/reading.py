"""Checks of how tasks are read and steered: results, cancel, dead letters, replay, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from qtasks.errors import ResultTimeoutError, TaskNotFoundError
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite

SUCCESS, ERROR, CANCEL = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL


class Reading(AppSuite):
    """`get`, `wait_result`, `cancel`, `dead`, `replay`, `delete`, `stream`."""

    @check("APP-40")
    async def test_a_result(self, bench: AppBench) -> None:
        """Who waits for a result gets the finished task, also many at once, and who asks later; it never changes.

        If this fails, check `wait_result`.
        """
        stage = await bench.stage()
        async with stage.app as app:
            task = await app.add_task("work", args=(1,))
            waiting = [asyncio.create_task(task.wait_result(10)) for _ in range(5)]
            async with stage.serving():
                for got in await asyncio.gather(*waiting):
                    assert (got.uuid, got.status, got.returning) == (task.uuid, SUCCESS, ["work", [1], {}])
                assert (await app.add_task("work", args=(2,), timeout=10)).returning == ["work", [2], {}]
            later = await app.get(task.uuid)
            assert later is not None
            assert (later.finished, later.returning) == (True, ["work", [1], {}])

    @check("APP-41")
    async def test_no_result(self, bench: AppBench) -> None:
        """A result that does not come in time is a `ResultTimeoutError`, a task that is not there a
        `TaskNotFoundError`; the task goes on.

        If this fails, check what `wait_result` makes of `None` and `LookupError`.
        """
        stage = await bench.stage()
        async with stage.app as app:
            task = await app.add_task("work")
            with pytest.raises(ResultTimeoutError):
                await app.wait_result(task.uuid, 0.01)
            with pytest.raises(TaskNotFoundError):
                await app.wait_result(uuid4(), 0.01)
            async with stage.serving():
                assert (await stage.ended(task)).status is SUCCESS

    @check("APP-42")
    async def test_cancel(self, bench: AppBench) -> None:
        """A waiting task that is cancelled ends at once with the reason, never runs, and leaves no entry; a finished
        one is left as it is; one that is not there is a `TaskNotFoundError`.

        If this fails, check what follows each verdict of `cancel_many`.
        """
        stage = await bench.stage()
        async with stage.app as app:
            task, late = await app.add_task("work"), await app.add_task("work", delay=100)
            for each in (task, late):
                assert await app.cancel(each.uuid, "not needed") is True
                record = await stage.stored(each.uuid)
                assert (record.status, record.cancel_reason) == (CANCEL, "not needed")
            await stage.quiet()
            assert await app.cancel(task.uuid, "again") is False
            assert (await stage.stored(task.uuid)).cancel_reason == "not needed"
            with pytest.raises(TaskNotFoundError):
                await app.cancel(uuid4())
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
        assert stage.ran == []

    @check("APP-43")
    async def test_dead_and_replay(self, bench: AppBench) -> None:
        """A task whose retries are used up is listed by `dead`; `replay` adds it again as a new task that names it,
        with its arguments; asking twice does not run it twice. What is not finished, or not there, is refused.

        If this fails, check what `replay` makes its request of.
        """
        stage, failing = await bench.stage(), [True]

        async def fails(*args: int, x: int) -> list[int]:
            if failing[0]:
                raise ValueError("always")
            return [*args, x]

        stage.declare(fails=fails)
        async with stage.app as app:
            task = await app.add_task("fails", args=(1,), kwargs={"x": 2}, queue="second", priority=4)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert [each.uuid async for each in app.dead()] == [task.uuid]
            failing[0] = False
            again = await app.replay(task.uuid)
            assert (again.replay_of, again.queue, again.priority) == (task.uuid, "second", 4)
            assert (await app.replay(task.uuid)).uuid == again.uuid
            with pytest.raises(TaskNotFoundError):
                await app.replay(again.uuid)
            with pytest.raises(TaskNotFoundError):
                await app.replay(uuid4())
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert (await stage.stored(again.uuid)).returning == [1, 2]
            assert (await stage.stored(task.uuid)).status is ERROR

    @check("APP-44")
    async def test_delete(self, bench: AppBench) -> None:
        """`delete` deletes finished tasks, dead ones included, and says which; what is open stays.

        If this fails, check that it is `delete_many` of the storage.
        """
        stage = await bench.stage()
        async with stage.app as app:
            done = await app.add_task("work")
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            waiting = await app.add_task("work")
            assert await app.delete([done.uuid, waiting.uuid, uuid4()]) == [True, False, False]
            assert await app.get(done.uuid) is None
            assert await app.get(waiting.uuid) is not None

    @check("APP-45")
    async def test_stream(self, bench: AppBench) -> None:
        """`stream` gives all items of a generator task, from any of them on; of a task that is not there it raises
        `TaskNotFoundError`.

        If this fails, check `read_items` of the storage, and how its pages are put together.
        """
        stage = await bench.stage()

        def many() -> Iterator[int]:
            yield from range(1200)

        stage.declare({"stream": True}, many=many)
        async with stage.app as app:
            task = await app.add_task("many")
            async with stage.serving():
                assert [item async for item in app.stream(task.uuid)] == list(range(1200))
            assert [item async for item in app.stream(task.uuid, 1190)] == list(range(1190, 1200))
            with pytest.raises(TaskNotFoundError):
                [item async for item in app.stream(uuid4())]
