"""The schemas of a task: what a client sees, what plugins are given, what a storage keeps.

Slots dataclasses travel inside (cheap to make); pydantic checks whatever a plugin puts in their
place, in full, since `revalidate_instances` is on. Times are Unix seconds (float) everywhere but
on `Task`, where they are aware datetimes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import ConfigDict, Field

from qtasks.making import maker

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.trace import Trace
else:
    QueueTasks = Any  # pydantic resolves the annotations of Task, where this is only a private back reference

PRIORITY_MIN, PRIORITY_MAX = -128, 127
TIME_MAX = 253_402_300_799.0
"""The last second that a datetime can tell (the end of the year 9999), as Unix seconds."""
DELAY_MAX = 100 * 365.25 * 86_400
"""The longest delay, in seconds: a hundred years, so that no delay leads beyond `TIME_MAX`."""

Priority = Annotated[int, Field(ge=PRIORITY_MIN, le=PRIORITY_MAX)]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")]
QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,48}$")]
Seconds = Annotated[float, Field(ge=0, le=TIME_MAX)]

_CHECKED = ConfigDict(revalidate_instances="always", extra="forbid")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET = Unset.UNSET
"""Stands where there is no value yet, and where `None` would be one."""


class TaskStatusEnum(StrEnum):
    """Where a task stands. `success`, `error` and `cancel` are terminal: they never change (R5)."""

    NEW = "new"
    PROCESS = "process"
    SUCCESS = "success"
    ERROR = "error"
    CANCEL = "cancel"

    @property
    def terminal(self) -> bool:
        """Whether this status is final."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL})


@dataclass(slots=True, kw_only=True)
class TaskStatusSchema:
    """What the record of a task has at every status.

    Attributes:
        task_name: the name under which the task function is registered.
        queue: the queue it waits in.
        priority: lower runs first, -128 to 127.
        args, kwargs: the arguments as they are stored.
        created_at, updated_at, available_at: Unix seconds.
        attempt: how many times user code has failed so far.
        extra: what callers and plugins attach (JSON).
    """

    __pydantic_config__ = _CHECKED

    task_name: TaskName
    queue: QueueName = "default"
    priority: Priority = 0
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    created_at: Seconds = 0.0
    updated_at: Seconds = 0.0
    available_at: Seconds = 0.0
    attempt: Annotated[int, Field(ge=0)] = 0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class TaskStatusNewSchema(TaskStatusSchema):
    """A task that waits to be run."""

    __pydantic_config__ = _CHECKED

    status: Literal[TaskStatusEnum.NEW] = TaskStatusEnum.NEW


@dataclass(slots=True, kw_only=True)
class TaskStatusProcessSchema(TaskStatusSchema):
    """A task that a worker holds. `started_at` is in Unix seconds."""

    __pydantic_config__ = _CHECKED

    status: Literal[TaskStatusEnum.PROCESS] = TaskStatusEnum.PROCESS
    started_at: Seconds = 0.0


@dataclass(slots=True, kw_only=True)
class TaskRequest:
    """A task that somebody wants to be added: one entry of `add_tasks`, or of `then`.

    Attributes:
        task_name: the name of the task.
        args, kwargs: its arguments (JSON).
        queue, priority: `None` takes what the task declares.
        available_at: Unix seconds before which it is not run; `None` is now.
        uuid: its identity; `None` draws one.
        extra: what callers and plugins attach (JSON).
    """

    __pydantic_config__ = _CHECKED

    task_name: TaskName
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue: QueueName | None = None
    priority: Priority | None = None
    available_at: Seconds | None = None
    uuid: UUID | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class TaskStatusSuccessSchema(TaskStatusSchema):
    """A task that ended well.

    Attributes:
        returning: the result (JSON).
        then: tasks that are added in the same step as this result.
        started_at, finished_at: Unix seconds.
    """

    __pydantic_config__ = _CHECKED

    status: Literal[TaskStatusEnum.SUCCESS] = TaskStatusEnum.SUCCESS
    returning: Any = None
    then: tuple[TaskRequest, ...] = ()
    started_at: Seconds = 0.0
    finished_at: Seconds = 0.0


@dataclass(slots=True, kw_only=True)
class TaskStatusErrorSchema(TaskStatusSchema):
    """A task that failed.

    Attributes:
        traceback: what went wrong.
        retry_in: seconds until it is run again; `None` leaves it failed. It is read after
            `worker_task_error_retry` only.
        then: tasks that are added in the step that writes this, when the task has failed for good.
        started_at, finished_at: Unix seconds.
    """

    __pydantic_config__ = _CHECKED

    status: Literal[TaskStatusEnum.ERROR] = TaskStatusEnum.ERROR
    traceback: str = ""
    retry_in: Annotated[float, Field(ge=0, le=DELAY_MAX)] | None = None
    then: tuple[TaskRequest, ...] = ()
    started_at: Seconds = 0.0
    finished_at: Seconds = 0.0


@dataclass(slots=True, kw_only=True)
class TaskStatusCancelSchema(TaskStatusSchema):
    """A task that was cancelled, by a client while it ran, or by a plugin's veto.

    Attributes:
        cancel_reason: why.
        then: tasks that are added in the step that writes this.
        started_at, finished_at: Unix seconds.
    """

    __pydantic_config__ = _CHECKED

    status: Literal[TaskStatusEnum.CANCEL] = TaskStatusEnum.CANCEL
    cancel_reason: str = ""
    then: tuple[TaskRequest, ...] = ()
    started_at: Seconds = 0.0
    finished_at: Seconds = 0.0


TaskStatusTerminalSchema = Annotated[
    TaskStatusSuccessSchema | TaskStatusErrorSchema | TaskStatusCancelSchema,
    Field(discriminator="status"),
]
"""Any of the three schemas of a finished task."""


@dataclass(slots=True, kw_only=True)
class TaskPrioritySchema:
    """The task as the worker holds it (`task_broker` in the triggers), ordered by priority."""

    __pydantic_config__ = _CHECKED

    priority: Priority
    uuid: UUID
    name: TaskName
    queue: QueueName = "default"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    created_at: Seconds = 0.0
    updated_at: Seconds = 0.0

    def __lt__(self, other: TaskPrioritySchema) -> bool:
        return (self.priority, self.created_at) < (other.priority, other.created_at)


class ArgInfo(NamedTuple):
    """One parameter of a task function, as `inspect` tells it (`args_info` in the triggers)."""

    name: str
    annotation: Any
    kind: Any
    default: Any


@dataclass(slots=True, kw_only=True)
class TaskExecSchema:
    """A declared task (`task_func` in the triggers): what `@app.task` was told.

    Attributes:
        name: the name it is registered under.
        func: the function that runs.
        queue, priority: where its tasks wait unless the caller says otherwise.
        retry: how many times a failed task may be run again.
        retry_on_exc: the exceptions (with their subclasses) that may be retried; empty is all.
        retry_delay: seconds before the first retry.
        retry_backoff: factor by which the delay grows with each retry (1.0: constant).
        retry_max_delay: the longest delay, seconds.
        retry_jitter: the delay varies by up to this share of itself, 0 to 1.
        max_time: seconds the function may run; `None` is for ever.
        idempotent: whether a run that could not be stopped may be repeated.
        decode: a function applied to the result before it is stored.
        tags, description: for people and tools.
        echo: whether the first argument is the `TaskContext`.
        generate_handler: applied to each item that a generator task yields.
        middlewares_before, middlewares_after: callables around the run.
        executor: `"thread"` or `"process"` for plain functions.
        stream: whether the items of a generator can be read while it runs.
        result_ttl: seconds the finished record is kept; `None` is the application's.
        extra: what plugins read from the declaration.
        kind: how the function runs, found at declaration.
        args_info: the function's parameters, found at declaration.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    name: TaskName
    func: Callable[..., Any]
    queue: QueueName = "default"
    priority: Priority = 0
    retry: Annotated[int, Field(ge=0)] = 0
    retry_on_exc: tuple[type[BaseException], ...] = ()
    retry_delay: Annotated[float, Field(ge=0, le=DELAY_MAX)] = 1.0
    retry_backoff: Annotated[float, Field(ge=1)] = 2.0
    retry_max_delay: Annotated[float, Field(ge=0, le=DELAY_MAX)] = 300.0
    retry_jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_time: Annotated[float, Field(gt=0)] | None = None
    idempotent: bool = False
    decode: Callable[[Any], Any] | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    echo: bool = False
    generate_handler: Callable[[Any], Any] | None = None
    middlewares_before: tuple[Callable[..., Any], ...] = ()
    middlewares_after: tuple[Callable[..., Any], ...] = ()
    executor: Literal["thread", "process"] = "thread"
    stream: bool = False
    result_ttl: Annotated[float, Field(gt=0)] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    kind: Literal["coroutine", "function", "generator", "async_generator"] = "coroutine"
    args_info: tuple[ArgInfo, ...] = ()


@dataclass(slots=True, kw_only=True)
class TaskRecord:
    """All that a storage keeps of a task. Times are Unix seconds; args, kwargs, extra, returning
    and progress are JSON values. A storage writes it and gives it back; it interprets only what
    the rules R4 and R5 name (status, epoch, owner), `available_at`, `unique_key` and the times
    of retention.

    Attributes:
        digest: of the name and arguments as the caller gave them, for `UuidConflictError`.
        unique_key: at most one open record has it.
        epoch, owner: the last token that started the task.
        deliveries: claims of the current attempt, as of the last start.
        expires_at: when a finished record may be deleted.
        dead: failed for good after its retries or deliveries were used up.
    """

    uuid: UUID
    task_name: str
    queue: str = "default"
    priority: int = 0
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    updated_at: float = 0.0
    available_at: float = 0.0
    status: TaskStatusEnum = TaskStatusEnum.NEW
    attempt: int = 0
    deliveries: int = 0
    retry: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    unique_key: str | None = None
    result_ttl: float | None = None
    replay_of: UUID | None = None
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    returning: Any = None
    traceback: str | None = None
    cancel_reason: str | None = None
    progress: Any = None
    cancel_requested: bool = False
    dead: bool = False
    epoch: int = 0
    owner: str = ""


@lru_cache(maxsize=64)
def _moment(seconds: float) -> datetime:
    # Tasks that are added, or claimed, together have their times in common.
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(slots=True, kw_only=True)
class Task:
    """A task as a client sees it: a snapshot, with times as aware datetimes (UTC).

    To change a field in a plugin, return `dataclasses.replace(task, field=value)`.
    """

    __pydantic_config__ = ConfigDict(revalidate_instances="always")

    uuid: UUID
    task_name: str
    status: TaskStatusEnum
    queue: str = "default"
    priority: int = 0
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    available_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    returning: Any = None
    traceback: str | None = None
    cancel_reason: str | None = None
    attempt: int = 0
    deliveries: int = 0
    retry: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    progress: Any = None
    replay_of: UUID | None = None
    _app: QueueTasks | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether the status is final."""
        return self.status.terminal

    async def wait_result(self, timeout: float | None = None) -> Task:
        """Waits until the task is finished and gives the finished task.

        Parameters:
            timeout: seconds; `None` waits for ever.

        Raises:
            ResultTimeoutError: it did not finish in time.
            TaskNotFoundError: there is no such task any more.
        """
        return await self._bound().wait_result(self.uuid, timeout)

    def stream(self, start: int = 0) -> AsyncIterator[Any]:
        """The items of a generator task declared with `stream=True`, as they come, until it has ended.

        Parameters:
            start: the index of the first item; an interrupted reader goes on where it was.

        Raises:
            TaskNotFoundError: there is no such task any more.
            CapabilityError: the storage has no streams.
        """
        return self._bound().stream(self.uuid, start)

    def follow(self) -> AsyncIterator[Task]:
        """Snapshots of the task, one for each change of its status, progress or attempt that is seen, until it
        has ended; the last one is the finished task. It looks every 5 ms just after a change, every 100 ms at rest.

        Raises:
            TaskNotFoundError: there is no such task any more.
        """
        return self._bound().follow(self.uuid)

    async def trace(self) -> Trace | None:
        """Every call of a trigger for this task, if it was traced; see `QueueTasks.trace`."""
        return await self._bound().trace(self.uuid)

    async def cancel(self) -> bool:
        """Cancels the task: at once while it waits, soon while it runs.

        Returns:
            Whether there was something to cancel; `False` when it had finished already.
        """
        return await self._bound().cancel(self.uuid)

    def _bound(self) -> QueueTasks:
        if self._app is None:
            raise RuntimeError(f"task {self.uuid} does not come from an application: use app.get()")
        return self._app


def task_from_record(record: TaskRecord) -> Task:
    """The client's view of a record. Written out, since one is made for every task, twice: by `Task(...)`, with so many
    names, it would take three times as long."""
    task = _new_task(Task)
    task.uuid = record.uuid
    task.task_name = record.task_name
    task.status = record.status
    task.queue = record.queue
    task.priority = record.priority
    task.args = record.args
    task.kwargs = record.kwargs
    created_at = task.created_at = _moment(record.created_at)
    updated_at = task.updated_at = (
        created_at if record.updated_at == record.created_at else _moment(record.updated_at)
    )
    task.available_at = (
        created_at if record.available_at == record.created_at else _moment(record.available_at)
    )
    if record.started_at is None:
        task.started_at = None
    else:
        task.started_at = updated_at if record.started_at is record.updated_at else _moment(record.started_at)
    task.finished_at = None if record.finished_at is None else _moment(record.finished_at)
    task.returning = record.returning
    task.traceback = record.traceback
    task.cancel_reason = record.cancel_reason
    task.attempt = record.attempt
    task.deliveries = record.deliveries
    task.retry = record.retry
    task.extra = record.extra
    task.progress = record.progress
    task.replay_of = record.replay_of
    task._app = None
    return task


_new_task = object.__new__
make_record = maker(TaskRecord)
make_request = maker(TaskRequest)
make_new, make_process, make_success = (
    maker(TaskStatusNewSchema), maker(TaskStatusProcessSchema), maker(TaskStatusSuccessSchema),
)  # fmt: skip
make_held = maker(TaskPrioritySchema)
