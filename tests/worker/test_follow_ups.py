"""Follow-ups: tasks that are added in the step that ends another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from qtasks.app import QueueTasks
from qtasks.errors import TaskCancelError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskRequest, TaskStatusEnum, TaskStatusSuccessSchema

from ..apps import alive, ended, recording, stored

ERROR = TaskStatusEnum.ERROR


class Then:
    """Adds follow-up tasks to the success of `first`."""

    def __init__(self, *requests: TaskRequest) -> None:
        self.requests = requests

    @hookimpl
    def worker_remove_finished_task(self, model: Any) -> Any:
        if isinstance(model, TaskStatusSuccessSchema) and model.task_name == "first":
            return {"model": replace(model, then=self.requests)}
        return None


async def test_follow_ups_are_stored_with_the_result(app: QueueTasks) -> None:
    """Whoever sees the result finds them there; they went through the producer triggers."""
    recording(app, "first")
    seen = recording(app, "second", queue="second")
    uuid, later = uuid4(), uuid4()
    prepared = []

    class Sees:
        @hookimpl
        def storage_add(self, task_status: Any) -> None:
            prepared.append(task_status.task_name)

    app.add_plugin(Sees(), name="sees")
    app.add_plugin(
        Then(
            TaskRequest(task_name="second", args=("now",), uuid=uuid),
            TaskRequest(task_name="second", args=("later",), uuid=later, available_at=app.clock() + 0.05),
        ),
        name="then",
    )
    async with alive(app):
        await ended(app, (await app.add_task("first")).uuid)
        record = await stored(app, uuid)
        assert record is not None
        assert record.queue == "second"
        assert (await ended(app, uuid)).returning == "now"
        assert (await ended(app, later)).returning == "later"
    assert seen == ["now", "later"]
    assert prepared[:3] == ["first", "second", "second"]


async def test_a_follow_up_that_is_refused_ends_the_task_in_error(app: QueueTasks) -> None:
    """Nothing is stored of it, and the result is not announced as a success."""
    recording(app, "first")
    app.add_plugin(Then(TaskRequest(task_name="second", args=(object(),))), name="then")
    async with alive(app):
        record = await ended(app, (await app.add_task("first", args=("result",))).uuid)
        assert (record.status, record.returning) == (ERROR, None)
        assert "'second'" in (record.traceback or "")
        assert (await app.storage.counts())["new"] == 0


@pytest.mark.parametrize("refused", [False, True])
async def test_a_task_that_ends_badly_has_follow_ups_too(app: QueueTasks, refused: bool) -> None:
    """Where one is refused, the end of the task is what it was."""
    uuids = {"error": uuid4(), "cancel": uuid4()}

    @app.task(name="fails")
    async def fails(how: str) -> None:
        raise ValueError("the cause") if how == "error" else TaskCancelError("the cause")

    recording(app, "second")

    class Cleans:
        @hookimpl
        def worker_remove_finished_task(self, model: Any) -> Any:
            if model.task_name == "fails":
                status = model.status.value
                args = (object(),) if refused else (status,)
                return {
                    "model": replace(
                        model, then=(TaskRequest(task_name="second", args=args, uuid=uuids[status]),)
                    )
                }
            return None

    app.add_plugin(Cleans())
    async with alive(app):
        for how, uuid in uuids.items():
            record = await ended(app, (await app.add_task("fails", args=(how,))).uuid)
            assert record.status.value == how
            assert "the cause" in (record.traceback or record.cancel_reason or "")
            if refused:
                assert await stored(app, uuid) is None
            else:
                assert (await ended(app, uuid)).returning == how
