"""What is stored of a task is in the hands of plugins: progress, streams, failures in the end, digests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from qtasks import (
    QueueConfig,
    QueueTasks,
    Task,
    TaskContext,
    TaskRejected,
    TaskRequest,
    TaskStatusEnum,
    UuidConflictError,
    hookimpl,
)
from qtasks.schemas import TaskRecord, TaskStatusSuccessSchema
from tests.app.conftest import MakeApp, working


async def record(app: QueueTasks, uuid: UUID) -> TaskRecord:
    found = (await app.storage.get_many([uuid]))[0]
    assert found is not None
    return found


class Wrapped:
    """Stores progress and items in another form."""

    @hookimpl
    def storage_update(self, kw: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        if "progress" in kw:
            changed["progress"] = {"wrapped": kw["progress"]}
        if "returning" in kw:
            changed["returning"] = [{"wrapped": item} for item in kw["returning"]]
        return changed

    @hookimpl
    async def storage_get(self, result: Task) -> Task:
        changed: dict[str, Any] = {}
        if result.progress is not None:
            changed["progress"] = result.progress["wrapped"]
        if result.status is not TaskStatusEnum.SUCCESS and isinstance(result.returning, list):
            changed["returning"] = [item["wrapped"] for item in result.returning]
        return replace(result, **changed)


async def test_progress_is_stored_as_plugins_left_it(app: QueueTasks) -> None:
    app.add_plugin(Wrapped())

    @app.task(name="job", echo=True)
    async def job(context: TaskContext) -> None:
        await context.progress(0.5)

    async with working(app):
        task = await (await job.add_task()).wait_result(10)
        assert (await record(app, task.uuid)).progress == {"wrapped": 0.5}
    assert task.progress == 0.5


async def test_items_are_stored_as_plugins_left_them_and_the_result_is_made_of_what_they_were(
    app: QueueTasks,
) -> None:
    app.add_plugin(Wrapped())
    seen: list[Any] = []

    @app.task(name="job", stream=True, decode=lambda items: [*items, "decoded"])
    async def job() -> AsyncIterator[int]:
        yield 1
        async for item in task.stream():
            seen.append(item)
            break
        yield 2

    async with working(app):
        task = await job.add_task()
        done = await task.wait_result(10)
        assert await app.storage.read_items(task.uuid, 0, 10) == [{"wrapped": 1}, {"wrapped": 2}]
    assert done.returning == [1, 2, "decoded"]
    assert seen == [1]


async def test_a_batch_that_is_no_list_ends_the_task(app: QueueTasks) -> None:
    class Wrong:
        @hookimpl
        def storage_update(self, kw: dict[str, Any]) -> dict[str, Any]:
            return {"returning": "text"} if "returning" in kw else {}

    app.add_plugin(Wrong())

    @app.task(name="job", stream=True)
    async def job() -> AsyncIterator[int]:
        yield 1

    async with working(app):
        done = await (await job.add_task()).wait_result(10)
    assert done.status is TaskStatusEnum.ERROR
    assert "put str in the place of the list" in (done.traceback or "")


@pytest.mark.parametrize("trigger", ["worker_remove_finished_task", "broker_remove_finished_task", "then"])
async def test_the_words_of_a_plugin_that_fails_in_the_end_are_not_stored(
    app: QueueTasks, trigger: str
) -> None:
    class Failing:
        @hookimpl(specname="broker_remove_finished_task" if trigger == "then" else trigger)
        def failing(self, model: TaskStatusSuccessSchema) -> Any:
            if trigger == "then":
                return replace(model, then=(TaskRequest(task_name="next", args=(model.returning,)),))
            raise ValueError(f"cannot take {model.returning}")

        @hookimpl
        def qtasks_add_task_before_broker(self, task_name: str, args: tuple[Any, ...]) -> None:
            if task_name == "next":
                raise TaskRejected(f"cannot take {args}")

    app.add_plugin(Failing(), name="failing")

    @app.task(name="job")
    async def job() -> str:
        return "a secret"

    async with working(app):
        done = await (await job.add_task()).wait_result(10)
    assert done.status is TaskStatusEnum.ERROR
    assert done.returning is None
    wanted = (
        ("'next' was refused", "TaskRejected") if trigger == "then" else ("'failing'", trigger, "ValueError")
    )
    for word in wanted:
        assert word in (done.traceback or "")
    assert "secret" not in (done.traceback or "")


async def test_a_digest_tells_nothing_without_its_task_and_the_key(make_app: MakeApp) -> None:
    app = make_app()
    keyed = QueueTasks(url="memory://", config=QueueConfig(digest_key="k"))  # type: ignore[arg-type]
    uuid = uuid4()
    async with app, keyed:
        one, other = [await record(app, (await app.add_task("t", args=(7,))).uuid) for _ in range(2)]
        assert one.digest != other.digest
        await app.add_task("t", args=(7,), uuid=uuid)
        await keyed.add_task("t", args=(7,), uuid=uuid)
        assert (await record(app, uuid)).digest != (await record(keyed, uuid)).digest
        assert (await keyed.add_task("t", args=(7,), uuid=uuid)).uuid == uuid
        with pytest.raises(UuidConflictError):
            await keyed.add_task("t", args=(8,), uuid=uuid)
