"""What counts as the same task, and what is refused as it is added: unique keys, uuids, batches, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qtasks.app import QueueTasks
from qtasks.errors import (
    BulkAddError,
    PayloadTooLargeError,
    QueueFullError,
    TaskCancelError,
    UuidConflictError,
)
from qtasks.markers import hookimpl
from qtasks.schemas import Task, TaskRequest, TaskStatusEnum

from ..apps import alive, ended, make_app, recording, run_canary, stored

SUCCESS = TaskStatusEnum.SUCCESS


async def test_unique_key(app: QueueTasks) -> None:
    """One open task has it: the second call gets the first one's task; a finished one frees it."""
    seen = recording(app)
    keys = ["k", "nul\0", 'quotes"`', "glob*?[a]{b}\\:\n"]
    async with app:
        first = {key: await app.add_task("work", args=(key,), unique_key=key) for key in keys}
        for key in keys:
            assert (await app.add_task("work", args=("other",), unique_key=key)).uuid == first[key].uuid
    async with alive(app):
        for key in keys:
            await ended(app, first[key].uuid)
            second = await app.add_task("work", args=(key,), unique_key=key)
            assert second.uuid != first[key].uuid
            await ended(app, second.uuid)
    assert sorted(seen) == sorted(keys * 2)


async def test_the_same_uuid(app: QueueTasks) -> None:
    """The same task is there already; another one is a conflict, whatever a plugin makes of its arguments."""
    seen = recording(app)
    recording(app, "other")
    uuid = uuid4()

    class Salts:
        @hookimpl
        def broker_add_before(self, model: Any) -> Any:
            return replace(model, kwargs={**model.kwargs, "salt": uuid4().hex})

        @hookimpl
        def storage_get(self, result: Task) -> Any:
            return replace(result, kwargs={key: result.kwargs[key] for key in result.kwargs if key != "salt"})

    app.add_plugin(Salts(), name="salts")
    async with alive(app):
        assert (await app.add_task("work", args=(1,), uuid=uuid)).uuid == uuid
        await ended(app, uuid)
        again = await app.add_task("work", args=(1,), uuid=uuid)
        assert (again.uuid, again.status, again.returning) == (uuid, SUCCESS, 1)
        for name, args in [("work", (2,)), ("other", (1,))]:
            with pytest.raises(UuidConflictError, match=str(uuid)):
                await app.add_task(name, args=args, uuid=uuid)
        assert (await stored(app, uuid)).returning == 1
    assert seen == [1]


async def test_a_batch_in_which_some_are_not_added(backend: str, tmp_path: Path) -> None:
    """The others are, and the error says which is which."""
    app = make_app(backend, tmp_path, max_queue=3)
    seen = recording(app)
    async with app:
        taken = await app.add_task("work", args=(0,))
        requests = [
            TaskRequest(task_name="work", args=(1,)),
            TaskRequest(task_name="work", args=(9,), uuid=taken.uuid),
            TaskRequest(task_name="work", args=(2,)),
            TaskRequest(task_name="work", args=(3,)),
            TaskRequest(task_name="work", args=(4,), queue="second"),
        ]
        with pytest.raises(BulkAddError) as caught:
            await app.add_tasks(requests)
        assert sorted(caught.value.tasks) == [0, 2, 4]
        assert {i: type(error) for i, error in caught.value.errors.items()} == {
            1: UuidConflictError,
            3: QueueFullError,
        }
        await app.serve(until_idle=True)
    assert sorted(seen) == [0, 1, 2, 4]


async def test_a_batch_of_which_a_trigger_refuses_one(app: QueueTasks) -> None:
    """None is stored."""

    class Refuses:
        @hookimpl
        def storage_add(self, task_status: Any) -> None:
            if task_status.args == (2,):
                raise TaskCancelError("not this one")

    recording(app)
    app.add_plugin(Refuses(), name="refuses")
    async with alive(app):
        with pytest.raises(TaskCancelError):
            await app.add_tasks([TaskRequest(task_name="work", args=(n,)) for n in range(4)])
        assert sum((await app.storage.counts()).values()) == 0
        await run_canary(app)


async def test_too_large_arguments(backend: str, tmp_path: Path) -> None:
    """Refused before anything is stored, as the caller gives them and as plugins leave them."""
    app = make_app(backend, tmp_path, max_payload=2000)
    recording(app)

    class Grows:
        @hookimpl
        def broker_add_before(self, model: Any) -> Any:
            return replace(model, extra={"big": "x" * 3000}) if model.args == ("grow",) else None

    app.add_plugin(Grows(), name="grows")
    async with alive(app):
        for value in ("x" * 3000, "grow"):
            with pytest.raises(PayloadTooLargeError):
                await app.add_task("work", args=(value,))
        assert sum((await app.storage.counts()).values()) == 0
