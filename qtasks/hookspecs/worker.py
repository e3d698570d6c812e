"""The triggers of the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qtasks.markers import hookspec
from qtasks.schemas import (
    Priority,
    Seconds,
    TaskExecSchema,
    TaskName,
    TaskPrioritySchema,
    TaskStatusErrorSchema,
    TaskStatusProcessSchema,
    TaskStatusTerminalSchema,
)

if TYPE_CHECKING:
    from qtasks.components.broker import Broker
    from qtasks.components.worker import Worker


@hookspec(replaces=("model",), returns="value", control_flow=True)
def worker_execute_before(
    worker: Worker, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, model: TaskStatusProcessSchema
) -> TaskStatusProcessSchema | None:
    """Replaces the model before execution.

    Fires:
        In the task's slot, after `worker_add`, before the fields of the start are settled.

    Parameters:
        worker: the worker.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        model: the record of the task in process.

    Replaces:
        `model`: return the new value; `None` leaves it as it is.

    On failure:
        the task is released and tried again after 2^(deliveries - 1) seconds, at most 60; when its
        deliveries are used up it ends in ERROR, naming plugin and trigger. Control flow steers it:
        `TaskCancelError` ends it in CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts
        it back for that many seconds.

    Example:
        @hookimpl
        def worker_execute_before(model):
            return dataclasses.replace(model, extra={**model.extra, "worker": HOST})
    """


@hookspec(must_go_on=True)
def worker_execute_after(
    worker: Worker,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    model: TaskStatusTerminalSchema,
) -> None:
    """Called after task execution.

    Fires:
        After the result of a task was accepted by the storage, after `storage_remove_finished_task`.

    Parameters:
        worker: the worker.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        model: how the task ended, as it was stored.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        def worker_execute_after(task_func, model):
            ended.labels(task_func.name, model.status).inc()
    """


@hookspec(
    replaces=("task_name", "priority", "args", "kw", "created_at"), returns="mapping", control_flow=True
)
def worker_add(
    worker: Worker,
    uuid: UUID,
    task_name: TaskName,
    priority: Priority,
    args: tuple[Any, ...],
    kw: dict[str, Any],
    created_at: Seconds,
) -> Mapping[str, Any] | None:
    """Replaces task creation parameters.

    Fires:
        In the task's slot, after `broker_add_worker`.

    Parameters:
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
        def worker_add(args):
            return {"args": tuple(map(expand, args))}
    """


@hookspec
def worker_start(worker: Worker) -> None:
    """Starts the worker.

    Fires:
        When the worker starts, before it claims anything.

    Parameters:
        worker: the worker.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        async def worker_start(worker):
            await pool.open()
    """


@hookspec(must_go_on=True)
def worker_stop(worker: Worker) -> None:
    """Stops the worker.

    Fires:
        When the worker has stopped, with its results written.

    Parameters:
        worker: the worker.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def worker_stop(worker):
            await pool.close()
    """


@hookspec(
    replaces=("task_func", "task_broker"), returns="mapping", control_flow=True, keeps_uuid=("task_broker",)
)
def worker_run_task_before(
    worker: Worker, task_func: TaskExecSchema, task_broker: TaskPrioritySchema
) -> Mapping[str, Any] | None:
    """Replaces data before task execution.

    Fires:
        In the task's slot, after the fields of the start are settled, before the task executor takes
        over.

    Parameters:
        worker: the worker.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.

    Replaces:
        `task_func`, `task_broker`: return a mapping with some of these keys; a key that is absent, or
        `None`, is unchanged. The new `task_broker` must have the same uuid.

    On failure:
        the task is released and tried again after 2^(deliveries - 1) seconds, at most 60; when its
        deliveries are used up it ends in ERROR, naming plugin and trigger. Control flow steers it:
        `TaskCancelError` ends it in CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts
        it back for that many seconds.

    Example:
        @hookimpl
        def worker_run_task_before(task_func, task_broker):
            if throttled(task_func.name):
                raise TaskDefer(5)
    """


@hookspec(replaces=("model",), returns="value")
def worker_task_error_retry(
    worker: Worker,
    broker: Broker,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    e: BaseException,
    trace: str,
    model: TaskStatusErrorSchema,
) -> TaskStatusErrorSchema | None:
    """Replaces TaskStatusErrorSchema on retry.

    Fires:
        After each failure of a task's own code, before it is decided whether it runs again. The worker
        caps the number of retries at the `retry` of the task.

    Parameters:
        worker: the worker.
        broker: the broker.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        e: what the task raised.
        trace: its traceback, as text.
        model: the failure; `retry_in` (seconds) decides on a retry, `None` is none.

    Replaces:
        `model`: return the new value; `None` leaves it as it is.

    On failure:
        the original error stands, and the plugin's error is attached to it as a note.

    Example:
        @hookimpl
        def worker_task_error_retry(e, model):
            if isinstance(e, ConnectionError):
                return dataclasses.replace(model, retry_in=2.0 ** model.attempt)
    """


@hookspec(replaces=("task_broker", "model"), returns="mapping", keeps_uuid=("task_broker",))
def worker_remove_finished_task(
    worker: Worker,
    broker: Broker,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    model: TaskStatusTerminalSchema,
) -> Mapping[str, Any] | None:
    """Replaces TaskPrioritySchema and TaskStatus... for removal from the queue.

    Fires:
        In the task's slot when it has ended for good, before `broker_remove_finished_task` and before
        the result is written. Not for a retry, a defer or a release. The `then` of the model adds tasks
        in the same step.

    Parameters:
        worker: the worker.
        broker: the broker.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        model: how the task ended: a Success, Error or Cancel schema.

    Replaces:
        `task_broker`, `model`: return a mapping with some of these keys; a key that is absent, or
        `None`, is unchanged. The new `task_broker` must have the same uuid.

    On failure:
        the task is settled as ERROR without the unreplaced result, so that a failing encryption plugin
        leaks no plaintext.

    Example:
        @hookimpl
        def worker_remove_finished_task(model):
            if isinstance(model, TaskStatusSuccessSchema):
                return {"model": dataclasses.replace(model, returning=shrink(model.returning))}
    """
