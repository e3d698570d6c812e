"""From what happened in a run to what is written: terminal models, settles, tracebacks."""

from __future__ import annotations

import traceback
from typing import Any, NamedTuple

from qtasks.codec import encode
from qtasks.components.primitives import DeliveryHandle, Nack, Outcome, Settle
from qtasks.config import QueueConfig
from qtasks.errors import PayloadTooLargeError, PluginError
from qtasks.schemas import (
    TaskExecSchema,
    TaskPrioritySchema,
    TaskRecord,
    TaskStatusCancelSchema,
    TaskStatusEnum,
    TaskStatusErrorSchema,
    TaskStatusSuccessSchema,
    TaskStatusTerminalSchema,
    make_success,
)
from qtasks.text import cut

_PLAIN = (type(None), bool, int, float)
_SHORT = 1024
_INTERNAL = ("qtasks.components.", "qtasks.chain.")


class Ended(NamedTuple):
    """A delivery that is over for its slot and has still to be written.

    Attributes:
        settle: what is written.
        task_func, task_broker, model: for the triggers after the settle; `model` is `None` where none fire.
        error: the class of what the task failed with, for its line in the log.
    """

    settle: Settle
    task_func: TaskExecSchema | None = None
    task_broker: TaskPrioritySchema | None = None
    model: TaskStatusTerminalSchema | None = None
    error: type[BaseException] | None = None


def base_fields(record: TaskRecord) -> dict[str, Any]:
    """What every terminal model takes from the record. The arguments are those at rest: what plugins
    decrypted or injected for the run is never written back."""
    return {
        "task_name": record.task_name, "queue": record.queue, "priority": record.priority, "args": record.args,
        "kwargs": record.kwargs, "created_at": record.created_at, "available_at": record.available_at,
        "attempt": record.attempt, "extra": record.extra, "started_at": record.started_at or 0.0,
    }  # fmt: skip


def success_model(record: TaskRecord, result: Any, now: float) -> TaskStatusSuccessSchema:
    """The model of a task that ended well."""
    return make_success(
        task_name=record.task_name, queue=record.queue, priority=record.priority, args=record.args,
        kwargs=record.kwargs, created_at=record.created_at, updated_at=now, available_at=record.available_at,
        attempt=record.attempt, extra=record.extra, returning=result, started_at=record.started_at or 0.0,
        finished_at=now,
    )  # fmt: skip


def error_model(record: TaskRecord, trace: str, now: float, *, failed: bool = True) -> TaskStatusErrorSchema:
    """The model of a task that failed; `failed` counts an attempt."""
    model = TaskStatusErrorSchema(**base_fields(record), updated_at=now, finished_at=now, traceback=trace)
    if failed:
        model.attempt += 1
    return model


def finish_failure(error: Exception) -> str:
    """What is written of an error in the finish triggers. A plugin's own words are left out, since they may
    show the result, and no plugin has a chance to encrypt them: they are in the log of the worker."""
    if not isinstance(error, PluginError):
        return f"{type(error).__name__}: {error}"
    cause = "" if error.__cause__ is None else f" ({type(error.__cause__).__name__})"
    what = f"plugin {error.plugin!r} failed in trigger {error.trigger!r}" if error.plugin else str(error)
    return f"{type(error).__name__}: {what}{cause}; its own words, which may show the result, are in the worker's log"


def cancel_model(record: TaskRecord, reason: str, now: float) -> TaskStatusCancelSchema:
    """The model of a task that was cancelled."""
    return TaskStatusCancelSchema(
        **base_fields(record), updated_at=now, finished_at=now, cancel_reason=reason
    )


def stored_result(value: Any, config: QueueConfig) -> Any:
    """A result as it is handed to the storage: encoded, unless it is plainly small and storable.

    Raises:
        EncodeError: it cannot be written as JSON.
        PayloadTooLargeError: it takes more than `max_payload` bytes.
    """
    if type(value) in _PLAIN or (type(value) is str and len(value) <= _SHORT):
        return value
    encoded = encode(value)
    if len(encoded) > config.max_payload:
        raise PayloadTooLargeError(
            f"the result takes {len(encoded)} bytes, more than max_payload ({config.max_payload}); "
            "return a reference instead"
        )
    return encoded


_EDITABLE = ("task_name", "queue", "priority", "args", "kwargs", "extra")


def _edited(model: TaskStatusTerminalSchema, record: TaskRecord) -> bool:
    return (
        model.args is not record.args
        or model.kwargs is not record.kwargs
        or model.extra is not record.extra
        or model.task_name is not record.task_name
        or model.queue is not record.queue
        or model.priority is not record.priority
    )


def terminal_settle(
    handle: DeliveryHandle, record: TaskRecord, model: TaskStatusTerminalSchema, config: QueueConfig,
    *, dead: bool, returning: Any = None, then: tuple[TaskRecord, ...] = (),
) -> Settle:  # fmt: skip
    """The settle that writes a terminal model: only what differs from the record, and `returning`."""
    finished_at = model.finished_at or model.updated_at
    ttl = config.dead_ttl if dead else (record.result_ttl or config.result_ttl)
    changes: dict[str, Any] = {
        "status": model.status, "updated_at": model.updated_at, "finished_at": finished_at,
        "expires_at": finished_at + ttl,
    }  # fmt: skip
    if _edited(model, record):
        for name in _EDITABLE:
            if (value := getattr(model, name)) is not getattr(record, name):
                changes[name] = value
    if model.attempt != record.attempt:
        changes["attempt"] = model.attempt
    if isinstance(model, TaskStatusSuccessSchema):
        changes["returning"] = returning
        return Settle(handle, Outcome.SUCCESS, changes, then)
    if isinstance(model, TaskStatusErrorSchema):
        changes["traceback"] = cut(model.traceback, config.max_traceback)
        if dead:
            changes["dead"] = True
        return Settle(handle, Outcome.ERROR, changes, then)
    changes["cancel_reason"] = cut(model.cancel_reason, config.max_traceback)
    return Settle(handle, Outcome.CANCEL, changes, then)


def unwritable_settle(settle: Settle, trace: str, now: float, config: QueueConfig) -> Settle:
    """The settle in the place of one whose values the storage cannot take."""
    changes = {
        "status": TaskStatusEnum.ERROR, "updated_at": now, "finished_at": now, "expires_at": now + config.dead_ttl,
        "traceback": trace, "dead": True,
    }  # fmt: skip
    return Settle(settle.handle, Outcome.ERROR, changes)


def release_settle(handle: DeliveryHandle, now: float, delay: float, *, counted: bool) -> Settle:
    """The settle that puts a task back, for `delay` seconds by the clocks of the stores. `counted`: whether the
    delivery counts as used."""
    deliveries = handle.deliveries if counted else handle.deliveries - 1
    changes = {"status": TaskStatusEnum.NEW, "updated_at": now, "deliveries": deliveries}
    return Settle(handle, Outcome.RELEASE, changes, nack=Nack(handle, delay, deliveries, handle.epoch))


def retry_settle(handle: DeliveryHandle, changes: dict[str, Any], delay: float) -> Settle:
    """The settle that begins the next attempt."""
    return Settle(
        handle, Outcome.RETRY, {**changes, "deliveries": 0}, nack=Nack(handle, delay, 0, handle.epoch)
    )


def traceback_of(error: BaseException, limit: int) -> str:
    """The traceback as text, of `limit` bytes at most, from the task's own code on."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_globals.get("__name__", "").startswith(_INTERNAL):
        own = own.tb_next
    shown = error.__traceback__ if own is None else own
    return cut("".join(traceback.format_exception(type(error), error, shown)), limit)
