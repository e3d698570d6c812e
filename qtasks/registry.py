"""What is declared: tasks by name, `Router`, and the typed handle that a declaration gives back."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from qtasks.calls import AddOptions, TaskAdder
from qtasks.context import TaskContext
from qtasks.errors import DuplicateTaskError, InvalidNameError, TaskDeclarationError, TaskNotRegisteredError
from qtasks.schemas import ArgInfo, Task, TaskExecSchema

P = ParamSpec("P")
R = TypeVar("R")

TASK_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")

_DECLARATION = TypeAdapter(TaskExecSchema)


def check_name(name: str, what: str, pattern: re.Pattern[str] = NAME) -> str:
    """The name itself.

    Raises:
        InvalidNameError: it is outside its grammar, which the message gives.
    """
    try:
        _check_match(pattern.pattern, name)
    except (TypeError, ValueError):
        raise InvalidNameError(f"{what} {name!r} is not valid: it must match {pattern.pattern}") from None
    return name


# It raises, so that only names are kept: anything else may be of any size.
@lru_cache(maxsize=1024)
def _check_match(pattern: str, name: str) -> None:
    if re.fullmatch(pattern, name) is None:
        raise ValueError


def declare(func: Callable[..., Any], name: str | None, options: Mapping[str, Any]) -> TaskExecSchema:
    """Checks a declaration.

    Raises:
        TaskDeclarationError: an option is unknown or has a wrong value; the message names task and option.
    """
    if not callable(func):
        raise TaskDeclarationError(f"@task decorates a function, not {func!r}")
    name = name if name is not None else _default_name(func)
    if TASK_NAME.fullmatch(name) is None:
        raise TaskDeclarationError(f"task name {name!r} is not valid: it must match {TASK_NAME.pattern}")
    unknown = options.keys() - TaskExecSchema.__slots__
    if unknown:
        raise TaskDeclarationError(
            f"task {name!r}: unknown option {', '.join(sorted(unknown))}; "
            f"the options are {', '.join(sorted(set(TaskExecSchema.__slots__) - {'func', 'kind', 'args_info'}))}"
        )
    kind = _kind(func)
    try:
        declared = _DECLARATION.validate_python(
            {
                "description": inspect.cleandoc(func.__doc__ or ""),
                **options,
                "name": name,
                "func": func,
                "kind": kind,
            }
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TaskDeclarationError(f"task {name!r}: {problems}") from error
    if declared.executor == "process" and kind != "function":
        raise TaskDeclarationError(
            f"task {name!r}: executor='process' is for plain functions, this is a {kind}"
        )
    if declared.stream and kind not in ("generator", "async_generator"):
        raise TaskDeclarationError(f"task {name!r}: stream=True is for generators, this is a {kind}")
    if declared.executor == "process" and declared.echo:
        raise TaskDeclarationError(f"task {name!r}: echo=True has no meaning in another process")
    declared.args_info = _args_info(func, skip_first=declared.echo)
    return declared


def _default_name(func: Callable[..., Any]) -> str:
    """`module.qualname`. A script is named as a worker that imports it names it, not `__main__`."""
    module = func.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name.removesuffix(".__main__")
        elif file is not None:
            module = Path(file).stem
    return f"{module}.{func.__qualname__}".replace(".<locals>.", ".").replace("<", "").replace(">", "")


def _kind(func: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(func):
        return "async_generator"
    if inspect.isgeneratorfunction(func):
        return "generator"
    if inspect.iscoroutinefunction(func):
        return "coroutine"
    return "function"


def _args_info(func: Callable[..., Any], skip_first: bool) -> tuple[ArgInfo, ...]:
    try:
        signature = inspect.signature(func, eval_str=True)
    except (NameError, TypeError, ValueError):
        # An annotation that cannot be evaluated is no reason not to run the function.
        try:
            signature = inspect.signature(func)
        except (TypeError, ValueError):
            return ()
    infos = tuple(
        ArgInfo(parameter.name, parameter.annotation, parameter.kind, parameter.default)
        for parameter in signature.parameters.values()
    )
    return infos[1:] if skip_first else infos


class TaskOptions(TypedDict, total=False):
    """What `@task` may be told beside `name` and `echo`, for editors and type checkers; `TaskExecSchema` says what
    each of them is."""

    queue: str
    priority: int
    retry: int
    retry_on_exc: tuple[type[BaseException], ...]
    retry_delay: float
    retry_backoff: float
    retry_max_delay: float
    retry_jitter: float
    max_time: float | None
    idempotent: bool
    decode: Callable[[Any], Any] | None
    tags: tuple[str, ...]
    description: str
    generate_handler: Callable[[Any], Any] | None
    middlewares_before: tuple[Callable[..., Any], ...]
    middlewares_after: tuple[Callable[..., Any], ...]
    executor: Literal["thread", "process"]
    stream: bool
    result_ttl: float | None
    extra: dict[str, Any]


class ScheduleOptions(TypedDict, total=False):
    """What a schedule may be told; `qtasks.plugins.schedule.Cron` says what each of them is."""

    key: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    catch_up: Literal["skip", "one", "all"]
    most: int


class TaskFunction(Generic[P, R]):
    """A declared task. Calling it calls the function; `add_task` queues it.

    Attributes:
        declaration: what was declared.
    """

    def __init__(self, func: Callable[..., R], declaration: TaskExecSchema, owner: Declares) -> None:
        self.func = func
        self.declaration = declaration
        self._owner = owner
        self.__doc__ = func.__doc__
        self.__name__ = getattr(func, "__name__", declaration.name)
        self.__module__ = func.__module__
        self.__wrapped__ = func

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return self.declaration.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"

    async def add_task(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Queues the task with these arguments. For queue, delay and the like: `options(...).add_task(...)`."""
        return await self._owner.adder().add(self.name, args, kwargs, AddOptions())

    def options(
        self, *, queue: str | None = None, priority: int | None = None, delay: float | None = None,
        eta: Any = None, uuid: UUID | None = None, timeout: float | None = None,
        extra: Mapping[str, Any] | None = None, unique_key: str | None = None, trace: bool | None = None,
    ) -> BoundTask[P]:  # fmt: skip
        """The task with options for adding it; they are those of `QueueTasks.add_task`."""
        options = AddOptions(queue, priority, delay, eta, uuid, timeout, extra, unique_key, trace)
        return BoundTask(self.name, self._owner, options)


class ContextTaskFunction(TaskFunction[P, R]):
    """A task declared with `echo=True`: whoever adds it leaves the context out, whoever calls it gives one."""

    def __call__(self, context: TaskContext, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        return self.func(context, *args, **kwargs)


class BoundTask(Generic[P]):
    """A declared task with options for adding it."""

    def __init__(self, name: str, owner: Declares, options: AddOptions) -> None:
        self._name = name
        self._owner = owner
        self._options = options

    async def add_task(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Queues the task with these arguments and the options."""
        return await self._owner.adder().add(self._name, args, kwargs, self._options)


class Declares:
    """Something on which tasks can be declared: an application or a router."""

    def __init__(self) -> None:
        self.tasks = TaskRegistry()

    def adder(self) -> TaskAdder:
        """What queues the tasks declared here."""
        raise NotImplementedError

    @overload
    def task(self, func: Callable[P, R], /) -> TaskFunction[P, R]: ...

    @overload
    def task(
        self, /, *, name: str | None = None, echo: Literal[False] = False, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...

    @overload
    def task(
        self, /, *, name: str | None = None, echo: Literal[True], **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[Concatenate[TaskContext, P], R]], ContextTaskFunction[P, R]]: ...

    def task(
        self, func: Callable[..., Any] | None = None, /, *, name: str | None = None, echo: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        """Declares a function as a task: `@app.task` or `@app.task(name=…, retry=3, …)`.

        Parameters:
            name: its name; the default is `module.qualname`.
            echo: whether the first argument is the `TaskContext`.
            options: the other fields of `TaskExecSchema`.

        Raises:
            TaskDeclarationError: an option is wrong.
            DuplicateTaskError: the name is taken.
        """
        kind = ContextTaskFunction if echo else TaskFunction

        def decorate(function: Callable[..., Any]) -> TaskFunction[Any, Any]:
            declaration = declare(function, name, {"echo": echo, **options})
            return self.tasks.add(kind(function, declaration, self))

        return decorate if func is None else decorate(func)

    def cron(
        self, expression: str, /, *, tz: str = "UTC", **options: Unpack[ScheduleOptions]
    ) -> Callable[[Callable[P, R] | TaskFunction[P, R]], TaskFunction[P, R]]:
        """Adds a task at the times of a cron expression: `@app.cron("*/5 * * * *")` over a function, or over
        `@app.task(…)`. The plugin `schedule` does it.

        Parameters:
            expression: five fields, or six with seconds first.
            tz: the IANA name of the time zone that it is read in.
            options: the other fields of `qtasks.plugins.schedule.Cron`.

        Raises:
            TaskDeclarationError: the expression, the zone or an option is not valid.
        """
        from qtasks.plugins.schedule import Cron

        return self._on_schedule(Cron(expression=expression, tz=tz, **options))

    def every(
        self, seconds: float, /, **options: Unpack[ScheduleOptions]
    ) -> Callable[[Callable[P, R] | TaskFunction[P, R]], TaskFunction[P, R]]:
        """As `cron`, at times that lie so many seconds apart, counted from 1970-01-01 UTC."""
        from qtasks.plugins.schedule import Every

        return self._on_schedule(Every(seconds=seconds, **options))

    def _on_schedule(
        self, schedule: Any
    ) -> Callable[[Callable[P, R] | TaskFunction[P, R]], TaskFunction[P, R]]:
        def decorate(function: Callable[P, R] | TaskFunction[P, R]) -> TaskFunction[P, R]:
            task = function if isinstance(function, TaskFunction) else self.task(function)
            earlier = task.declaration.extra.get("schedule", ())
            if schedule.key in {each.key for each in earlier}:
                raise TaskDeclarationError(
                    f"task {task.name!r} has a schedule already: give each a key of its own (key={schedule.key!r})"
                )
            task.declaration.extra["schedule"] = (*earlier, schedule)
            self.scheduled()
            return task

        return decorate

    def scheduled(self) -> None:
        """Called when a task has got a schedule."""


class Router(Declares):
    """Tasks declared without an application: `app.include_router(router)` takes them in."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix
        self._adder: TaskAdder | None = None

    def adder(self) -> TaskAdder:
        if self._adder is None:
            raise TaskNotRegisteredError(
                "this router is not included in an application: app.include_router(router)"
            )
        return self._adder

    def included(self, adder: TaskAdder) -> None:
        """Called by the application that takes the tasks in."""
        self._adder = adder


class TaskRegistry(Mapping[str, TaskExecSchema]):
    """Declared tasks by name. Nothing from a store is ever resolved to a function but by look-up here."""

    def __init__(self) -> None:
        self._functions: dict[str, TaskFunction[Any, Any]] = {}
        self._declared: dict[str, TaskExecSchema] = {}

    def __getitem__(self, name: str) -> TaskExecSchema:
        try:
            return self._declared[name]
        except KeyError:
            raise TaskNotRegisteredError(f"no task is registered as {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._declared  # Mapping's own takes a KeyError only for a no

    def get(self, name: str, default: Any = None) -> Any:
        return self._declared.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def add(self, function: TaskFunction[P, R]) -> TaskFunction[P, R]:
        """Registers a task.

        Raises:
            DuplicateTaskError: the name is taken.
        """
        name = function.name
        if name in self._declared:
            other = self._declared[name].func
            raise DuplicateTaskError(
                f"task {name!r} is declared twice: by {_where(other)} and by {_where(function.func)}"
            )
        self._functions[name] = function
        self._declared[name] = function.declaration
        return function

    def include(self, router: Router) -> None:
        """Takes in the tasks of a router, all or none."""
        taken = {name for name in router.tasks if router.prefix + name in self._declared}
        if taken:
            raise DuplicateTaskError(f"the router declares names that are taken: {', '.join(sorted(taken))}")
        for name, function in router.tasks._functions.items():
            # By the name in the router: it may be in another application already.
            function.declaration = replace(function.declaration, name=router.prefix + name)
            self.add(function)

    def functions(self) -> list[TaskFunction[Any, Any]]:
        """The declared tasks."""
        return list(self._functions.values())


def _where(func: Callable[..., Any]) -> str:
    return f"{getattr(func, '__module__', '?')}.{getattr(func, '__qualname__', func)}"
