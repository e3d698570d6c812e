"""TaskExecutor: runs the code of one task: middlewares, arguments, function, result, decode."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from qtasks.components.base import Component
from qtasks.components.processes import in_process
from qtasks.components.streams import run_stream
from qtasks.components.threads import DaemonThreads
from qtasks.context import TaskContext
from qtasks.errors import TaskPluginTriggerError
from qtasks.schemas import UNSET, TaskExecSchema, TaskPrioritySchema

if TYPE_CHECKING:
    from qtasks.app import QueueTasks


class TaskExecutor(Component):
    """Runs task functions and fires the `task_executor_…` triggers.

    A plain function runs in a daemon thread, never on the loop. A subclass may override `run`.
    """

    app: QueueTasks

    def __init__(self) -> None:
        super().__init__()
        self._threads: DaemonThreads | None = None

    async def prepare(
        self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What happens just before the code runs: fires `task_executor_middlewares_execute`, then
        `task_executor_args_replace`, and gives the arguments."""
        hook = self.pm.hook
        await hook.task_executor_middlewares_execute(
            task_executor=self, task_func=task_func, task_broker=task_broker,
            middlewares=task_func.middlewares_before + task_func.middlewares_after,
        )  # fmt: skip
        return await hook.task_executor_args_replace(
            task_executor=self, task_func=task_func, task_broker=task_broker, args=task_broker.args,
            kw=task_broker.kwargs, args_info=task_func.args_info,
        )  # fmt: skip

    def execute(
        self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, context: TaskContext,
        args: tuple[Any, ...], kw: dict[str, Any],
    ) -> Coroutine[Any, Any, Any]:  # fmt: skip
        """Runs the code with its middlewares; gives the raw result."""
        if task_func.middlewares_before or task_func.middlewares_after:
            return self._run_between(task_func, context, args, kw)
        return self.run(task_func, context, args, kw)

    async def _run_between(
        self, task_func: TaskExecSchema, context: TaskContext, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Any:
        for middleware in task_func.middlewares_before:
            replaced = await _maybe_await(middleware(context, args, kw))
            if replaced is not None:
                args, kw = replaced
        result = await self.run(task_func, context, args, kw)
        for middleware in task_func.middlewares_after:
            replaced = await _maybe_await(middleware(context, result))
            if replaced is not None:
                result = replaced
        return result

    async def run(
        self, task_func: TaskExecSchema, context: TaskContext, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> Any:
        """Calls the function in the way its kind asks for."""
        func = task_func.func
        if task_func.echo:
            args = (context, *args)
        if task_func.stream:
            return await run_stream(self, task_func, context, args, kw)
        match task_func.kind:
            case "coroutine":
                return await func(*args, **kw)
            case "async_generator":
                return [await self._item(task_func, item) async for item in func(*args, **kw)]
            case "generator":
                return await self.in_thread(partial(_collect, func, args, kw, task_func.generate_handler))
        if task_func.executor == "process":
            return await in_process(task_func, args, kw)
        return await self.in_thread(partial(func, *args, **kw))

    async def _item(self, task_func: TaskExecSchema, item: Any) -> Any:
        handler = task_func.generate_handler
        return item if handler is None else await _maybe_await(handler(item))

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Runs a plain function in a daemon thread.

        Raises:
            ThreadStillRunning: the caller was cancelled, and the function goes on, since a thread cannot be stopped.
        """
        if self._threads is None:
            self._threads = DaemonThreads(self.config.threads)
        future = self._threads.submit(function)
        try:
            result = await asyncio.shield(future)
        except asyncio.CancelledError as cancelled:
            if future.done():
                raise
            raise ThreadStillRunning(future) from cancelled
        return await result if inspect.isawaitable(result) else result

    async def finish(self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, result: Any) -> Any:
        """What happens to a raw result: `task_executor_run_task` or `…_run_task_gen`, the task's own
        `decode`, then `task_executor_decode`."""
        hook = self.pm.hook
        if task_func.stream:
            pass  # it fired for each batch, before the batch was stored
        elif task_func.kind in ("generator", "async_generator"):
            result = await hook.task_executor_run_task_gen(
                task_executor=self, task_func=task_func, task_broker=task_broker, results=result
            )
        else:
            result = await hook.task_executor_run_task(
                task_executor=self, task_func=task_func, task_broker=task_broker, result=result
            )
        if task_func.decode is not None:
            result = await _maybe_await(task_func.decode(result))
        return await hook.task_executor_decode(
            task_executor=self, task_func=task_func, task_broker=task_broker, result=result
        )

    async def trigger_error(
        self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, error: TaskPluginTriggerError
    ) -> Any:
        """Fires `task_executor_run_task_trigger_error`; raises the error where no plugin gave a result."""
        result = await self.pm.hook.task_executor_run_task_trigger_error(
            task_executor=self, task_func=task_func, task_broker=task_broker, e=error, result=UNSET
        )
        if result is UNSET:
            raise error
        return result

    def close(self) -> None:
        """Lets idle threads end."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None


class ThreadStillRunning(BaseException):
    """The task was cancelled but its thread runs on; `future` is done when it returns.

    A BaseException, so that no plugin and no middleware takes it for a failure of the task.
    """

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future
        super().__init__("a thread cannot be stopped")


def _collect(
    func: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any], handler: Callable[[Any], Any] | None
) -> list[Any]:
    if handler is None:
        return list(func(*args, **kw))
    if inspect.iscoroutinefunction(handler):
        raise TypeError(
            "generate_handler of a plain generator must be a plain function: it runs in the same thread"
        )
    return [handler(item) for item in func(*args, **kw)]


async def _maybe_await(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
