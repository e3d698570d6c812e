"""validation: arguments are checked, and turned into the annotated types, by pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

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
        self._adapters: dict[Callable[..., Any], dict[str, TypeAdapter[Any]]] = {}

    @hookimpl(tryfirst=True)
    def task_executor_args_replace(
        self,
        task_func: TaskExecSchema,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        args_info: tuple[ArgInfo, ...],
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Raises `TaskRejected` where an argument does not fit."""
        adapters = self._adapters.get(task_func.func)
        if adapters is None:
            adapters = self._adapters[task_func.func] = _adapters(args_info)
        problems = _surplus(args_info, args, kw) if args_info else []
        if not adapters and not problems:
            return None
        positional = [info.name for info in args_info if info.kind in _POSITIONAL]
        checked = [
            _check(adapters, name, value, problems) for name, value in zip(positional, args, strict=False)
        ]
        named = {name: _check(adapters, name, value, problems) for name, value in kw.items()}
        if problems:
            raise TaskRejected(f"arguments of {task_func.name!r}: " + "; ".join(problems))
        return (*checked, *args[len(checked) :]), named


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


def _surplus(args_info: tuple[ArgInfo, ...], args: tuple[Any, ...], kw: dict[str, Any]) -> list[str]:
    kinds = {info.kind for info in args_info}
    positional = [info.name for info in args_info if info.kind in _POSITIONAL]
    problems = []
    if len(args) > len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        problems.append(f"takes {len(positional)} positional arguments, got {len(args)}")
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        known = {info.name for info in args_info if info.kind is not inspect.Parameter.POSITIONAL_ONLY}
        problems.extend(f"unknown argument {name!r}" for name in kw if name not in known)
    problems.extend(f"{name}: given twice" for name in positional[: len(args)] if name in kw)
    return problems
