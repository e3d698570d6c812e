"""The triggers of the storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qtasks.hookspecs.fields import PROTECTED, task_fields
from qtasks.markers import hookspec
from qtasks.schemas import (
    Priority,
    Seconds,
    Task,
    TaskName,
    TaskPrioritySchema,
    TaskStatusNewSchema,
    TaskStatusTerminalSchema,
)

if TYPE_CHECKING:
    from qtasks.components.storage import Storage
    from qtasks.components.worker import Worker


@hookspec(replaces=("task_status",), returns="mapping", control_flow=True, defers=True)
def storage_add(storage: Storage, uuid: UUID, task_status: TaskStatusNewSchema) -> Mapping[str, Any] | None:
    """Replaces parameters before adding a task.

    Fires:
        In `add_task`, last of the three producer triggers, before the task is stored and queued.

    Parameters:
        storage: the storage.
        uuid: the identity of the task; it never changes.
        task_status: the record as it is about to be stored.

    Replaces:
        `task_status`: return a mapping with some of these keys; a key that is absent, or `None`, is
        unchanged.

    On failure:
        `add_task` raises `PluginError`; nothing is stored or queued. So it does for control flow:
        `TaskCancelError` and `TaskRejected` are raised to the caller; with `TaskDefer` the other
        plugins still run, and the task is stored to be run later by that many seconds.

    Example:
        @hookimpl
        def storage_add(task_status):
            return {"task_status": dataclasses.replace(task_status, kwargs=encrypt(task_status.kwargs))}
    """


@hookspec(replaces=("result",), returns="value", control_flow=True, keeps_uuid=("result",))
def storage_get(storage: Storage, uuid: UUID, result: Task) -> Task | None:
    """Replaces the result of receiving a task.

    Fires:
        When a task was read from the storage: in the task's slot before the run, and in `app.get`.

    Parameters:
        storage: the storage.
        uuid: the identity of the task; it never changes.
        result: the task as it was read; change it with `dataclasses.replace`.

    Replaces:
        `result`: return the new value; `None` leaves it as it is. The new `result` must have the same
        uuid.

    On failure:
        in a client it is raised to the caller. In the worker, before the run, the task is released and
        tried again after 2^(deliveries - 1) seconds, at most 60; when its deliveries are used up it
        ends in ERROR, naming plugin and trigger. Control flow steers it: `TaskCancelError` ends it in
        CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts it back for that many seconds.

    Example:
        @hookimpl
        def storage_get(result):
            return dataclasses.replace(result, kwargs=decrypt(result.kwargs))
    """


@hookspec(replaces=("results",), returns="value")
def storage_get_all(storage: Storage, results: list[Task]) -> list[Task] | None:
    """Replaces the list of received tasks.

    Fires:
        When a page of tasks was read, for a client.

    Parameters:
        storage: the storage.
        results: one page of tasks as they were read.

    Replaces:
        `results`: return the new value; `None` leaves it as it is.

    On failure:
        raised to the caller.

    Example:
        @hookimpl
        def storage_get_all(results):
            return [task for task in results if visible(task)]
    """


@hookspec(replaces=("kw",), returns="kwargs", control_flow=True, fields=task_fields, protected=PROTECTED)
def storage_update(storage: Storage, uuid: UUID, kw: dict[str, Any]) -> Mapping[str, Any] | None:
    """Replaces kwargs when updating.

    Fires:
        Right after `broker_update`, with the fields as it left them.

    Parameters:
        storage: the storage.
        uuid: the identity of the task; it never changes.
        kw: the fields about to be written, as `broker_update` left them.

    Replaces:
        `kw`: return a mapping of fields of a task, which is merged over it key by key; `{"kw": {...}}`
        alone replaces it whole. `uuid`, `status`, `epoch` and `owner` cannot be changed.

    On failure:
        the task is released and tried again after 2^(deliveries - 1) seconds, at most 60; when its
        deliveries are used up it ends in ERROR, naming plugin and trigger. Control flow steers it:
        `TaskCancelError` ends it in CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts
        it back for that many seconds. While the task runs (progress, a batch) the error is raised into its
        code.

    Example:
        @hookimpl
        def storage_update(kw):
            return {"extra": {**kw.get("extra", {}), "attempted_by": HOST}}
    """


@hookspec(must_go_on=True)
def storage_remove_finished_task(
    storage: Storage, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema
) -> None:
    """Deletes a completed task.

    Fires:
        After the result of a task was accepted by the storage.

    Parameters:
        storage: the storage.
        task_broker: the task as the worker holds it.
        model: how the task ended, as it was stored.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def storage_remove_finished_task(task_broker, model):
            await archive.put(task_broker.uuid, model)
    """


@hookspec
def storage_start(storage: Storage) -> None:
    """Starts the component.

    Fires:
        When the storage starts, with its backend open.

    Parameters:
        storage: the storage.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        async def storage_start(storage):
            await archive.open()
    """


@hookspec(must_go_on=True)
def storage_stop(storage: Storage) -> None:
    """Stops the component.

    Fires:
        When the storage stops, while its backend is still open.

    Parameters:
        storage: the storage.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def storage_stop(storage):
            await archive.close()
    """


@hookspec(replaces=("task_name", "priority"), returns="mapping", control_flow=True)
def storage_add_process(
    storage: Storage, uuid: UUID, task_name: TaskName, priority: Priority
) -> Mapping[str, Any] | None:
    """Replaces parameters when adding to processing.

    Fires:
        In the task's slot, first of all: the task was claimed and is in process.

    Parameters:
        storage: the storage.
        uuid: the identity of the task; it never changes.
        task_name: the name of the task, `[A-Za-z0-9_.:-]{1,200}`.
        priority: lower runs first, -128 to 127.

    Replaces:
        `task_name`, `priority`: return a mapping with some of these keys; a key that is absent, or
        `None`, is unchanged.

    On failure:
        the task is released and tried again after 2^(deliveries - 1) seconds, at most 60; when its
        deliveries are used up it ends in ERROR, naming plugin and trigger. Control flow steers it:
        `TaskCancelError` ends it in CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts
        it back for that many seconds.

    Example:
        @hookimpl
        def storage_add_process(task_name):
            return {"task_name": ALIASES.get(task_name)}
    """


@hookspec(
    replaces=("task_name", "priority", "args", "kw", "created_at"), returns="mapping", control_flow=True
)
def storage_running_older_tasks(
    storage: Storage,
    worker: Worker,
    uuid: UUID,
    task_name: TaskName,
    priority: Priority,
    args: tuple[Any, ...],
    kw: dict[str, Any],
    created_at: Seconds,
) -> Mapping[str, Any] | None:
    """Replaces data when restoring tasks.

    Fires:
        In the task's slot, before `broker_add_worker`, for a task that was restored from a lost worker.

    Parameters:
        storage: the storage.
        worker: the worker.
        uuid: the identity of the task; it never changes.
        task_name: the name of the task, `[A-Za-z0-9_.:-]{1,200}`.
        priority: lower runs first, -128 to 127.
        args: the positional arguments (JSON).
        kw: the keyword arguments (JSON).
        created_at: when it was added, Unix seconds.

    Replaces:
        `task_name`, `priority`, `args`, `kw`, `created_at`: return a mapping with some of these keys; a
        key that is absent, or `None`, is unchanged.

    On failure:
        the task is released and tried again after 2^(deliveries - 1) seconds, at most 60; when its
        deliveries are used up it ends in ERROR, naming plugin and trigger. Control flow steers it:
        `TaskCancelError` ends it in CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts
        it back for that many seconds.

    Example:
        @hookimpl
        def storage_running_older_tasks(uuid, kw):
            return {"kw": {**kw, "resumed": True}}
    """


@hookspec
def storage_delete_finished_tasks(storage: Storage) -> None:
    """Clears completed tasks.

    Fires:
        After finished records whose time was over were deleted.

    Parameters:
        storage: the storage.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def storage_delete_finished_tasks():
            purges.inc()
    """


@hookspec
def storage_flush_all(storage: Storage) -> None:
    """Resets storage.

    Fires:
        When the storage has deleted all records of this app.

    Parameters:
        storage: the storage.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def storage_flush_all():
            logger.warning("records flushed")
    """
