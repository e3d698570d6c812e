"""Every exception of qtasks. A docstring is the default message: what happened, and what to do."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from qtasks.schemas import DELAY_MAX

if TYPE_CHECKING:
    from qtasks.schemas import Task


class QTasksError(Exception):
    """qtasks could not do what it was asked."""

    _default: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]
        cls._default = summary.replace("\n", " ")

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self._default)

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through `__init__`, which does not take the message back: a process pool would break over such an error.
        return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


class ConfigError(QTasksError):
    """The configuration is not valid. Correct the setting that the message names."""


class InvalidNameError(QTasksError, ValueError):
    """A name is outside its grammar: app and queue `[A-Za-z0-9_-]{1,48}`, task `[A-Za-z0-9_.:-]{1,200}`."""


class NotStartedError(QTasksError, RuntimeError):
    """The component is not started. Use it inside `async with app:` or after `start()`."""


class CapabilityError(QTasksError):
    """The component does not have the capability that was asked for. Choose a component that declares it."""


class ExclusiveError(QTasksError):
    """Another process already runs this app with a component that processes cannot share.
    Stop the other process, or use a broker and a storage that are both shared."""


class WrongLoopError(QTasksError, RuntimeError):
    """Triggers belong to the event loop of the application. From another thread, use `qtasks.sync`;
    on the loop itself, use `await`."""


# --- Tasks ------------------------------------------------------------------------------------


class TaskNotRegisteredError(QTasksError, LookupError):
    """No task of this name is registered. Import the module that declares it, or correct the name."""


class TaskNotFoundError(QTasksError, LookupError):
    """No task has this uuid. It was never added, its result has expired, or the queue was flushed."""


class TaskDeclarationError(QTasksError, ValueError):
    """The declaration of a task is not valid. Correct the option that the message names."""


class DuplicateTaskError(TaskDeclarationError):
    """A task of this name is declared already. Give one of the two another name."""


class EncodeError(QTasksError, ValueError):
    """The value cannot be written as JSON. Return or pass plain data, a dataclass or a pydantic model."""


class PayloadTooLargeError(QTasksError, ValueError):
    """The arguments or the result are larger than `max_payload` bytes. Pass a reference to the data instead."""


class QueueFullError(QTasksError):
    """The queue holds `max_queue` tasks already; nothing was stored. Add the task again later."""


class UuidConflictError(QTasksError):
    """A task of this uuid exists with another name, args or kwargs. Use a new uuid."""


class EnqueueUnknownError(QTasksError):
    """The connection was cut before the reply, so it is not known whether the task was added.
    Add it again with the same uuid: that is idempotent.

    Attributes:
        uuid: the task's identity; of a batch, that of its first task.
        uuids: the identities of the whole batch, in its order.
    """

    def __init__(self, *uuids: UUID) -> None:
        self.uuid = uuids[0]
        self.uuids = uuids
        super().__init__(f"{self._default} (uuid {', '.join(map(str, uuids[:3]))}{', …' * (len(uuids) > 3)})")


class BulkAddError(QTasksError):
    """Some tasks of the batch were not added; the others were.

    Attributes:
        tasks: what was added, by position in the batch.
        errors: why the others were not, by position.
    """

    def __init__(self, tasks: Mapping[int, Task], errors: Mapping[int, QTasksError]) -> None:
        self.tasks = dict(tasks)
        self.errors = dict(errors)
        position, first = next(iter(self.errors.items()))
        super().__init__(
            f"{len(self.errors)} of the tasks were not added; the first, number {position}: {first}"
        )


class ResultTimeoutError(QTasksError, TimeoutError):
    """The task did not finish in the time given. It goes on; wait again, or cancel it."""


class StreamLostError(QTasksError):
    """The lease of a streaming task was lost while it ran. Another worker runs it now."""


class TaskTimeoutError(QTasksError, TimeoutError):
    """The task ran longer than its `max_time`."""


class TaskPluginTriggerError(QTasksError):
    """The code of a task asked the plugins for its result. Raise it with `ctx.plugin_error(...)`.

    Parameters:
        message: what happened, for people.
        data: anything that the plugins on `task_executor_run_task_trigger_error` need.
    """

    def __init__(self, message: str | None = None, **data: Any) -> None:
        self.data = data
        super().__init__(message)


# --- Control flow: what a plugin or a task may raise to steer a task (rule 10) ------------------


class TaskControl(QTasksError):
    """Steers a task before it runs. It is never isolated in a replacement trigger before the run.

    Attributes:
        plugin, trigger: which plugin raised it in which trigger; empty where the task's own code did.
    """

    plugin = trigger = ""


class TaskCancelError(TaskControl):
    """The task was vetoed: it is not run and ends in CANCEL."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or None)


class TaskDefer(TaskControl):
    """Not now: the task is put back for a time, its delivery is returned.

    In a producer trigger the other plugins still run (an encryption plugin must not be skipped), and
    the task is stored to be run later.

    Attributes:
        seconds: how long.
        values: in a producer trigger, the values as all plugins left them.
    """

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, int | float) or not 0 <= seconds <= DELAY_MAX:
            raise ValueError(f"TaskDefer takes 0 to {DELAY_MAX:.0f} seconds, not {seconds!r}")
        self.seconds = float(seconds)
        self.values: Any = None
        super().__init__(f"deferred for {seconds} s")


class TaskRejected(TaskControl):
    """The arguments are wrong: the task ends in ERROR at once, without a retry."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or None)


# --- Plugins ----------------------------------------------------------------------------------


class PluginError(QTasksError):
    """A plugin raised in a replacement trigger. The original error is its `__cause__`.

    Attributes:
        plugin: the name that the plugin is registered under.
        trigger: the name of the trigger.
    """

    def __init__(self, message: str | None = None, *, plugin: str = "", trigger: str = "") -> None:
        self.plugin = plugin
        self.trigger = trigger
        super().__init__(message)


class PluginResultError(PluginError):
    """What a plugin returned does not fit the trigger (rule 8)."""


class PluginTimeoutError(PluginError):
    """A plugin ran longer than `plugin_timeout` seconds and was cancelled."""


class PluginRegistrationError(PluginError):
    """The plugin cannot be registered (rule 11). Correct the implementation that the message names."""


class PluginOrderError(PluginRegistrationError):
    """The `before` and `after` of these plugins contradict each other (rule 6). Remove one of them."""


class PluginNestingError(PluginError):
    """Triggers are nested deeper than 16: a plugin calls the application in a circle (rule 13)."""


# --- Backends ---------------------------------------------------------------------------------


class BackendError(QTasksError):
    """A broker, storage or global config failed."""


class TransientError(BackendError):
    """The backend is away for now. The call may be made again later."""


class FatalError(BackendError):
    """The backend cannot work as it is. The process stops; mend what the message names."""
