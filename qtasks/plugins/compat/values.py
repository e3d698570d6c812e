"""Schemas and arguments in the form in which QTasks 1.x hands them to a plugin, and the way back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from types import ModuleType
from typing import Any, ClassVar, Final, get_origin
from uuid import UUID

from qtasks import (
    ArgInfo,
    Broker,
    QueueTasks,
    Storage,
    Task,
    TaskContext,
    TaskExecSchema,
    TaskExecutor,
    TaskPrioritySchema,
    TaskStatusCancelSchema,
    TaskStatusErrorSchema,
    TaskStatusNewSchema,
    TaskStatusProcessSchema,
    TaskStatusSuccessSchema,
    decode,
    encode,
)

STATUSES: Final[tuple[type, ...]] = (
    TaskStatusNewSchema, TaskStatusProcessSchema, TaskStatusSuccessSchema, TaskStatusErrorSchema,
    TaskStatusCancelSchema,
)  # fmt: skip
ENDS: Final[dict[str, type]] = {
    "success": TaskStatusSuccessSchema, "error": TaskStatusErrorSchema, "cancel": TaskStatusCancelSchema,
}  # fmt: skip
TEXTS: Final = ("args", "kwargs", "returning")
"""Fields of a status schema that are JSON text in 1.x."""


class BasePlugin:
    """The base class of plugins in QTasks 1.x, for plugins that import it.

    Attributes:
        name: the name of the plugin.
        plugin_cache: a place of its own.
    """

    def __init__(self, name: str | None = None, *_args: Any, **_kwargs: Any) -> None:
        self.name = name
        self.plugin_cache: dict[str, Any] = {}

    def __class_getitem__(cls, _item: Any) -> type[BasePlugin]:
        return cls  # it is generic in 1.x


@dataclass(slots=True, kw_only=True)
class ArgMeta:
    """One argument of a call, as in 1.x."""

    name: str
    value: Any
    origin: Any
    raw_type: Any
    annotation: Any
    is_kwarg: bool
    index: int | None = None
    key: str | None = None


class BoundExecutor:
    """The task executor of one task, which it is in 1.x; all else is that of the application."""

    def __init__(
        self, executor: TaskExecutor, task_func: TaskExecSchema, task_broker: TaskPrioritySchema
    ) -> None:
        self._executor = executor
        self.task_func = task_func
        self.task_broker = task_broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


class BoundBroker:
    """The broker with the calls of 1.x that plugins make; all else is that of the application."""

    def __init__(self, broker: Broker, app: QueueTasks) -> None:
        self._broker = broker
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def get(self, uuid: UUID | str) -> Any:
        """The task, or `None`."""
        task = await self._app.get(UUID(str(uuid)))
        return None if task is None else to_old(task)

    async def add(
        self, task_name: str, priority: int = 0, extra: Mapping[str, Any] | None = None, args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Adds a task; what 1.x makes attributes of it is `extra`."""
        task = await self._app.add_task(task_name, priority=priority, extra=extra, args=args, kwargs=kwargs)
        return to_old(task)


class BoundStorage:
    """The storage with the calls of 1.x that plugins make; all else is that of the application."""

    def __init__(self, storage: Storage, app: QueueTasks) -> None:
        self._storage = storage
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def get(self, uuid: UUID | str) -> Any:
        """The task, or `None`."""
        return await BoundBroker(self._app.broker, self._app).get(uuid)

    async def get_all(self) -> list[Any]:
        """All tasks."""
        tasks: list[Any] = []
        cursor: str | None = None
        while True:
            page, cursor = await self._app.get_all(cursor)
            tasks.extend(to_old(task) for task in page)
            if cursor is None:
                return tasks


OPEN: Final[dict[type, Any]] = {
    kind: type(kind.__name__, (kind,), {"__doc__": kind.__doc__}) for kind in (*STATUSES, Task)
}
"""The schemas as in 1.x, where a plugin may set attributes that they do not have."""


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.init]


def to_old(value: Any) -> Any:
    """A copy of a schema that a plugin may do with as it likes: what lies in `extra` are attributes, and in a status
    schema arguments and result are JSON text. Other values are given as they are."""
    kind = type(value)
    if kind is TaskPrioritySchema:
        return replace(value, args=list(value.args), kwargs=dict(value.kwargs))
    if kind is not Task and kind not in STATUSES:
        return value
    given = {name: getattr(value, name) for name in _names(kind)}
    if kind in STATUSES:
        given |= {name: encode(given[name]).decode() for name in TEXTS if name in given}
        given["status"] = value.status.value
    given["extra"] = dict(value.extra)
    old = OPEN[kind](**given)
    for name, attached in value.extra.items():
        # In 1.x the retries that are left to one task are among what is attached to it.
        if name not in given or (kind is Task and name == "retry"):
            setattr(old, name, attached)
    return old


def from_old(old: Any, value: Any, *, fresh: bool = False) -> Any:
    """What became of `to_old(value)`, as a schema again; attributes that it does not have are in `extra`.

    Parameters:
        fresh: whether the plugin made it, instead of changing what it was given: what it left at the default of the
            schema is then that of `value`.
    """
    kind = type(value)
    if kind is TaskPrioritySchema:
        changes = {name: getattr(old, name, getattr(value, name)) for name in _names(kind)}
        return replace(value, **{**changes, "args": tuple(changes["args"])})
    if kind is not Task and kind not in STATUSES:
        return old
    before = to_old(value)
    if kind in ENDS.values():
        kind = ENDS.get(str(getattr(old, "status", "")), kind)
    changes = {}
    for field in fields(kind):
        name = field.name
        if not field.init or (name == "status" and kind in STATUSES) or not hasattr(old, name):
            continue
        new = getattr(old, name)
        if hasattr(before, name) and (new == getattr(before, name) or (fresh and new == _default(field))):
            changes[name] = getattr(value, name)
        else:
            changes[name] = _from_text(new) if kind in STATUSES and name in TEXTS else new
    attached = {name: new for name, new in getattr(old, "__dict__", {}).items() if name not in _names(kind)}
    changes["extra"] = {**changes.get("extra", {}), **attached}
    changes["args"] = tuple(changes.get("args", value.args))
    return kind(**{"task_name": value.task_name, **changes})


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _from_text(value: Any) -> Any:
    """JSON text as a value; any other text is a text."""
    if not isinstance(value, str):
        return value
    try:
        return decode(value)
    except ValueError:
        return value


def text_of(value: Any) -> str:
    """A result as JSON text."""
    return encode(value).decode()


def value_of(text: Any) -> Any:
    """The result that a plugin gave, as JSON text or as a value."""
    return _from_text(text)


def arg_metas(args_info: Sequence[ArgInfo]) -> list[ArgMeta]:
    """The parameters of a function as in 1.x: those without a default by their index, the others by their name."""
    empty = inspect.Parameter.empty
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [info for info in args_info if info.default is empty and info.kind in positional]
    return [
        *(_meta(info, None, index=index) for index, info in enumerate(required)),
        *(_meta(info, info.default, key=info.name) for info in args_info if info.default is not empty),
    ]


def _meta(info: ArgInfo, value: Any, *, index: int | None = None, key: str | None = None) -> ArgMeta:
    annotation = None if info.annotation is inspect.Parameter.empty else info.annotation
    origin = get_origin(annotation)
    return ArgMeta(
        name=info.name, value=value, origin=origin, raw_type=origin or annotation, annotation=annotation,
        is_kwarg=key is not None, index=index, key=key,
    )  # fmt: skip


class _Generic:
    """Stands for a component of 1.x in an annotation: `BaseBroker[Literal[True]]`."""

    def __class_getitem__(cls, _item: Any) -> type[_Generic]:
        return cls


class _Imports:
    names: ClassVar[dict[str, dict[str, Any]]] = {
        "qtasks.plugins.base": {"BasePlugin": BasePlugin},
        "qtasks.schemas.argmeta": {"ArgMeta": ArgMeta},
        "qtasks.schemas.task": {"Task": OPEN[Task]},
        "qtasks.schemas.task_exec": {
            "TaskExecSchema": TaskExecSchema, "TaskPrioritySchema": TaskPrioritySchema,
        },
        "qtasks.schemas.task_status": {kind.__name__: OPEN[kind] for kind in STATUSES},
        "qtasks.brokers.base": {"BaseBroker": _Generic},
        "qtasks.storages.base": {"BaseStorage": _Generic},
        "qtasks.workers.base": {"BaseWorker": _Generic},
        "qtasks.executors.base": {"BaseTaskExecutor": _Generic},
        "qtasks.registries.async_task_decorator": {"AsyncTask": TaskContext},
        "qtasks.registries.sync_task_decorator": {"SyncTask": TaskContext},
    }  # fmt: skip


def install_imports() -> None:
    """Makes the `import` statements work that plugins of 1.x have: the base class, the schemas, and the components
    that they name in annotations. Call it before such a plugin is imported."""
    for name, values in _Imports.names.items():
        module = ModuleType(name, "What a plugin of QTasks 1.x imports from here.")
        vars(module).update(values)
        sys.modules.setdefault(name, module)
        parent = name.rpartition(".")[0]
        if parent not in sys.modules and parent not in ("qtasks.plugins", "qtasks.schemas"):
            sys.modules[parent] = ModuleType(parent)
