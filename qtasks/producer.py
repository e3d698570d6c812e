"""The way of a task into the queue: triggers, checks, one stored step, announcement."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast
from uuid import UUID

from qtasks.codec import encode_once
from qtasks.components.broker import Broker
from qtasks.components.primitives import Added, AddVerdict
from qtasks.components.storage import Storage
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
from qtasks.making import maker
from qtasks.registry import NAME, TASK_NAME, check_name
from qtasks.schemas import (
    PRIORITY_MAX,
    PRIORITY_MIN,
    TIME_MAX,
    Task,
    TaskRecord,
    TaskRequest,
    TaskStatusNewSchema,
    make_new,
    task_from_record,
)
from qtasks.tracing import FLAG

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.tracing import Part


_ADDED = Added.ADDED

TRIES = 3
"""How often a task is offered whose unique key another one had that is not there any more when it is looked for."""


_BEFORE = frozenset({"qtasks_add_task_before_broker", "broker_add_before", "storage_add"})
_AFTER = frozenset({"broker_add_after", "qtasks_add_task_after_broker"})


class Prepared(TaskRecord):
    """The record of a task that passed the producer triggers and is ready to be stored, with what its announcement
    needs. (One object, not two, for each task of a batch: the collector of cycles runs by their number.)

    No dataclass of its own: a storage is given it as a record, and may look at its fields, or make a record of them.

    Attributes:
        model: as the triggers left it; `None` where nobody was told of them.
        trace: what is recorded of the task, if it is traced.
    """

    __slots__ = ("model", "trace")

    model: TaskStatusNewSchema | None
    trace: Part | None


_make_prepared = maker(Prepared)


class Producer:
    """Puts tasks into the queue of one application."""

    def __init__(self, app: QueueTasks) -> None:
        self._app = app
        secret = app.config.digest_key
        self._digest_key = (
            b"" if secret is None else hashlib.blake2b(secret.get_secret_value().encode()).digest()
        )
        self._unheard: frozenset[str] | None = None
        self._silent_before = self._silent_after = False

    def _look(self) -> None:
        """Looks whether anybody is told of the triggers; again when plugins or observers came or went."""
        app = self._app
        self._unheard = unheard = app.pm.unheard
        broker, own = app.broker, type(app.broker)
        # A component of a third party may do more there than to fire its trigger.
        plain = own.add is Broker.add and own.added is Broker.added and type(app.storage).add is Storage.add
        anything = broker.capabilities.priorities and broker.capabilities.delayed
        self._silent_before = plain and anything and unheard >= _BEFORE
        self._silent_after = plain and unheard >= _AFTER

    async def prepare(self, request: TaskRequest, *, replay_of: UUID | None = None) -> Prepared:
        """Fires the three producer triggers and checks what comes out.

        Raises:
            PluginError, TaskCancelError, TaskRejected: a plugin refused.
            InvalidNameError, EncodeError, PayloadTooLargeError, ValueError: the request is not valid.
        """
        return (await self._prepare_all([request], replay_of))[0]

    async def _prepare_all(
        self, requests: Sequence[TaskRequest], replay_of: UUID | None = None
    ) -> list[Prepared]:
        """As `prepare`, for some. Where nobody is told of the triggers, a task needs no coroutine and no model."""
        app = self._app
        pm, tracer, now = app.pm, app.tracer, app.clock()
        prepared: list[Prepared] = []
        try:
            for request in requests:
                if (tracer.on or request.extra) and tracer.wanted(request.extra):
                    prepared.append(await self._prepare_traced(request, replay_of))
                    continue
                if self._unheard is not pm.unheard:
                    self._look()
                if self._silent_before:
                    item, size = self._as_asked(request, replay_of, now)
                    self._check(item, None if item.extra else size)
                else:
                    item = await self._prepare(request, replay_of)
                prepared.append(item)
        except BaseException:
            self._drop_traces(prepared)
            raise
        return prepared

    async def _prepare_traced(self, request: TaskRequest, replay_of: UUID | None) -> Prepared:
        uuid = request.uuid or new_uuid()
        request = replace(request, uuid=uuid, extra={**request.extra, FLAG: True})
        part = self._app.tracer.begin(uuid)
        try:
            with self._app.tracer.recording(part):
                item = await self._prepare(request, replay_of)
        except BaseException:
            self._app.tracer.drop(part)
            raise
        item.trace = part
        return item

    async def _prepare(self, request: TaskRequest, replay_of: UUID | None) -> Prepared:
        item, _ = self._as_asked(request, replay_of, self._app.clock())
        await self._pass_triggers(item)
        # Measured anew: a plugin may have changed them in place, although it must not.
        self._check(item, None)
        return item

    def _as_asked(self, request: TaskRequest, replay_of: UUID | None, now: float) -> tuple[Prepared, int]:
        """The record as the caller wants it, before any trigger, and the bytes of its arguments."""
        app = self._app
        name, queue, priority = request.task_name, request.queue, request.priority
        declared = app.tasks.get(name)
        if declared is None:  # else its names were checked when it was declared
            check_name(name, "task name", TASK_NAME)
            retry = result_ttl = None
            if queue is None:
                queue = "default"
            if priority is None:
                priority = 0
        else:
            retry, result_ttl = declared.retry, declared.result_ttl
            if queue is None:
                queue = declared.queue
            if priority is None:
                priority = declared.priority
        if declared is None or queue != declared.queue:
            check_name(queue, "queue name", NAME)
        if not (isinstance(priority, int) and PRIORITY_MIN <= priority <= PRIORITY_MAX):
            raise ValueError(
                f"priority {priority!r} is no whole number from {PRIORITY_MIN} to {PRIORITY_MAX}"
            )
        uuid = request.uuid or new_uuid()
        args, kwargs = request.args, request.kwargs
        payload = encode_once([name, args, kwargs])
        digest = self._digest(uuid, payload)
        available_at = request.available_at
        # A plugin is given containers that the caller does not hold (rule 12).
        item = _make_prepared(
            uuid=uuid, task_name=name, queue=queue, priority=priority, args=tuple(args), kwargs=dict(kwargs),
            created_at=now, updated_at=now, available_at=now if available_at is None else available_at, retry=retry,
            extra=dict(request.extra), digest=digest, result_ttl=result_ttl, replay_of=replay_of,
        )  # fmt: skip
        item.model = item.trace = None
        return item, len(payload)

    async def _pass_triggers(self, item: Prepared) -> None:
        """Fires the three triggers, and takes into the record what plugins put in its place."""
        app, uuid, asked = self._app, item.uuid, item.task_name
        deferred = 0.0
        try:
            values = await app.pm.hook.qtasks_add_task_before_broker(
                qtasks=app, broker=app.broker, uuid=uuid, task_name=asked, priority=item.priority,
                args=item.args, kw=item.kwargs, extra=item.extra, queue=item.queue,
                available_at=item.available_at,
            )  # fmt: skip
        except TaskDefer as defer:
            values, deferred = defer.values, defer.seconds
        name, priority, args, kw, extra, queue, available_at = values
        model = make_new(
            task_name=name, queue=queue, priority=priority, args=args, kwargs=kw, created_at=item.created_at,
            updated_at=item.created_at, available_at=available_at + deferred, extra=extra,
        )  # fmt: skip
        item.model = model = await app.broker.add(uuid, model)
        item.task_name, item.queue, item.priority = model.task_name, model.queue, model.priority
        item.args, item.kwargs, item.extra = model.args, model.kwargs, model.extra
        item.created_at, item.updated_at = model.created_at, model.updated_at
        item.available_at = model.available_at
        if model.task_name is not asked:  # a plugin has put another task in its place
            declared = app.tasks.get(model.task_name)
            item.retry = declared.retry if declared else None
            item.result_ttl = declared.result_ttl if declared else None

    def _check(self, item: Prepared, size: int | None) -> None:
        """What is stored must be storable. `size`: bytes of name and arguments, where they are known."""
        if size is None:
            extra = [item.extra] if item.extra else []
            size = len(encode_once([item.task_name, item.args, item.kwargs, *extra]))
        if size > self._app.config.max_payload:
            raise PayloadTooLargeError(
                f"task {item.task_name!r}: the arguments take {size} bytes, more than max_payload "
                f"({self._app.config.max_payload}); pass a reference to the data instead"
            )
        if item.extra:
            unique_key = item.extra.get("unique_key")
            if unique_key is not None and not isinstance(unique_key, str):
                raise EncodeError(f"unique_key must be a string, not {unique_key!r}")
            item.unique_key = unique_key
        if not 0 <= item.available_at <= TIME_MAX:
            raise ValueError(f"available_at is a time in Unix seconds, not {item.available_at!r}")

    def _digest(self, uuid: UUID, payload: bytes) -> str:
        """Tells the arguments of one uuid from others. The uuid as salt: equal arguments of two tasks must not
        look equal; the key of the application: arguments must not be guessed from it."""
        return hashlib.blake2b(payload, digest_size=16, salt=uuid.bytes, key=self._digest_key).hexdigest()

    async def add(self, requests: Sequence[TaskRequest]) -> list[Task | QTasksError]:
        """Stores and queues tasks, in one step per batch. When a trigger refuses one, none is stored.

        Returns:
            For each request its task (with EXISTS, the one that stands), or the error that kept it out.

        Raises:
            EnqueueUnknownError: the connection was cut before the reply.
        """
        return await self.store(await self._prepare_all(requests))

    async def store(self, prepared: list[Prepared], *, tries: int = TRIES) -> list[Task | QTasksError]:
        """As `add`, for tasks that passed the triggers. The list is used up."""
        if not prepared:
            return []
        try:
            verdicts = await self._app.delivery.add(prepared)
        except BaseException as error:
            self._drop_traces(prepared)
            if not isinstance(error, TransientError):
                raise
            raise EnqueueUnknownError(*(item.uuid for item in prepared)) from error
        pm = self._app.pm
        # Each result takes the place of its record, which is let go then: what is made and not let go is what
        # calls the collector of cycles.
        results = cast("list[Task | QTasksError]", prepared)
        for i, (item, verdict) in enumerate(zip(prepared, verdicts, strict=True)):
            if verdict.kind is not _ADDED:
                results[i] = await self._not_added(item, verdict, tries)
            elif item.trace is not None:
                results[i] = await self._traced(item, item.trace)
            else:
                if self._unheard is not pm.unheard:
                    self._look()
                results[i] = self._task(item) if self._silent_after else await self.announce(item)
        return results

    def _drop_traces(self, prepared: Sequence[Prepared]) -> None:
        for item in prepared:
            if item.trace is not None:
                self._app.tracer.drop(item.trace)

    async def _traced(self, item: Prepared, trace: Part) -> Task:
        tracer = self._app.tracer
        with tracer.recording(trace):
            task = await self.announce(item)
        await tracer.end(trace, item.available_at)
        return task

    async def _not_added(self, item: Prepared, verdict: AddVerdict, tries: int) -> Task | QTasksError:
        if item.trace is not None:
            self._app.tracer.drop(item.trace)
            item.trace = None
        match verdict.kind:
            case Added.CONFLICT:
                return UuidConflictError(
                    f"task {item.uuid} exists with another name, args or kwargs: use a new uuid"
                )
            case Added.FULL:
                return QueueFullError(
                    f"queue {item.queue!r} holds {self._app.config.max_queue} tasks already (max_queue); "
                    "nothing was stored"
                )
        existing = await self._app.get(verdict.uuid)
        if existing is None and verdict.kind is Added.EXISTS:
            if tries == 1:
                return QTasksError(
                    f"task {verdict.uuid}, which has the unique key {item.unique_key!r}, cannot be read; "
                    "nothing was stored"
                )
            # The task that had the unique key is gone since, so this one can be stored.
            return (await self.store([item], tries=tries - 1))[0]
        return existing if existing is not None else self._task(item)

    async def announce(self, item: Prepared) -> Task:
        """Fires the signals for a task that is stored and queued."""
        app, model = self._app, item.model
        if model is None:
            model = make_new(
                task_name=item.task_name, queue=item.queue, priority=item.priority, args=item.args,
                kwargs=item.kwargs, created_at=item.created_at, updated_at=item.updated_at,
                available_at=item.available_at, extra=item.extra,
            )  # fmt: skip
        await app.broker.added(item.uuid, model)
        task = self._task(item)
        await app.pm.hook.qtasks_add_task_after_broker(
            qtasks=app, broker=app.broker, task=task, task_name=item.task_name, priority=item.priority,
            args=item.args, kw=item.kwargs,
        )  # fmt: skip
        return task

    def _task(self, record: TaskRecord) -> Task:
        task = task_from_record(record)
        task._app = self._app
        return task
