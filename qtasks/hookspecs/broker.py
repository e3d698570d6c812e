"""The triggers of the broker."""

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
    from qtasks.components.broker import Broker
    from qtasks.components.storage import Storage
    from qtasks.components.worker import Worker


@hookspec
def broker_listen_start(broker: Broker, worker: Worker) -> None:
    """Initializes listening.

    Fires:
        When the broker begins to serve a worker.

    Parameters:
        broker: the broker.
        worker: the worker that is served.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def broker_listen_start(worker):
            logger.info("listening for %s", worker)
    """


@hookspec(
    replaces=("task_name", "priority", "args", "kw", "created_at"), returns="mapping", control_flow=True
)
def broker_add_worker(
    broker: Broker,
    worker: Worker,
    uuid: UUID,
    task_name: TaskName,
    priority: Priority,
    args: tuple[Any, ...],
    kw: dict[str, Any],
    created_at: Seconds,
) -> Mapping[str, Any] | None:
    """Replaces the task input parameters for the worker.

    Fires:
        In the task's slot, when the task is handed to the worker, after `storage_get` and `broker_get`.

    Parameters:
        broker: the broker.
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
        def broker_add_worker(kw):
            return {"kw": decrypt(kw)}
    """


@hookspec(replaces=("model",), returns="value", control_flow=True, defers=True)
def broker_add_before(
    broker: Broker, storage: Storage, uuid: UUID, model: TaskStatusNewSchema
) -> TaskStatusNewSchema | None:
    """Replaces the model before writing to storage.

    Fires:
        In `add_task`, after `qtasks_add_task_before_broker` and before `storage_add`.

    Parameters:
        broker: the broker.
        storage: the storage.
        uuid: the identity of the task; it never changes.
        model: the record as it is about to be stored; change it with `dataclasses.replace`.

    Replaces:
        `model`: return the new value; `None` leaves it as it is.

    On failure:
        `add_task` raises `PluginError`; nothing is stored or queued. So it does for control flow:
        `TaskCancelError` and `TaskRejected` are raised to the caller; with `TaskDefer` the other
        plugins still run, and the task is stored to be run later by that many seconds.

    Example:
        @hookimpl
        def broker_add_before(model):
            return dataclasses.replace(model, priority=min(model.priority, 10))
    """


@hookspec(must_go_on=True)
def broker_add_after(broker: Broker, storage: Storage, uuid: UUID, model: TaskStatusNewSchema) -> None:
    """Called after adding to storage.

    Fires:
        In `add_task`, when the task is stored and queued.

    Parameters:
        broker: the broker.
        storage: the storage.
        uuid: the identity of the task; it never changes.
        model: the record as it was stored.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        def broker_add_after(uuid, model):
            added.labels(model.queue).inc()
    """


@hookspec(replaces=("task",), returns="value", control_flow=True, keeps_uuid=("task",))
def broker_get(broker: Broker, uuid: UUID, task: Task) -> Task | None:
    """Replaces the result of getting the task.

    Fires:
        When a task was read, after `storage_get`: in the task's slot before the run, and in `app.get`.

    Parameters:
        broker: the broker.
        uuid: the identity of the task; it never changes.
        task: the task as a client sees it; change it with `dataclasses.replace`.

    Replaces:
        `task`: return the new value; `None` leaves it as it is. The new `task` must have the same uuid.

    On failure:
        in a client it is raised to the caller. In the worker, before the run, the task is released and
        tried again after 2^(deliveries - 1) seconds, at most 60; when its deliveries are used up it
        ends in ERROR, naming plugin and trigger. Control flow steers it: `TaskCancelError` ends it in
        CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts it back for that many seconds.

    Example:
        @hookimpl
        def broker_get(task):
            return dataclasses.replace(task, extra={**task.extra, "seen": True})
    """


@hookspec(replaces=("kw",), returns="kwargs", control_flow=True, fields=task_fields, protected=PROTECTED)
def broker_update(broker: Broker, uuid: UUID, kw: dict[str, Any]) -> Mapping[str, Any] | None:
    """Replaces kwargs when updating a task.

    Fires:
        In the task's slot with the fields of the start, after `worker_execute_before`; with what will be
        written when a failed task is to be retried; while the task runs, when its code reports progress,
        and with each batch of a stream.

    Parameters:
        broker: the broker.
        uuid: the identity of the task; it never changes.
        kw: the fields about to be written: those of the start (`status`, `started_at`, `updated_at`,
            `extra`), of a retry (with the `traceback`), `progress` as the task's code gave it, or the items
            of a batch as `returning`, each of which is stored for itself.

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
        def broker_update(kw):
            return {"extra": {**kw.get("extra", {}), "host": HOST}}
    """


@hookspec
def broker_start(broker: Broker, worker: Worker | None) -> None:
    """Starts the broker.

    Fires:
        When the broker starts, with its backend open.

    Parameters:
        broker: the broker.
        worker: the worker of this process; `None` in a client.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        async def broker_start(broker):
            await metrics.connect()
    """


@hookspec(must_go_on=True)
def broker_stop(broker: Broker) -> None:
    """Stops the broker.

    Fires:
        When the broker stops, while its backend is still open.

    Parameters:
        broker: the broker.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def broker_stop(broker):
            await metrics.flush()
    """


@hookspec(replaces=("model",), returns="value")
def broker_remove_finished_task(
    broker: Broker, storage: Storage, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema
) -> TaskStatusTerminalSchema | None:
    """Replaces the model for deleting a completed task.

    Fires:
        In the task's slot when it has ended for good, after `worker_remove_finished_task` and before
        the result is written. Not for a retry, a defer or a release.

    Parameters:
        broker: the broker.
        storage: the storage.
        task_broker: the task as the worker holds it.
        model: how the task ended, as `worker_remove_finished_task` left it: a Success, Error or Cancel
            schema.

    Replaces:
        `model`: return the new value; `None` leaves it as it is.

    On failure:
        the task is settled as ERROR without the unreplaced result, so that a failing encryption plugin
        leaks no plaintext.

    Example:
        @hookimpl
        def broker_remove_finished_task(model):
            if isinstance(model, TaskStatusSuccessSchema):
                return dataclasses.replace(model, returning=encrypt(model.returning))
    """


@hookspec
def broker_running_older_tasks(broker: Broker, worker: Worker) -> None:
    """Called when restoring old tasks.

    Fires:
        Once per pass that restored tasks of lost workers, after it.

    Parameters:
        broker: the broker.
        worker: the worker whose process restored them.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def broker_running_older_tasks():
            restored.inc()
    """


@hookspec
def broker_flush_all(broker: Broker) -> None:
    """Resets queues.

    Fires:
        When the broker has forgotten all entries of this app.

    Parameters:
        broker: the broker.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def broker_flush_all():
            logger.warning("queues flushed")
    """
