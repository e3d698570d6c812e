"""unique: at most one waiting or running task per key; who asks for a second one gets the first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from qtasks import TaskExecSchema, hookimpl
from qtasks.plugins.keys import digest

if TYPE_CHECKING:
    from qtasks import GlobalConfig, QueueTasks

NAME: Final = "unique"
"""Under which a declaration has its `Unique` in `extra`, and the global config the windows."""
_PREFIX: Final = "unique:"


@dataclass(frozen=True, slots=True)
class Unique:
    """What a task declares: `@app.task(extra={"unique": Unique()})`.

    Parameters:
        key: called with the task's arguments; tasks of one name for which it gives equal JSON values exclude each
            other. The default is all arguments, by the names of the function's parameters.
        window: seconds for which a key is held at most, counted from the first task that took it. After that
            another task may have it, whatever has become of the first. `None` holds it as long as its task is open.

    Raises:
        ValueError: the window is not above 0.
    """

    qtasks_plugin: ClassVar[str] = NAME

    key: Callable[..., Any] | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and not 0 < self.window < float("inf"):
            raise ValueError(f"window is a finite number of seconds above 0, not {self.window!r}")


class UniquePlugin:
    """Gives tasks that declare `Unique` their `unique_key`, which every storage checks in the step that adds them.

    The key holds a digest of the arguments, never the arguments. A caller's own `unique_key` is left as it is.
    """

    qtasks_name = "unique"

    @hookimpl(trylast=True)
    async def qtasks_add_task_before_broker(
        self,
        qtasks: QueueTasks,
        uuid: UUID,
        task_name: str,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        extra: dict[str, Any],
    ) -> dict[str, Any] | None:
        """Runs last, so that it sees the arguments as they will be, and still in the clear."""
        declared: TaskExecSchema | None = qtasks.tasks.get(task_name)
        unique = None if declared is None else declared.extra.get(NAME)
        # A replayed task brings along the key that it had; that of a window is over by now.
        if (
            unique is None
            or declared is None
            or not str(extra.get("unique_key", _PREFIX)).startswith(_PREFIX)
        ):
            return None
        if not isinstance(unique, Unique):
            raise TypeError(f"task {task_name!r}: extra['unique'] is a Unique(...), not {unique!r}")
        value = unique.key(*args, **kw) if unique.key is not None else _by_name(declared, args, kw)
        key = f"{_PREFIX}{task_name}:{digest(value, qtasks.config)}"
        if unique.window is not None:
            key += f":{await _window(qtasks.global_config, key, str(uuid), unique.window)}"
        return {"extra": {**extra, "unique_key": key}}


async def _window(config: GlobalConfig, key: str, mine: str, seconds: float) -> str:
    """The name of the window that the key is in. All who ask during it get the same; the store's clock ends it."""
    while True:
        found: str | None = await config.get(NAME, key)
        if found is not None:
            return found
        if await config.set(NAME, key, mine, ttl=seconds, if_version=0) is not None:
            return mine


def _by_name(declared: TaskExecSchema, args: tuple[Any, ...], kw: dict[str, Any]) -> list[Any]:
    """The arguments such that `f(1)` and `f(a=1)` are the same call."""
    kinds = [info.kind for info in declared.args_info]
    # They have no names: `**kw` of the same function may have a key that is called the same.
    nameless = kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    positional = [
        info.name for info in declared.args_info if info.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    named = dict(zip(positional, args[nameless:], strict=False))
    return [[*args[:nameless], *args[nameless + len(named) :]], {**kw, **named}]
