"""validation: arguments are checked, and turned into the annotated types, by pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from qtasks.errors import TaskRejected
from qtasks.markers import hookimpl
from qtasks.schemas import ArgInfo, TaskExecSchema

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ValidationPlugin:
    """Rejects a task whose arguments do not fit the annotations of its function, with a readable message.

    It runs first on `task_executor_args_replace`. Parameters that were not given are left to later plugins,
    and so are those whose annotation pydantic does not know.
    """

    def __init__(self) -> None:
        self._plans: dict[Callable[..., Any], _Plan] = {}

    @hookimpl(tryfirst=True)
    def task_executor_args_replace(
        self,
        task_func: TaskExecSchema,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        args_info: tuple[ArgInfo, ...],
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Raises `TaskRejected` where an argument does not fit."""
        plan = self._plans.get(task_func.func)
        if plan is None:
            plan = self._plans[task_func.func] = _plan(args_info)
        problems = _surplus(plan, args, kw)
        if not problems and not (plan.adapters and (args or kw)):
            return None
        adapters = plan.adapters
        checked = [
            _check(adapters, name, value, problems)
            for name, value in zip(plan.positional, args, strict=False)
        ]
        named = {name: _check(adapters, name, value, problems) for name, value in kw.items()}
        if problems:
            raise TaskRejected(f"arguments of {task_func.name!r}: " + "; ".join(problems))
        return (*checked, *args[len(checked) :]), named


class _Plan(NamedTuple):
    """What is known of a function's parameters."""

    adapters: dict[str, TypeAdapter[Any]]
    positional: tuple[str, ...]
    most: float
    """How many positional arguments it takes."""
    named: frozenset[str] | None
    """The names that it takes; `None` where it takes any."""


def _plan(args_info: tuple[ArgInfo, ...]) -> _Plan:
    kinds = {info.kind for info in args_info}
    positional = tuple(info.name for info in args_info if info.kind in _POSITIONAL)
    # Without a signature that can be read, anything goes.
    open_ended = not args_info
    most = inf if open_ended or inspect.Parameter.VAR_POSITIONAL in kinds else len(positional)
    takes_any = open_ended or inspect.Parameter.VAR_KEYWORD in kinds
    named = frozenset(info.name for info in args_info if info.kind is not inspect.Parameter.POSITIONAL_ONLY)
    return _Plan(_adapters(args_info), positional, most, None if takes_any else named)


def _adapters(args_info: tuple[ArgInfo, ...]) -> dict[str, TypeAdapter[Any]]:
    adapters = {}
    for info in args_info:
        if info.annotation in (inspect.Parameter.empty, Any) or info.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        try:
            adapters[info.name] = TypeAdapter(info.annotation)
        except (PydanticSchemaGenerationError, PydanticUserError, NameError):
            continue  # not a type of data: a session, a client, something a plugin injects
    return adapters


def _check(adapters: dict[str, TypeAdapter[Any]], name: str, value: Any, problems: list[str]) -> Any:
    adapter = adapters.get(name)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problems.extend(
            f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg']}, got {type(e['input']).__name__}"
            for e in error.errors(include_url=False)
        )
        return value


def _surplus(plan: _Plan, args: tuple[Any, ...], kw: dict[str, Any]) -> list[str]:
    problems = []
    if len(args) > plan.most:
        problems.append(f"takes {len(plan.positional)} positional arguments, got {len(args)}")
    if kw:
        if plan.named is not None:
            problems.extend(f"unknown argument {name!r}" for name in kw if name not in plan.named)
        problems.extend(f"{name}: given twice" for name in plan.positional[: len(args)] if name in kw)
    return problems
