"""Values at rest: the base of plugins that store the values of a task in another form than they are used in.

`encryption` and `compression` are two of them. One of your own (for large values kept elsewhere, say)
implements `shut` and `open`, and calls the methods below from its triggers.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeAlias
from uuid import UUID

from qtasks import (
    QTasksError,
    Storage,
    Task,
    TaskStatusCancelSchema,
    TaskStatusEnum,
    TaskStatusErrorSchema,
    TaskStatusNewSchema,
    TaskStatusSuccessSchema,
)

log = logging.getLogger("qtasks.plugins")

Ended: TypeAlias = TaskStatusSuccessSchema | TaskStatusErrorSchema | TaskStatusCancelSchema


class AtRestError(QTasksError):
    """A stored value cannot be opened. It is left in the store as it is."""


class Place(NamedTuple):
    """Where a value lies: the name of the application, the task, and the field: `args`, `kwargs`, `returning`,
    `item` (of a stream), `progress`, `traceback` or `cancel_reason`."""

    app: str
    uuid: UUID
    field: str


class AtRest(ABC):
    """Shuts values on their way into the store, and opens them on their way out.

    A shut value is a text that begins with `mark`. It takes the place of a result, of an item, of the only
    positional argument, and of the only keyword argument (named `mark`).
    """

    mark: ClassVar[str]

    @abstractmethod
    def shut(self, place: Place, value: Any) -> str | None:
        """The value as it is stored; `None` stores it as it is."""

    @abstractmethod
    def open(self, place: Place, text: str) -> Any:
        """The value that `shut` was given.

        Raises:
            AtRestError: it cannot be opened.
        """

    def bare(self, place: Place) -> None:  # noqa: B027 - most plugins take it as it is
        """Is told of a value that is read and not shut. Raises `AtRestError` where that must not be."""

    # --- Into the store -------------------------------------------------------------------------

    def shut_new(self, storage: Storage, uuid: UUID, model: TaskStatusNewSchema) -> TaskStatusNewSchema:
        """For `storage_add`: the arguments."""
        return replace(model, **self.shut_fields(storage, uuid, {"args": model.args, "kwargs": model.kwargs}))

    def shut_fields(self, storage: Storage, uuid: UUID, fields: Mapping[str, Any]) -> dict[str, Any]:
        """For `storage_update`: those of its fields that are stored in another form."""
        changed: dict[str, Any] = {}
        for name in ("args", "kwargs", "returning", "progress"):
            value = fields.get(name)
            if value is None:
                continue
            if name == "returning" and isinstance(value, list):
                # A batch of a stream: each item is stored, and read, for itself.
                shut = [self.shut(Place(storage.app_name, uuid, "item"), item) for item in value]
                changed[name] = [old if new is None else new for old, new in zip(value, shut, strict=True)]
            elif (text := self.shut(Place(storage.app_name, uuid, name), value)) is not None:
                changed[name] = self._placed(name, text)
        return changed

    def _placed(self, name: str, text: str) -> Any:
        match name:
            case "args":
                return (text,)
            case "kwargs":
                return {self.mark: text}
        return text

    def shut_end(self, storage: Storage, uuid: UUID, model: Ended) -> Ended:
        """For `broker_remove_finished_task`: the result. The arguments in it are those at rest already."""
        if not isinstance(model, TaskStatusSuccessSchema):
            return model
        text = self.shut(Place(storage.app_name, uuid, "returning"), model.returning)
        return model if text is None else replace(model, returning=text)

    # --- Out of the store -----------------------------------------------------------------------

    def is_shut(self, value: object) -> bool:
        """Whether a stored value is in the form that `shut` gives it."""
        return isinstance(value, str) and value.startswith(self.mark)

    def open_task(self, storage: Storage, task: Task) -> Task:
        """For `storage_get`: the task with its values opened.

        Raises:
            AtRestError: one of them cannot be.
        """
        app, uuid = storage.app_name, task.uuid
        changed: dict[str, Any] = {}
        args = task.args[0] if len(task.args) == 1 else None
        if self.is_shut(args):
            changed["args"] = tuple(self.open(Place(app, uuid, "args"), str(args)))
        else:
            self.bare(Place(app, uuid, "args"))
        kwargs = task.kwargs.get(self.mark) if len(task.kwargs) == 1 else None
        if self.is_shut(kwargs):
            changed["kwargs"] = self.open(Place(app, uuid, "kwargs"), str(kwargs))
        else:
            self.bare(Place(app, uuid, "kwargs"))
        if task.progress is not None:
            changed["progress"] = self._opened(Place(app, uuid, "progress"), task.progress)
        if isinstance(task.returning, list):
            place = Place(app, uuid, "item")
            changed["returning"] = [self._opened(place, item) for item in task.returning]
        elif task.returning is not None or task.status is TaskStatusEnum.SUCCESS:
            changed["returning"] = self._opened(Place(app, uuid, "returning"), task.returning)
        return replace(task, **changed) if changed else task

    def _opened(self, place: Place, value: Any) -> Any:
        if self.is_shut(value):
            return self.open(place, value)
        self.bare(place)
        return value

    def open_page(self, storage: Storage, tasks: Sequence[Task]) -> list[Task]:
        """For `storage_get_all`: as `open_task`. What cannot be opened stays shut, and is logged: one task must
        not hide the others from whoever lists them."""
        opened, failures = [], []
        for task in tasks:
            try:
                opened.append(self.open_task(storage, task))
            except AtRestError as error:
                failures.append(error)
                opened.append(task)
        if failures:
            log.warning(
                "%d of %d tasks are listed as they are stored: %s", len(failures), len(tasks), failures[0]
            )
        return opened
