"""opentelemetry: a span for each task that is added and one for each run, linked across processes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from opentelemetry import context as otel
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from qtasks import (
    PluginCall,
    QueueTasks,
    Starter,
    Task,
    TaskCancelError,
    TaskDefer,
    TaskPrioritySchema,
    TaskStatusNewSchema,
    __version__,
    current_task,
    hookimpl,
)

log = logging.getLogger("qtasks.plugins")

KEY: Final = "opentelemetry"
"""Where the propagated context lies in `extra`, and what belongs to a run in `TaskContext.state`."""

PRODUCER: Final = frozenset({"qtasks_add_task_before_broker", "broker_add_before", "storage_add"})
BEFORE_RUN: Final = frozenset(
    {
        "storage_add_process", "storage_get", "broker_get", "storage_running_older_tasks", "broker_add_worker",
        "worker_add", "worker_execute_before", "broker_update", "storage_update", "worker_run_task_before",
    }
)  # fmt: skip
EVENTS_BEFORE_RUN: Final = 100


class OpenTelemetryPlugin:
    """Spans after the semantic conventions for messaging: `send TASK` (producer) and `process TASK` (consumer).

    Nothing that goes wrong in it, or in an exporter, keeps a task from being added or run: it is logged.

    Parameters:
        tracer_provider: the default is the global one.
        child_of_send: whether `process` is a child of `send`, in one trace. It is linked to it either way; without it
            each run begins a trace of its own, which suits tasks that wait for long.
        plugin_events: whether a span has an event for each call of a plugin, with what it changed (never the values).
    """

    qtasks_name = "opentelemetry"

    def __init__(
        self, *, tracer_provider: trace.TracerProvider | None = None, child_of_send: bool = True,
        plugin_events: bool = True,
    ) -> None:  # fmt: skip
        self._tracer = trace.get_tracer("qtasks", __version__, tracer_provider)
        self._child_of_send = child_of_send
        self._plugin_events = plugin_events
        # Weak: no trigger fires for a task that could not be stored, or that is put back before it runs. What was
        # kept for it goes with its uuid.
        self._sending: WeakKeyDictionary[UUID, Span] = WeakKeyDictionary()
        self._early: WeakKeyDictionary[UUID, list[tuple[int, dict[str, Any]]]] = WeakKeyDictionary()

    # --- send -----------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def qtasks_add_task_before_broker(
        self, qtasks: QueueTasks, uuid: UUID, task_name: str, queue: str, extra: dict[str, Any]
    ) -> Mapping[str, Any] | None:
        """Begins the span of `send`, and gives its context along."""
        with _Harmless():
            run = _current_run()
            # A follow-up is added when the run that asked for it has ended: it belongs to it all the same.
            parent = trace.set_span_in_context(run.span) if run is not None and run.ended else None
            span = self._tracer.start_span(
                f"send {task_name}", parent, SpanKind.PRODUCER,
                _attributes("send", qtasks.name, task_name, queue, uuid), links=_links(extra),
            )  # fmt: skip
            carrier: dict[str, str] = {}
            propagate.inject(carrier, trace.set_span_in_context(span, parent))
            self._sending[uuid] = span
            return {"extra": {**extra, KEY: carrier}}
        return None

    @hookimpl(trylast=True)
    def storage_add(self, uuid: UUID, task_status: TaskStatusNewSchema) -> None:
        """Puts the name and queue right that other plugins chose. The span of a follow-up ends here: it is stored
        together with the result of the task that asked for it."""
        with _Harmless():
            span = self._sending.get(uuid)
            if span is None:
                return
            span.update_name(f"send {task_status.task_name}")
            span.set_attribute("qtasks.task.name", task_status.task_name)
            span.set_attribute("messaging.destination.name", task_status.queue)
            run = _current_run()
            if run is not None and run.ended:
                self._sending.pop(uuid).end()

    @hookimpl
    def qtasks_add_task_after_broker(self, task: Task) -> None:
        """Ends the span of `send`: the task is stored and queued."""
        with _Harmless():
            span = self._sending.pop(task.uuid, None)
            if span is not None:
                span.end()

    # --- process --------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def task_executor_middlewares_execute(self, task_broker: TaskPrioritySchema) -> None:
        """Begins the span of `process`. It ends when the code and what it opened have ended, whatever ended them."""
        with _Harmless():
            task, before = current_task(), otel.get_current()
            parent = _sent(task.extra) if self._child_of_send else otel.Context()
            attributes = _attributes("process", task.app.name, task_broker.name, task_broker.queue, task.uuid)
            span = self._tracer.start_span(
                f"process {task_broker.name}", parent, SpanKind.CONSUMER,
                {**attributes, "qtasks.task.attempt": task_broker.attempt}, links=_links(task.extra),
            )  # fmt: skip
            for timestamp, event in self._early.pop(task.uuid, ()):
                span.add_event("qtasks.plugin", event, timestamp)
            run = task.state[KEY] = _Run(span, before)
            task.resources.push(run.end)
            otel.attach(trace.set_span_in_context(span, parent))

    # --- The calls of plugins -------------------------------------------------------------------

    @hookimpl
    def starter_start(self, starter: Starter) -> None:
        """Begins to listen to the calls of plugins."""
        if self._plugin_events:
            starter.pm.add_observer(self._observe)

    @hookimpl
    def starter_stop(self, starter: Starter) -> None:
        """Ends it."""
        if self._plugin_events:
            starter.pm.remove_observer(self._observe)

    def _observe(self, call: PluginCall) -> None:
        uuid = call.given.get("uuid") or getattr(call.given.get("task_broker"), "uuid", None)
        if uuid is None or call.plugin == self.qtasks_name:
            return
        event: dict[str, Any] = {
            "qtasks.plugin.name": call.plugin, "qtasks.trigger": call.trigger, "qtasks.plugin.seconds": call.seconds,
            "qtasks.plugin.changed": [name for name in call.before if call.after[name] is not call.before[name]],
        }  # fmt: skip
        if call.error is not None:
            event["error.type"] = _type_name(call.error.__cause__ or call.error)
        if call.trigger in PRODUCER:
            if (span := self._sending.get(uuid)) is not None:
                span.add_event("qtasks.plugin", event)
            return
        run = _current_run()
        if run is None and call.trigger in BEFORE_RUN:
            early = self._early.setdefault(uuid, [])
            if len(early) < EVENTS_BEFORE_RUN:
                early.append((time.time_ns(), event))
        elif run is not None and not run.ended:
            run.span.add_event("qtasks.plugin", event)


@dataclass(slots=True)
class _Run:
    """The span of a run; `before` is the context that was current before it."""

    span: Span
    before: otel.Context
    ended: bool = False

    def end(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Ends it, with what ended the run."""
        with _Harmless():
            self.ended = True
            otel.attach(self.before)
            if isinstance(error, TaskDefer):
                self.span.set_attribute("qtasks.task.ended_by", "defer")
            elif isinstance(error, TaskCancelError | asyncio.CancelledError):
                self.span.set_attribute("qtasks.task.ended_by", "cancel")
            elif error is not None:
                self.span.record_exception(error)
                self.span.set_attribute("error.type", _type_name(error))
                self.span.set_status(Status(StatusCode.ERROR, str(error)))
            self.span.end()


def _current_run() -> _Run | None:
    try:
        return current_task().state.get(KEY)
    except LookupError:
        return None


def _sent(extra: Mapping[str, Any]) -> otel.Context:
    """The context that came with a task."""
    carrier = extra.get(KEY)
    fields = carrier.items() if isinstance(carrier, dict) else ()
    return propagate.extract(
        {name: value for name, value in fields if isinstance(value, str)}, otel.Context()
    )


def _links(extra: Mapping[str, Any]) -> list[Link]:
    found = trace.get_current_span(_sent(extra)).get_span_context()
    return [Link(found)] if found.is_valid else []


def _attributes(operation: str, app: str, task_name: str, queue: str, uuid: UUID) -> dict[str, str | int]:
    return {
        "messaging.system": "qtasks", "messaging.operation.name": operation, "messaging.operation.type": operation,
        "messaging.destination.name": queue, "messaging.message.id": str(uuid), "qtasks.app": app,
        "qtasks.task.name": task_name,
    }  # fmt: skip


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Harmless:
    """What goes wrong in this block is logged: a task must not fail since nobody can watch it."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            log.error("opentelemetry: a span is incomplete", exc_info=error)
            return True
        return False
