"""QueueTasks for blocking code (Flask, Django, scripts): the same application, driven from a thread.

There is no second implementation: one daemon thread runs an event loop with the asynchronous
application on it, and each method here waits for its counterpart there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload
from uuid import UUID

from qtasks.app import QueueTasks as AsyncQueueTasks
from qtasks.calls import AddOptions, positional
from qtasks.components.stats import InspectStats
from qtasks.context import TaskContext
from qtasks.errors import WrongLoopError
from qtasks.registry import Router, ScheduleOptions, TaskFunction, TaskOptions
from qtasks.schemas import Task, TaskRequest
from qtasks.trace import Trace

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

__all__ = ["BoundTask", "QueueTasks", "SyncTaskFunction"]


class _Ended:
    """There are no more items."""


class _Portal:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="qtasks-portal", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._stop = asyncio.Event()
            self._loop.call_soon(self._ready.set)
            runner.run(self._stop.wait())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop and waits for it.

        Raises:
            WrongLoopError: this is an event loop's own thread, which must not be blocked.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            coroutine.close()
            raise WrongLoopError("qtasks.sync would block this event loop: use qtasks.QueueTasks with await")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # a KeyboardInterrupt here must not leave the call running there
            raise

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class QueueTasks:
    """A task queue application for blocking code. Parameters as for `qtasks.QueueTasks`.

    It is started by its first call, or by `with app:`, and closed by `close()` or the end of the `with`.
    After a fork the child starts its own.

    Attributes:
        app: the asynchronous application, for declaring plugins and running a worker.
    """

    def __init__(self, *args: Any, app: AsyncQueueTasks | None = None, **options: Any) -> None:
        self.app = app if app is not None else AsyncQueueTasks(*args, **options)
        self._portal: _Portal | None = None
        self._lock = threading.Lock()

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            portal = self._portal
            if portal is None or portal.pid != os.getpid():
                if portal is not None:
                    self.app.starter.forget()
                portal = _Portal()
                portal.call(self.app.starter.start())
                self._portal = portal
        return portal.call(make())

    def __enter__(self) -> Self:
        self._call(_nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and ends the thread. The next call starts anew."""
        with self._lock:
            portal, self._portal = self._portal, None
            if portal is not None:
                portal.call(self.app.starter.stop())
                portal.close()

    # --- Declaring --------------------------------------------------------------------------

    @overload
    def task(self, func: Callable[P, R], /) -> SyncTaskFunction[P, R]: ...

    @overload
    def task(
        self, /, *, name: str | None = None, echo: Literal[False] = False, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], SyncTaskFunction[P, R]]: ...

    @overload
    def task(
        self, /, *, name: str | None = None, echo: Literal[True], **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[Concatenate[TaskContext, P], R]], SyncTaskFunction[P, R]]: ...

    def task(
        self, func: Callable[..., Any] | None = None, /, *, name: str | None = None, echo: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        """As `qtasks.QueueTasks.task`; the `add_task` of what it gives blocks."""
        # One call for both values of `echo`, which the overloads tell apart.
        declare: Callable[..., Any] = self.app.task

        def decorate(function: Callable[..., Any]) -> SyncTaskFunction[Any, Any]:
            return SyncTaskFunction(self, declare(name=name, echo=echo, **options)(function))

        return decorate if func is None else decorate(func)

    def cron(
        self, expression: str, /, *, tz: str = "UTC", **options: Unpack[ScheduleOptions]
    ) -> Callable[[Callable[P, R] | SyncTaskFunction[P, R]], SyncTaskFunction[P, R]]:
        """As `qtasks.QueueTasks.cron`."""
        return self._on_schedule(self.app.cron(expression, tz=tz, **options))

    def every(
        self, seconds: float, /, **options: Unpack[ScheduleOptions]
    ) -> Callable[[Callable[P, R] | SyncTaskFunction[P, R]], SyncTaskFunction[P, R]]:
        """As `qtasks.QueueTasks.every`."""
        return self._on_schedule(self.app.every(seconds, **options))

    def _on_schedule(
        self, put: Callable[[Any], TaskFunction[Any, Any]]
    ) -> Callable[[Callable[P, R] | SyncTaskFunction[P, R]], SyncTaskFunction[P, R]]:
        def decorate(function: Callable[P, R] | SyncTaskFunction[P, R]) -> SyncTaskFunction[P, R]:
            task = function if isinstance(function, SyncTaskFunction) else self.task(function)
            put(task.function)
            return task

        return decorate

    def include_router(self, router: Router) -> None:
        """As `qtasks.QueueTasks.include_router`."""
        self.app.include_router(router)

    def add_plugin(self, plugin: object, **options: Any) -> str:
        """As `qtasks.QueueTasks.add_plugin`."""
        return self.app.add_plugin(plugin, **options)

    # --- Adding, reading, steering ----------------------------------------------------------

    def add_task(
        self, task_name: str, *, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None, priority: int | None = None, delay: float | None = None,
        eta: datetime | None = None, uuid: UUID | None = None, timeout: float | None = None,
        extra: Mapping[str, Any] | None = None, unique_key: str | None = None, trace: bool | None = None,
    ) -> Task:  # fmt: skip
        """As `qtasks.QueueTasks.add_task`."""
        options = AddOptions(queue, priority, delay, eta, uuid, timeout, extra, unique_key, trace)
        return self._add(task_name, positional(args), kwargs or {}, options)

    def _add(
        self, task_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: AddOptions
    ) -> Task:
        return self._call(lambda: self.app.add(task_name, args, kwargs, options))

    def add_tasks(self, requests: Iterable[TaskRequest]) -> list[Task]:
        """As `qtasks.QueueTasks.add_tasks`."""
        return self._call(lambda: self.app.add_tasks(requests))

    def get(self, uuid: UUID) -> Task | None:
        """As `qtasks.QueueTasks.get`."""
        return self._call(lambda: self.app.get(uuid))

    def wait_result(self, uuid: UUID, timeout: float | None = None) -> Task:
        """As `qtasks.QueueTasks.wait_result`."""
        return self._call(lambda: self.app.wait_result(uuid, timeout))

    def trace(self, uuid: UUID) -> Trace | None:
        """As `qtasks.QueueTasks.trace`."""
        return self._call(lambda: self.app.trace(uuid))

    def stream(self, uuid: UUID, start: int = 0) -> Iterator[Any]:
        """The items of a generator task as they come; see `qtasks.Task.stream`."""
        return self._iterate(lambda: self.app.stream(uuid, start))

    def follow(self, uuid: UUID) -> Iterator[Task]:
        """Snapshots of a task as it goes on; see `qtasks.Task.follow`."""
        return self._iterate(lambda: self.app.follow(uuid))

    def _iterate(self, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        items = make()

        async def following() -> T | _Ended:
            return await anext(items, _Ended())

        while not isinstance(item := self._call(following), _Ended):
            yield item

    def get_all(self, cursor: str | None = None, limit: int = 100) -> tuple[list[Task], str | None]:
        """As `qtasks.QueueTasks.get_all`."""
        return self._call(lambda: self.app.get_all(cursor, limit))

    def cancel(self, uuid: UUID, reason: str = "cancelled by a client") -> bool:
        """As `qtasks.QueueTasks.cancel`."""
        return self._call(lambda: self.app.cancel(uuid, reason))

    def dead(self) -> Iterator[Task]:
        """As `qtasks.QueueTasks.dead`."""

        async def collect() -> list[Task]:
            return [task async for task in self.app.dead()]

        return iter(self._call(collect))

    def replay(self, uuid: UUID) -> Task:
        """As `qtasks.QueueTasks.replay`."""
        return self._call(lambda: self.app.replay(uuid))

    def delete(self, uuids: Sequence[UUID]) -> list[bool]:
        """As `qtasks.QueueTasks.delete`."""
        return self._call(lambda: self.app.delete(uuids))

    def ping(self) -> bool:
        """As `qtasks.QueueTasks.ping`."""
        return self._call(self.app.ping)

    def flush_all(self) -> None:
        """As `qtasks.QueueTasks.flush_all`."""
        self._call(self.app.flush_all)

    def inspect(self) -> InspectStats:
        """As `Stats.inspect`."""
        return self._call(self.app.stats.inspect)

    def run_forever(self, *, until_idle: bool = False) -> None:
        """Runs the worker in the foreground; see `qtasks.QueueTasks.run_forever`. Ends what `with` started first."""
        self.close()
        self.app.run_forever(until_idle=until_idle)


class SyncTaskFunction(Generic[P, R]):
    """A declared task of a blocking application. Calling it calls the function; `add_task` queues it."""

    def __init__(self, owner: QueueTasks, function: TaskFunction[P, R]) -> None:
        self.function = function
        self._owner = owner
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return self.function.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def add_task(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Queues the task with these arguments."""
        return self._owner._add(self.name, args, kwargs, AddOptions())

    def options(self, **options: Any) -> BoundTask[P]:
        """The task with options for adding it; they are those of `add_task` of the application."""
        return BoundTask(self._owner, self.name, AddOptions(**options))


class BoundTask(Generic[P]):
    """A declared task with options for adding it."""

    def __init__(self, owner: QueueTasks, name: str, options: AddOptions) -> None:
        self._owner = owner
        self._name = name
        self._options = options

    def add_task(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Queues the task with these arguments and the options."""
        return self._owner._add(self._name, args, kwargs, self._options)


async def _nothing() -> None:
    return None
