"""TaskContext: what the code of a task may know and ask (the first argument with `echo=True`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import UUID

from qtasks.closing import close_all
from qtasks.errors import TaskCancelError, TaskDefer, TaskPluginTriggerError, WrongLoopError

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.components.primitives import DeliveryHandle
    from qtasks.schemas import Task, TaskExecSchema, TaskPrioritySchema

T = TypeVar("T")

_current: ContextVar[TaskContext] = ContextVar("qtasks_task_context")


def current_task() -> TaskContext:
    """The context of the task that is running: in its code, inside its threads, and in the triggers from
    `task_executor_middlewares_execute` to `broker_remove_finished_task`.

    Raises:
        LookupError: no task is running here.
    """
    return _current.get()


@contextmanager
def in_context(context: TaskContext) -> Iterator[None]:
    """Makes this task the current one: a test of a plugin fires with it what the worker fires while a task runs."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class TaskContext:
    """The running task.

    Attributes:
        app: the application.
        uuid, name, attempt: the task's identity, its name, how often it has failed before.
        task_func: its declaration.
        task_broker: the task as the worker holds it.
        available_at: when this run was due, Unix seconds: after a delay, a retry or a defer, later than the task's
            `created_at`.
        extra: what callers and plugins attached to the task (JSON); to be read, not changed.
        state: a place for plugins to keep things for the time of this run.
    """

    __slots__ = (
        "_closed",
        "_resources",
        "app",
        "available_at",
        "extra",
        "handle",
        "state",
        "task_broker",
        "task_func",
    )

    def __init__(
        self,
        app: QueueTasks,
        handle: DeliveryHandle,
        task_func: TaskExecSchema,
        task_broker: TaskPrioritySchema,
        available_at: float = 0.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.available_at = available_at
        self.extra: Mapping[str, Any] = {} if extra is None else extra
        self.app = app
        self.handle = handle
        self.task_func = task_func
        self.task_broker = task_broker
        self.state: dict[str, Any] = {}
        self._resources: AsyncExitStack | None = None
        self._closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop on which the worker runs."""
        return self.app.worker.loop

    @property
    def uuid(self) -> UUID:
        """The task's identity."""
        return self.handle.uuid

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task_broker.name

    @property
    def attempt(self) -> int:
        """How often the task has failed before this run."""
        return self.task_broker.attempt

    @property
    def resources(self) -> AsyncExitStack:
        """What plugins and the task's code opened for this run. It is closed exactly once, in reverse order, when the
        code has ended and before its outcome is written: however it ended, and also where a trigger before the run
        stopped the task. What is closed is told the error. It cannot take it away; where there is none, an error in
        closing fails the task.

        Where the task has a `max_time`, closing may take as long again: what hangs is stopped, one after the other, and
        named in the error. What a thread uses that outlives its task stays open until it returns. A process that is
        killed closes nothing.

        Raises:
            RuntimeError: the run is over.
        """
        if self._closed:
            raise RuntimeError(f"the run of task {self.name!r} is over: nothing more can be opened for it")
        if self._resources is None:
            self._resources = AsyncExitStack()
        return self._resources

    def detach(self) -> AsyncExitStack | None:
        """Ends the use of `resources`, and gives what has to be closed. Called by the worker."""
        self._closed = True
        stack, self._resources = self._resources, None
        return stack

    async def close(self, error: BaseException | None = None) -> None:
        """Closes `resources`; a second call does nothing. Called by the worker.

        Raises:
            TaskTimeoutError: something took longer than `max_time` to close.
        """
        if (stack := self.detach()) is not None:
            await close_all(stack, error, self.task_func.max_time)

    def cancel(self, reason: str = "") -> NoReturn:
        """Ends the task as cancelled."""
        raise TaskCancelError(reason)

    def defer(self, seconds: float) -> NoReturn:
        """Puts the task back for a time; this run does not count as a failure."""
        raise TaskDefer(seconds)

    def plugin_error(self, message: str | None = None, **data: Any) -> NoReturn:
        """Asks the plugins on `task_executor_run_task_trigger_error` for the result."""
        raise TaskPluginTriggerError(message, **data)

    async def progress(self, value: Any) -> None:
        """Stores how far the task is (JSON), for `Task.progress`. `broker_update` and `storage_update` fire
        with it, so that plugins decide on what is stored of it, too."""
        from qtasks.components.primitives import FENCED_FIELDS, Update

        app, uuid = self.app, self.uuid
        fields = {"progress": value, "updated_at": app.clock()}
        fields = await app.storage.update(uuid, await app.broker.update(uuid, fields))
        kept = FENCED_FIELDS | {"attempt", "deliveries"}
        changes = {name: value for name, value in fields.items() if name not in kept}
        await app.storage.update_many([Update(uuid, changes)])

    async def add_task(self, task_name: str, **options: Any) -> Task:
        """`QueueTasks.add_task`, from a coroutine task."""
        return await self.app.add_task(task_name, **options)

    def add_task_sync(
        self,
        task_name: str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Task:
        """`QueueTasks.add_task`, from a plain function, which runs in a thread."""
        return self.run_sync(self.app.add_task(task_name, args=args, kwargs=kwargs, **options))

    def progress_sync(self, value: Any) -> None:
        """`progress`, from a plain function, which runs in a thread."""
        self.run_sync(self.progress(value))

    def run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the application's loop, from a plain function, which runs in a thread, and gives its
        result.

        Raises:
            WrongLoopError: this is the loop, which would wait for itself.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            coroutine.close()
            raise WrongLoopError(
                "this call blocks the event loop: use the method without `_sync`, with await"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()
