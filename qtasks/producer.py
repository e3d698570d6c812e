"""The way of a task into the queue: triggers, checks, one stored step, announcement."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from qtasks.codec import encode
from qtasks.components.primitives import Added, AddVerdict
from qtasks.errors import (
    EncodeError,
    EnqueueUnknownError,
    PayloadTooLargeError,
    QTasksError,
    QueueFullError,
    TaskDefer,
    TransientError,
    UuidConflictError,
)
from qtasks.ids import new_uuid
from qtasks.registry import NAME, TASK_NAME, check_name
from qtasks.schemas import (
    PRIORITY_MAX,
    PRIORITY_MIN,
    TIME_MAX,
    Task,
    TaskRecord,
    TaskRequest,
    TaskStatusNewSchema,
    task_from_record,
)
from qtasks.tracing import FLAG

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.tracing import Part


_ADDED = Added.ADDED

TRIES = 3
"""How often a task is offered whose unique key another one had that is not there any more when it is looked for."""


class Prepared(NamedTuple):
    """A task that passed the producer triggers and is ready to be stored."""

    record: TaskRecord
    model: TaskStatusNewSchema
    trace: Part | None = None


class Producer:
    """Puts tasks into the queue of one application."""

    def __init__(self, app: QueueTasks) -> None:
        self._app = app
        secret = app.config.digest_key
        self._digest_key = (
            b"" if secret is None else hashlib.blake2b(secret.get_secret_value().encode()).digest()
        )

    def prepare(
        self, request: TaskRequest, *, replay_of: UUID | None = None
    ) -> Coroutine[Any, Any, Prepared]:
        """Fires the three producer triggers and checks what comes out.

        Raises:
            PluginError, TaskCancelError, TaskRejected: a plugin refused.
            InvalidNameError, EncodeError, PayloadTooLargeError, ValueError: the request is not valid.
        """
        if self._app.tracer.wanted(request.extra):
            return self._prepare_traced(request, replay_of)
        return self._prepare(request, replay_of)

    async def _prepare_traced(self, request: TaskRequest, replay_of: UUID | None) -> Prepared:
        uuid = request.uuid or new_uuid()
        request = replace(request, uuid=uuid, extra={**request.extra, FLAG: True})
        part = self._app.tracer.begin(uuid)
        try:
            with self._app.tracer.recording(part):
                return (await self._prepare(request, replay_of))._replace(trace=part)
        except BaseException:
            self._app.tracer.drop(part)
            raise

    async def _prepare(self, request: TaskRequest, replay_of: UUID | None) -> Prepared:
        app = self._app
        now = app.clock()
        name, queue, priority = request.task_name, request.queue, request.priority
        declared = app.tasks.get(name)
        if declared is None:  # else its names were checked when it was declared
            check_name(name, "task name", TASK_NAME)
        if queue is None:
            queue = declared.queue if declared else "default"
        else:
            check_name(queue, "queue name", NAME)
        if priority is None:
            priority = declared.priority if declared else 0
        if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
            raise ValueError(f"priority {priority} is outside {PRIORITY_MIN} … {PRIORITY_MAX}")
        uuid = request.uuid or new_uuid()
        args, kw, extra = request.args, request.kwargs, request.extra
        payload = encode([name, args, kw])
        digest = self._digest(uuid, payload)
        # A plugin is given containers that the caller does not hold (rule 12).
        args, kw, extra = tuple(args), dict(kw), dict(extra)
        given = (args, kw)
        available_at = request.available_at if request.available_at is not None else now
        deferred = 0.0
        try:
            values = await app.pm.hook.qtasks_add_task_before_broker(
                qtasks=app, broker=app.broker, uuid=uuid, task_name=name, priority=priority, args=args, kw=kw,
                extra=extra, queue=queue, available_at=available_at,
            )  # fmt: skip
        except TaskDefer as defer:
            values, deferred = defer.values, defer.seconds
        name, priority, args, kw, extra, queue, available_at = values
        model = TaskStatusNewSchema(
            task_name=name, queue=queue, priority=priority, args=args, kwargs=kw, created_at=now,
            updated_at=now, available_at=available_at + deferred, extra=extra,
        )  # fmt: skip
        model = await app.broker.add(uuid, model)
        if model.extra or model.args is not given[0] or model.kwargs is not given[1]:
            payload = encode([model.args, model.kwargs, model.extra])
        if len(payload) > app.config.max_payload:
            raise PayloadTooLargeError(
                f"task {name!r}: the arguments take {len(payload)} bytes, more than max_payload "
                f"({app.config.max_payload}); pass a reference to the data instead"
            )
        if model.task_name is not request.task_name:  # a plugin has put another task in its place
            declared = app.tasks.get(model.task_name)
        return Prepared(self._record(uuid, model, digest, declared, replay_of), model)

    def _digest(self, uuid: UUID, payload: bytes) -> str:
        """Tells the arguments of one uuid from others. The uuid as salt: equal arguments of two tasks must not
        look equal; the key of the application: arguments must not be guessed from it."""
        return hashlib.blake2b(payload, digest_size=16, salt=uuid.bytes, key=self._digest_key).hexdigest()

    def _record(
        self, uuid: UUID, model: TaskStatusNewSchema, digest: str, declared: Any, replay_of: UUID | None
    ) -> TaskRecord:
        unique_key = model.extra.get("unique_key")
        if unique_key is not None and not isinstance(unique_key, str):
            raise EncodeError(f"unique_key must be a string, not {unique_key!r}")
        if not 0 <= model.available_at <= TIME_MAX:
            raise ValueError(f"available_at is a time in Unix seconds, not {model.available_at!r}")
        return TaskRecord(
            uuid=uuid, task_name=model.task_name, queue=model.queue, priority=model.priority, args=model.args,
            kwargs=model.kwargs, created_at=model.created_at, updated_at=model.updated_at,
            available_at=model.available_at, extra=model.extra, digest=digest, unique_key=unique_key,
            retry=declared.retry if declared else None, result_ttl=declared.result_ttl if declared else None,
            replay_of=replay_of,
        )  # fmt: skip

    async def add(self, requests: Sequence[TaskRequest]) -> list[Task | QTasksError]:
        """Stores and queues tasks, in one step per batch. When a trigger refuses one, none is stored.

        Returns:
            For each request its task (with EXISTS, the one that stands), or the error that kept it out.

        Raises:
            EnqueueUnknownError: the connection was cut before the reply.
        """
        prepared: list[Prepared] = []
        try:
            for request in requests:
                prepared.append(await self.prepare(request))
        except BaseException:
            self._drop_traces(prepared)
            raise
        return await self.store(prepared)

    async def store(self, prepared: Sequence[Prepared], *, tries: int = TRIES) -> list[Task | QTasksError]:
        """As `add`, for tasks that passed the triggers."""
        if not prepared:
            return []
        try:
            verdicts = await self._app.delivery.add([item.record for item in prepared])
        except BaseException as error:
            self._drop_traces(prepared)
            if not isinstance(error, TransientError):
                raise
            raise EnqueueUnknownError(*(item.record.uuid for item in prepared)) from error
        results: list[Task | QTasksError] = []
        for item, verdict in zip(prepared, verdicts, strict=True):
            if verdict.kind is not _ADDED:
                results.append(await self._not_added(item, verdict, tries))
            elif item.trace is None:
                results.append(await self.announce(item))
            else:
                results.append(await self._traced(item, item.trace))
        return results

    def _drop_traces(self, prepared: Sequence[Prepared]) -> None:
        for item in prepared:
            if item.trace is not None:
                self._app.tracer.drop(item.trace)

    async def _traced(self, item: Prepared, trace: Part) -> Task:
        tracer = self._app.tracer
        with tracer.recording(trace):
            task = await self.announce(item)
        await tracer.end(trace, item.record.available_at)
        return task

    async def _not_added(self, item: Prepared, verdict: AddVerdict, tries: int) -> Task | QTasksError:
        record = item.record
        if item.trace is not None:
            self._app.tracer.drop(item.trace)
        match verdict.kind:
            case Added.CONFLICT:
                return UuidConflictError(
                    f"task {record.uuid} exists with another name, args or kwargs: use a new uuid"
                )
            case Added.FULL:
                return QueueFullError(
                    f"queue {record.queue!r} holds {self._app.config.max_queue} tasks already (max_queue); "
                    "nothing was stored"
                )
        existing = await self._app.get(verdict.uuid)
        if existing is None and verdict.kind is Added.EXISTS:
            if tries == 1:
                return QTasksError(
                    f"task {verdict.uuid}, which has the unique key {record.unique_key!r}, cannot be read; "
                    "nothing was stored"
                )
            # The task that had the unique key is gone since, so this one can be stored.
            return (await self.store([item._replace(trace=None)], tries=tries - 1))[0]
        return existing if existing is not None else self._task(record)

    async def announce(self, item: Prepared) -> Task:
        """Fires the signals for a task that is stored and queued."""
        app, record, model = self._app, item.record, item.model
        await app.broker.added(record.uuid, model)
        task = self._task(record)
        await app.pm.hook.qtasks_add_task_after_broker(
            qtasks=app, broker=app.broker, task=task, task_name=record.task_name, priority=record.priority,
            args=record.args, kw=record.kwargs,
        )  # fmt: skip
        return task

    def _task(self, record: TaskRecord) -> Task:
        task = task_from_record(record)
        task._app = self._app
        return task
