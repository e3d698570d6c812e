"""Hypothesis strategies for what a plugin is given: the parameters of a trigger, tasks, models, JSON.

The parts of one example belong together: the uuid, the task, its declaration and the models are of one task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from hypothesis import strategies as st

from qtasks import (
    QueueTasks,
    Task,
    TaskExecSchema,
    TaskPluginTriggerError,
    TaskPrioritySchema,
    TaskStatusCancelSchema,
    TaskStatusEnum,
    TaskStatusErrorSchema,
    TaskStatusNewSchema,
    TaskStatusProcessSchema,
    TaskStatusSuccessSchema,
)
from qtasks.inmemory import START
from qtasks.schemas import UNSET

T = TypeVar("T")

ENOUGH = 4
"""Items of a container at most: more show nothing new, and shrink slowly."""

COMPONENTS = {
    "QueueTasks": lambda app: app,
    "Broker": lambda app: app.broker,
    "GlobalConfig": lambda app: app.global_config,
    "Starter": lambda app: app.starter,
    "Stats": lambda app: app.stats,
    "Storage": lambda app: app.storage,
    "TaskExecutor": lambda app: app.task_executor,
    "Worker": lambda app: app.worker,
    "Worker | None": lambda app: app.worker,
}


def json_values() -> st.SearchStrategy[Any]:
    """Values that JSON has, nested a little."""
    return _JSON


def arguments() -> st.SearchStrategy[tuple[Any, ...]]:
    """Positional arguments of a task."""
    return _ARGS


def keyword_arguments() -> st.SearchStrategy[dict[str, Any]]:
    """Keyword arguments of a task."""
    return _KW


def extras() -> st.SearchStrategy[dict[str, Any]]:
    """What callers and other plugins attach to a task."""
    return _EXTRA


# Made once: making a strategy, and checking it, takes longer than drawing from it.
_KEYS = st.text("abcxyz_ ä", min_size=1, max_size=6)
_TEXT = st.text(max_size=12)
_OTHER = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)  # fmt: skip
# Plugins look for text most of all, so every other plain value is one.
_PLAIN = st.booleans().flatmap(lambda text: _TEXT if text else _OTHER)
_NESTED = st.lists(_PLAIN, max_size=ENOUGH) | st.dictionaries(_KEYS, _PLAIN, max_size=ENOUGH)
_DEEP = st.lists(_NESTED, max_size=2) | st.dictionaries(_KEYS, _NESTED, max_size=2)
_JSON = _PLAIN | _NESTED | _DEEP
_ARGS = st.lists(_JSON, max_size=ENOUGH).map(tuple)
_KW = st.dictionaries(st.sampled_from(("a", "b", "to", "text")), _JSON, max_size=ENOUGH)
_EXTRA = st.dictionaries(st.sampled_from(("kit", "kit.other", "note")), _PLAIN | _NESTED, max_size=3)
_UUIDS = st.uuids()
_MOMENTS = st.integers(0, 1000).map(lambda n: START + n)
_QUEUES = st.sampled_from(("default", "mail"))
_PRIORITIES = st.integers(-128, 127)
_ATTEMPTS = st.integers(0, 3)
_STATUSES = st.sampled_from(TaskStatusEnum)
_OUTCOMES = st.sampled_from(("success", "error", "cancel"))
_ERRORS = st.sampled_from((ValueError, ConnectionError, TimeoutError)).map(lambda kind: kind("no luck"))
_BOOLEANS = st.booleans()
_NAMES = st.sampled_from(("kit", "rates"))
_PATTERNS = st.sampled_from(("*", "kit:*", "rates:a?"))
_SEVERAL = st.lists(_JSON, max_size=ENOUGH)
_SEVERAL_UUIDS = st.lists(_UUIDS, max_size=3, unique=True)


def trigger_values(
    trigger: str,
    app: QueueTasks,
    *,
    tasks: Sequence[str] = (),
    more: Mapping[str, st.SearchStrategy[Any]] | None = None,
) -> st.SearchStrategy[dict[str, Any]]:
    """The values of all parameters of a trigger, as a component might fire it.

    Parameters:
        trigger: its name; a third party's own is fine where `more` covers what is not known here.
        app: whose components are given, and one of whose declared tasks it is about.
        tasks: the names of the tasks that it may be about; without any, all that are declared.
        more: strategies for parameters by name, in the place of those here.

    Raises:
        LookupError: there is no such trigger, or nothing is known of a parameter.
    """
    if trigger not in app.pm.triggers:
        raise LookupError(f"there is no trigger {trigger!r}")
    wanted = _annotations(trigger, app)
    given = more or {}
    for param, annotation in wanted.items():
        if not _known(param, annotation) and param not in given:
            raise LookupError(
                f"the kit knows no values for the parameter {param!r} ({annotation}) of {trigger!r}: "
                f"pass more={{{param!r}: a strategy}}"
            )

    @st.composite
    def example(draw: Any) -> dict[str, Any]:
        about = _About(draw, app, list(tasks or app.tasks))
        return {
            param: draw(given[param]) if param in given else about.value(trigger, param, annotation)
            for param, annotation in wanted.items()
        }

    return example()


def _annotations(trigger: str, app: QueueTasks) -> dict[str, str]:
    function = app.pm.pluggy.specs[trigger]
    return {
        param: str(function.__annotations__.get(param, "Any")) for param in app.pm.triggers[trigger].params
    }


def _known(param: str, annotation: str) -> bool:
    return annotation in COMPONENTS or annotation in _BY_TYPE or param in _BY_NAME


class _About:
    """The task that one example is about; each part is drawn when it is first asked for."""

    def __init__(
        self, draw: Callable[[st.SearchStrategy[Any]], Any], app: QueueTasks, tasks: list[str]
    ) -> None:
        self.draw = draw
        self.app = app
        self._tasks = tasks
        self._parts: dict[str, Any] = {}

    def value(self, trigger: str, param: str, annotation: str) -> Any:
        """The value of one parameter."""
        if annotation in COMPONENTS:
            return COMPONENTS[annotation](self.app)
        if param == "kw" and trigger in ("broker_update", "storage_update"):
            return self.patch()
        if param == "result" and trigger in _RESULTS:
            return self.draw(_RESULTS[trigger])
        make = _BY_TYPE.get(annotation) or _BY_NAME[param]
        return make(self)

    def part(self, name: str, strategy: st.SearchStrategy[T]) -> T:
        """A part that every value of this example shares."""
        if name not in self._parts:
            self._parts[name] = self.draw(strategy)
        found: T = self._parts[name]
        return found

    # --- Parts ------------------------------------------------------------------------------

    @property
    def task_func(self) -> TaskExecSchema:
        """The declaration of the task."""
        return self.app.tasks[self.part("name", st.sampled_from(self._tasks))]

    @property
    def uuid(self) -> Any:
        """Its uuid."""
        return self.part("uuid", _UUIDS)

    def common(self) -> dict[str, Any]:
        """What all models have."""
        created = self.part("created_at", _MOMENTS)
        return {
            "queue": self.part("queue", _QUEUES),
            "priority": self.part("priority", _PRIORITIES),
            "args": self.part("args", _ARGS), "kwargs": self.part("kw", _KW),
            "created_at": created, "updated_at": created,
        }  # fmt: skip

    def fields(self) -> dict[str, Any]:
        """What the models of a record have."""
        common = self.common()
        return {
            **common, "task_name": self.task_func.name, "available_at": common["created_at"],
            "attempt": self.part("attempt", _ATTEMPTS), "extra": self.part("extra", _EXTRA),
        }  # fmt: skip

    def ended(self) -> dict[str, Any]:
        """What the models of a finished run have."""
        fields = self.fields()
        return {**fields, "started_at": fields["created_at"], "finished_at": fields["created_at"] + 1.0}

    # --- Values -----------------------------------------------------------------------------

    def new(self) -> TaskStatusNewSchema:
        """A record that waits."""
        return TaskStatusNewSchema(**self.fields())

    def process(self) -> TaskStatusProcessSchema:
        """A record that a worker holds."""
        fields = self.fields()
        return TaskStatusProcessSchema(**fields, started_at=fields["created_at"])

    def success(self) -> TaskStatusSuccessSchema:
        """A run that ended well."""
        return TaskStatusSuccessSchema(**self.ended(), returning=self.part("returning", _JSON))

    def error(self) -> TaskStatusErrorSchema:
        """A run that failed."""
        return TaskStatusErrorSchema(**self.ended(), traceback=self.trace())

    def terminal(self) -> Any:
        """A run that ended in one of the three ways."""
        kind = self.part("outcome", _OUTCOMES)
        if kind == "cancel":
            return TaskStatusCancelSchema(**self.ended(), cancel_reason="no longer wanted")
        return self.success() if kind == "success" else self.error()

    def trace(self) -> str:
        """A traceback."""
        return f"Traceback (most recent call last):\n{type(self.exception()).__name__}: {self.exception()}\n"

    def exception(self) -> BaseException:
        """What a task raised."""
        return self.part("e", _ERRORS)

    def plugin_error(self) -> TaskPluginTriggerError:
        """A task asked the plugins for its result."""
        return TaskPluginTriggerError("asked", **self.part("kw", _KW))

    def held(self) -> TaskPrioritySchema:
        """The task as the worker holds it."""
        attempt = self.part("attempt", _ATTEMPTS)
        return TaskPrioritySchema(**self.common(), uuid=self.uuid, name=self.task_func.name, attempt=attempt)

    def task(self) -> Task:
        """The task as a client sees it."""
        return _task(self.uuid, self.part("status", _STATUSES), self.fields(), self)

    def tasks(self) -> list[Task]:
        """One page of tasks."""
        uuids = self.draw(_SEVERAL_UUIDS)
        return [_task(uuid, self.draw(_STATUSES), self.fields(), self) for uuid in uuids]

    def patch(self) -> dict[str, Any]:
        """The fields that a start, or a retry, writes."""
        fields = self.fields()
        now = fields["created_at"] + 1.0
        if self.draw(_BOOLEANS):
            return {
                "status": TaskStatusEnum.NEW, "attempt": fields["attempt"] + 1, "available_at": now + 5.0,
                "updated_at": now, "traceback": self.trace(), "extra": fields["extra"],
            }  # fmt: skip
        return {
            "status": TaskStatusEnum.PROCESS, "started_at": now, "updated_at": now, "extra": fields["extra"],
        }  # fmt: skip


def _task(uuid: Any, status: TaskStatusEnum, fields: dict[str, Any], about: _About) -> Task:
    moments = {
        name: datetime.fromtimestamp(fields[name], UTC)
        for name in ("created_at", "updated_at", "available_at")
    }
    task = Task(uuid=uuid, status=status, **{**fields, **moments})
    if status is not TaskStatusEnum.NEW:
        task.started_at = task.created_at
    if status.terminal:
        task.finished_at = task.updated_at
    if status is TaskStatusEnum.SUCCESS:
        task.returning = about.part("returning", _JSON)
    elif status is TaskStatusEnum.ERROR:
        task.traceback = about.trace()
    return task


_BY_TYPE: dict[str, Callable[[_About], Any]] = {
    "UUID": lambda about: about.uuid,
    "TaskName": lambda about: about.task_func.name,
    "Priority": lambda about: about.common()["priority"],
    "QueueName": lambda about: about.common()["queue"],
    "Seconds": lambda about: about.common()["created_at"],
    "Task": _About.task,
    "TaskExecSchema": lambda about: about.task_func,
    "TaskPrioritySchema": _About.held,
    "TaskStatusNewSchema": _About.new,
    "TaskStatusProcessSchema": _About.process,
    "TaskStatusErrorSchema": _About.error,
    "TaskStatusTerminalSchema": _About.terminal,
    "TaskPluginTriggerError": _About.plugin_error,
    "BaseException": _About.exception,
    "list[Task]": _About.tasks,
    "tuple[ArgInfo, ...]": lambda about: about.task_func.args_info,
}
"""By the annotation of the parameter, where that says all."""

_BY_NAME: dict[str, Callable[[_About], Any]] = {
    "args": lambda about: about.common()["args"],
    "kw": lambda about: about.common()["kwargs"],
    "extra": lambda about: about.part("extra", _EXTRA),
    "name": lambda about: about.draw(_NAMES),
    "key": lambda about: about.draw(_KEYS),
    "match": lambda about: about.draw(_PATTERNS),
    "value": lambda about: about.draw(_JSON),
    "result": lambda about: about.draw(_JSON),
    "results": lambda about: about.draw(_SEVERAL),
    "middlewares": lambda about: (),
    "trace": _About.trace,
}

_ITEMS = st.dictionaries(_KEYS, _JSON, max_size=3)
_RESULTS: dict[str, st.SearchStrategy[Any]] = {
    "global_config_get_all": _ITEMS,
    "global_config_get_match": st.dictionaries(_KEYS, _ITEMS, max_size=2),
    "task_executor_run_task_trigger_error": st.just(UNSET) | _JSON,
}
"""Where a result is something else than what a task gave."""
