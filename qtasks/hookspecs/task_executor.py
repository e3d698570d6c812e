"""The triggers of the task executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qtasks.errors import TaskPluginTriggerError
from qtasks.markers import hookspec
from qtasks.schemas import ArgInfo, TaskExecSchema, TaskPrioritySchema

if TYPE_CHECKING:
    from qtasks.components.task_executor import TaskExecutor


@hookspec(replaces=("args", "kw"), returns="pair", control_flow=True)
def task_executor_args_replace(
    task_executor: TaskExecutor,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    args: tuple[Any, ...],
    kw: dict[str, Any],
    args_info: tuple[ArgInfo, ...],
) -> tuple[tuple[Any, ...] | None, dict[str, Any] | None] | Mapping[str, Any] | None:
    """Replaces args and kwargs before execution.

    Fires:
        In the task's slot, last of all before the function is called, with the arguments as
        `worker_run_task_before` left them.

    Parameters:
        task_executor: the task executor.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        args: the positional arguments of the call.
        kw: the keyword arguments of the call.
        args_info: the parameters of the function: name, annotation, kind, default.

    Replaces:
        `args`, `kw`: return a tuple `(args, kw)`, either of which may be `None` (unchanged), or the
        mapping `{"args": …, "kw": …}` with some of these keys.

    On failure:
        the task is released and tried again after 2^(deliveries - 1) seconds, at most 60; when its
        deliveries are used up it ends in ERROR, naming plugin and trigger. Control flow steers it:
        `TaskCancelError` ends it in CANCEL, `TaskRejected` in ERROR without a retry, `TaskDefer` puts
        it back for that many seconds.

    Example:
        @hookimpl
        def task_executor_args_replace(args, kw, args_info):
            return None, {**kw, "now": time.time()}
    """


@hookspec
def task_executor_middlewares_execute(
    task_executor: TaskExecutor,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    middlewares: tuple[Callable[..., Any], ...],
) -> None:
    """Called before task execution with middlewares.

    Fires:
        In the task's slot after `worker_run_task_before`, before the middlewares and the function run.

    Parameters:
        task_executor: the task executor.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        middlewares: the middlewares that will run, those before the function first.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def task_executor_middlewares_execute(task_func, middlewares):
            logger.debug("%s: %d middlewares", task_func.name, len(middlewares))
    """


@hookspec(replaces=("result",), returns="value")
def task_executor_run_task(
    task_executor: TaskExecutor, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, result: Any
) -> Any:
    """Replaces the task execution result.

    Fires:
        When a function or coroutine of a task has returned.

    Parameters:
        task_executor: the task executor.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        result: what the function returned.

    Replaces:
        `result`: return the new value; `None` leaves it as it is, `qtasks.NULL` sets it to `None`.

    On failure:
        the task ends in ERROR, naming plugin and trigger, under its retry rules.

    Example:
        @hookimpl
        def task_executor_run_task(result):
            return round(result, 2) if isinstance(result, float) else None
    """


@hookspec(replaces=("results",), returns="value")
def task_executor_run_task_gen(
    task_executor: TaskExecutor,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    results: list[Any],
) -> list[Any] | None:
    """Replaces the generator results.

    Fires:
        When a generator of a task is exhausted.

    Parameters:
        task_executor: the task executor.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        results: all that the generator yielded, in order.

    Replaces:
        `results`: return the new value; `None` leaves it as it is.

    On failure:
        the task ends in ERROR, naming plugin and trigger, under its retry rules.

    Example:
        @hookimpl
        def task_executor_run_task_gen(results):
            return [item for item in results if item is not None]
    """


@hookspec(replaces=("result",), returns="value")
def task_executor_run_task_trigger_error(
    task_executor: TaskExecutor,
    task_func: TaskExecSchema,
    task_broker: TaskPrioritySchema,
    e: TaskPluginTriggerError,
    result: Any,
) -> Any:
    """Replaces the result when TaskPluginTriggerError is raised.

    Fires:
        When the code of a task raised `TaskPluginTriggerError`, with `ctx.plugin_error(...)`. What a
        plugin returns becomes the result of the task; if none does, the task fails with that error.

    Parameters:
        task_executor: the task executor.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        e: what the task raised; `e.data` is what it passed on.
        result: `qtasks.schemas.UNSET`, or the result as an earlier plugin gave it.

    Replaces:
        `result`: return the new value; `None` leaves it as it is, `qtasks.NULL` sets it to `None`.

    On failure:
        the task ends in ERROR, naming plugin and trigger, under its retry rules.

    Example:
        @hookimpl
        async def task_executor_run_task_trigger_error(e):
            if e.data.get("ask") == "rates":
                return await fetch_rates()
    """


@hookspec(replaces=("result",), returns="value")
def task_executor_decode(
    task_executor: TaskExecutor, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, result: Any
) -> Any:
    """Replaces the result of decoding the result.

    Fires:
        After `task_executor_run_task` or `task_executor_run_task_gen`, before the result is handed
        over.

    Parameters:
        task_executor: the task executor.
        task_func: the declaration of the task.
        task_broker: the task as the worker holds it.
        result: the result, after the `decode` of the declaration.

    Replaces:
        `result`: return the new value; `None` leaves it as it is, `qtasks.NULL` sets it to `None`.

    On failure:
        the task ends in ERROR, naming plugin and trigger, under its retry rules.

    Example:
        @hookimpl
        def task_executor_decode(result):
            return result.model_dump() if isinstance(result, BaseModel) else None
    """
