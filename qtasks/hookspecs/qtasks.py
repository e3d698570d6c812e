"""The triggers of the application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qtasks.markers import hookspec
from qtasks.schemas import Priority, QueueName, Seconds, Task, TaskName

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.components.broker import Broker
    from qtasks.components.global_config import GlobalConfig
    from qtasks.components.starter import Starter


@hookspec(
    replaces=("task_name", "priority", "args", "kw", "extra", "queue", "available_at"),
    returns="mapping",
    control_flow=True,
    defers=True,
)
def qtasks_add_task_before_broker(
    qtasks: QueueTasks,
    broker: Broker,
    uuid: UUID,
    task_name: TaskName,
    priority: Priority,
    args: tuple[Any, ...],
    kw: dict[str, Any],
    extra: dict[str, Any],
    queue: QueueName,
    available_at: Seconds,
) -> Mapping[str, Any] | None:
    """Replaces task parameters before passing to broker.

    Fires:
        In `add_task` and for each task of `add_tasks`, first of all, before the broker sees it.

    Parameters:
        qtasks: the application.
        broker: the broker.
        uuid: the identity of the task; it never changes.
        task_name: the name of the task, `[A-Za-z0-9_.:-]{1,200}`.
        priority: lower runs first, -128 to 127.
        args: the positional arguments (JSON).
        kw: the keyword arguments (JSON).
        extra: what callers and plugins attach to the task (JSON); `unique_key` asks for uniqueness.
        queue: the queue it goes to, `[A-Za-z0-9_-]{1,48}`.
        available_at: Unix seconds before which it is not run; the time of the call if the caller named
            none.

    Replaces:
        `task_name`, `priority`, `args`, `kw`, `extra`, `queue`, `available_at`: return a mapping with
        some of these keys; a key that is absent, or `None`, is unchanged.

    On failure:
        `add_task` raises `PluginError`; nothing is stored or queued. So it does for control flow:
        `TaskCancelError` and `TaskRejected` are raised to the caller; with `TaskDefer` the other
        plugins still run, and the task is stored to be run later by that many seconds.

    Example:
        @hookimpl
        def qtasks_add_task_before_broker(extra):
            return {"extra": {**extra, "trace_id": new_trace_id()}}
    """


@hookspec(must_go_on=True)
def qtasks_add_task_after_broker(
    qtasks: QueueTasks,
    broker: Broker,
    task: Task,
    task_name: TaskName,
    priority: Priority,
    args: tuple[Any, ...],
    kw: dict[str, Any],
) -> None:
    """Called after the task is transferred to the broker.

    Fires:
        In `add_task`, when the task is stored and queued, just before the caller gets it.

    Parameters:
        qtasks: the application.
        broker: the broker.
        task: the task as it was stored.
        task_name: its name.
        priority: lower runs first, -128 to 127.
        args: its positional arguments, as they were stored.
        kw: its keyword arguments, as they were stored.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def qtasks_add_task_after_broker(task, task_name):
            await audit.write(task.uuid, task_name)
    """


@hookspec(replaces=("task",), returns="value", keeps_uuid=("task",))
def qtasks_get(qtasks: QueueTasks, broker: Broker, uuid: UUID, task: Task) -> Task | None:
    """Replaces the result of receiving the task.

    Fires:
        In `app.get`, when the task was read, after `storage_get` and `broker_get`. It does not fire for
        a task that does not exist.

    Parameters:
        qtasks: the application.
        broker: the broker.
        uuid: the identity of the task; it never changes.
        task: the task as a client sees it; change it with `dataclasses.replace`.

    Replaces:
        `task`: return the new value; `None` leaves it as it is. The new `task` must have the same uuid.

    On failure:
        raised to the caller.

    Example:
        @hookimpl
        def qtasks_get(task):
            return dataclasses.replace(task, returning=decrypt(task.returning))
    """


@hookspec(must_go_on=True)
def qtasks_stop(qtasks: QueueTasks, starter: Starter) -> None:
    """Called when the application is stopped.

    Fires:
        When the application stops, before its components do.

    Parameters:
        qtasks: the application.
        starter: the starter.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def qtasks_stop(qtasks):
            await client.close()
    """


@hookspec
def qtasks_ping(qtasks: QueueTasks, global_config: GlobalConfig) -> None:
    """Pings global_config.

    Fires:
        In `app.ping`, before the signs of life of the running servers are read.

    Parameters:
        qtasks: the application.
        global_config: the global config.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def qtasks_ping():
            pings.inc()
    """


@hookspec
def qtasks_flush_all(qtasks: QueueTasks, broker: Broker) -> None:
    """Resets queues and stores.

    Fires:
        In `app.flush_all`, after the broker and the storage were emptied.

    Parameters:
        qtasks: the application.
        broker: the broker.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        async def qtasks_flush_all(qtasks):
            await cache.clear(qtasks.name)
    """
