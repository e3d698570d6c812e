"""depends: parameters of a task that somebody else provides: `Annotated[Session, Depends(get_session)]`."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from qtasks import ArgInfo, TaskContext, TaskExecSchema, TaskRejected, current_task, hookimpl

log = logging.getLogger("qtasks.depends")

Factory = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Depends:
    """Says in an annotation where a parameter comes from.

    Parameters:
        factory: a function, a coroutine function, or a generator of either kind that yields once; what stands after
            its `yield` closes what it gave. Its own parameters may depend on others; one that is annotated
            `TaskContext` is given the running task.
        scope: `"task"` opens it for each run; `"worker"` once for each worker process, when it is first needed.
        cache: whether all that need this factory in a run get the same value. In a worker they always do.

    Raises:
        TypeError: the factory cannot be called.
        ValueError: there is no such scope.
    """

    qtasks_plugin: ClassVar[str] = "depends"

    factory: Factory
    scope: Literal["task", "worker"] = "task"
    cache: bool = True

    def __post_init__(self) -> None:
        if not callable(self.factory):
            raise TypeError(f"Depends(...) takes a function that gives the value, not {self.factory!r}")
        if self.scope not in ("task", "worker"):
            raise ValueError(f'the scope of a dependency is "task" or "worker", not {self.scope!r}')


class DependsPlugin:
    """Provides the parameters of tasks that are annotated with `Depends`, unless the caller gave them.

    What was opened is closed exactly once, in reverse order: for a task when its run has ended, however it ended; for
    a worker when it stops.
    """

    qtasks_name = "depends"

    def __init__(self) -> None:
        self._tasks: dict[Factory, dict[str, Depends]] = {}
        self._needs: dict[Factory, dict[str, Depends | None]] = {}
        self._overrides: dict[Factory, Factory] = {}
        self._kept: dict[Factory, _Kept] = {}
        self._outside: contextvars.Context | None = None

    @contextmanager
    def override(self, factory: Factory, replacement: Factory) -> Iterator[None]:
        """For tests: inside of the block another factory takes the place of one, wherever it is named."""
        before = self._overrides.copy()
        self._overrides[factory] = replacement
        try:
            yield
        finally:
            self._overrides = before

    @hookimpl
    def worker_start(self) -> None:
        """Remembers a context that is no task's, for what outlives the task that opens it."""
        self._outside = contextvars.copy_context()

    @hookimpl
    async def worker_stop(self) -> None:
        """Closes what was opened for the worker, the last one first."""
        kept = [each for each in self._kept.values() if each.opened]
        self._kept = {}
        try:
            while kept:
                await kept[-1].close()
                kept.pop()
        finally:
            for each in kept:
                each.abandon()

    @hookimpl(after=("validation", "chain", "limits"))
    async def task_executor_args_replace(
        self,
        task_func: TaskExecSchema,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        args_info: tuple[ArgInfo, ...],
    ) -> dict[str, Any] | None:
        """Just before the run, after all that may still put the task back."""
        needed = self._tasks.get(task_func.func)
        if needed is None:
            needed = self._tasks[task_func.func] = _of_task(task_func.name, args_info)
        if not needed:
            return None
        given = {*[info.name for info in args_info if info.kind in _POSITIONAL][: len(args)], *kw}
        missing = {name: depends for name, depends in needed.items() if name not in given}
        if not missing:
            return None
        if task_func.executor == "process":
            raise TaskRejected(f"{task_func.name!r} runs in another process, where nothing can be provided")
        run = _Run(self, current_task())
        values = {name: await run.value(depends, ()) for name, depends in missing.items()}
        return {"kw": {**kw, **values}}

    # --- For a run --------------------------------------------------------------------------

    def replaced(self, factory: Factory) -> Factory:
        """The factory, or what a test has put in its place."""
        return self._overrides.get(factory, factory)

    def needs(self, factory: Factory) -> Mapping[str, Depends | None]:
        """What the parameters of a factory need, by name; `None` is the running task."""
        found = self._needs.get(factory)
        if found is None:
            found = self._needs[factory] = _needs(factory)
        return found

    async def kept(self, factory: Factory, values: Mapping[str, Any]) -> Any:
        """The value for the worker; the first one who needs it opens it, and the others wait for that."""
        kept = self._kept.get(factory)
        if kept is None:
            kept = self._kept[factory] = _Kept(factory, values, self._outside)
        try:
            return await asyncio.shield(kept.value)
        finally:
            if kept.failed and self._kept.get(factory) is kept:
                del self._kept[factory]  # the next task tries again


class _Run:
    """Opens what one run needs."""

    def __init__(self, plugin: DependsPlugin, context: TaskContext) -> None:
        self._plugin = plugin
        self._context = context
        self._values: dict[Factory, Any] = {}

    async def value(self, depends: Depends, path: tuple[tuple[Factory, str], ...]) -> Any:
        """The value of a dependency.

        Parameters:
            path: the factories, with their scopes, that lead to it.
        """
        factory = self._plugin.replaced(depends.factory)
        if depends.cache and factory in self._values:
            return self._values[factory]
        self._check(factory, depends.scope, path)
        inner = (*path, (factory, depends.scope))
        values: dict[str, Any] = {}
        for name, needed in self._plugin.needs(factory).items():
            if needed is not None:
                values[name] = await self.value(needed, inner)
            elif depends.scope == "worker":
                raise TaskRejected(
                    f"{_name(factory)} is opened for the worker: there is no TaskContext for it"
                )
            else:
                values[name] = self._context
        if depends.scope == "worker":
            value = await self._plugin.kept(factory, values)
        else:
            value = await _open(self._context.resources, factory, values)
        if depends.cache:
            self._values[factory] = value
        return value

    def _check(self, factory: Factory, scope: str, path: tuple[tuple[Factory, str], ...]) -> None:
        if any(factory is outer for outer, _ in path):
            circle = " -> ".join(_name(each) for each in (*(outer for outer, _ in path), factory))
            raise TaskRejected(f"dependencies go in a circle: {circle}")
        if path and path[-1][1] == "worker" and scope == "task":
            raise TaskRejected(
                f"{_name(path[-1][0])} is opened for the worker and outlives {_name(factory)}, which is opened for a "
                'task: give that one scope="worker" too'
            )


class _Kept:
    """One value of a worker. A task of its own opens it, holds it and closes it: what a library binds to the task
    that opened it (a cancel scope, say) stays whole."""

    def __init__(
        self, factory: Factory, values: Mapping[str, Any], outside: contextvars.Context | None
    ) -> None:
        self.value: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Whoever waited for it may be gone when it fails.
        self.value.add_done_callback(lambda value: value.cancelled() or value.exception())
        self._factory = factory
        self._end = asyncio.Event()
        context = outside.copy() if outside is not None else None
        self._holding = asyncio.create_task(
            self._hold(values), name=f"qtasks-{_name(factory)}", context=context
        )

    @property
    def opened(self) -> bool:
        """Whether there is something to close, or soon will be."""
        return not self.failed

    @property
    def failed(self) -> bool:
        """Whether it could not be opened."""
        return self.value.done() and (self.value.cancelled() or self.value.exception() is not None)

    async def _hold(self, values: Mapping[str, Any]) -> None:
        async with AsyncExitStack() as stack:
            try:
                self.value.set_result(await _open(stack, self._factory, values))
            except asyncio.CancelledError:
                self.value.cancel()
                raise
            except Exception as error:
                self.value.set_exception(error)
                return
            await self._end.wait()

    async def close(self) -> None:
        """Closes it; what goes wrong is logged, so that the others are closed too."""
        self._end.set()
        await asyncio.wait([self._holding])
        if not self._holding.cancelled() and (error := self._holding.exception()) is not None:
            log.error("%s could not be closed: %s", _name(self._factory), error, exc_info=error)

    def abandon(self) -> None:
        """There is no time left to close it in order."""
        self._holding.cancel()


# --- What a factory needs, and what it gives ------------------------------------------------

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _depends(annotation: Any) -> Depends | None:
    if get_origin(annotation) is not Annotated:
        return None
    return next((each for each in get_args(annotation)[1:] if isinstance(each, Depends)), None)


def _of_task(task: str, args_info: tuple[ArgInfo, ...]) -> dict[str, Depends]:
    found: dict[str, Depends] = {}
    for info in args_info:
        if isinstance(info.annotation, str) and "Depends(" in info.annotation:
            raise TaskRejected(
                f"task {task!r}: the annotation of {info.name!r} cannot be read: {info.annotation}; its names must be "
                "there when the task is declared, outside of `if TYPE_CHECKING`, in the module"
            )
        if (depends := _depends(info.annotation)) is not None:
            found[info.name] = depends
    return found


def _needs(factory: Factory) -> dict[str, Depends | None]:
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters.values()
    except NameError as error:
        raise TaskRejected(f"an annotation of {_name(factory)} cannot be read: {error}") from error
    except ValueError:
        return {}  # a builtin that does not tell
    found: dict[str, Depends | None] = {}
    for parameter in parameters:
        depends = _depends(parameter.annotation)
        if depends is not None or parameter.annotation is TaskContext:
            found[parameter.name] = depends
        elif parameter.default is parameter.empty and parameter.kind not in _VARIABLE:
            raise TaskRejected(
                f"{_name(factory)} needs {parameter.name!r}, which has neither Depends nor a default"
            )
    return found


async def _open(stack: AsyncExitStack, factory: Factory, values: Mapping[str, Any]) -> Any:
    """What a factory gives. Plain functions run in a thread: they may block."""
    if inspect.isasyncgenfunction(factory):
        return await stack.enter_async_context(asynccontextmanager(factory)(**values))
    if inspect.isgeneratorfunction(factory):
        return await stack.enter_async_context(_in_threads(contextmanager(factory)(**values)))
    if inspect.iscoroutinefunction(factory):
        return await factory(**values)
    job, cancelled = await _through(partial(factory, **values))
    if cancelled:
        raise asyncio.CancelledError
    value = job.result()
    return await value if inspect.isawaitable(value) else value


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    """A plain context manager, entered and left in threads. One that was entered is always left."""
    entered, cancelled = await _through(manager.__enter__)
    value = entered.result()
    try:
        if cancelled:
            raise asyncio.CancelledError
        yield value
    except BaseException as error:
        left, _ = await _through(partial(manager.__exit__, type(error), error, error.__traceback__))
        if not left.result():
            raise
    else:
        left, _ = await _through(partial(manager.__exit__, None, None, None))
        left.result()


async def _through(function: Callable[[], Any]) -> tuple[asyncio.Future[Any], bool]:
    """Runs a function in a thread, to its end, since it cannot be stopped; gives whether one wanted it stopped.

    Who insists, by cancelling twice, is let go.
    """
    job = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        await asyncio.wait([job])
    except asyncio.CancelledError:
        await asyncio.wait([job])
        return job, True
    return job, False


def _name(factory: Factory) -> str:
    return getattr(factory, "__qualname__", repr(factory))
