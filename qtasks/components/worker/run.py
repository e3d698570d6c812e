"""The way of one task through its slot: every trigger from the start to the settle, and what an
error at each place means for the task (the table "When a plugin fails" in docs/delivery.md)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtasks._failpoints import hit
from qtasks.closing import close_all
from qtasks.components.primitives import FENCED_FIELDS, Update
from qtasks.components.task_executor import ThreadStillRunning
from qtasks.components.worker.outcome import (
    Ended,
    cancel_model,
    error_model,
    finish_failure,
    release_settle,
    retry_settle,
    stored_result,
    success_model,
    terminal_settle,
    traceback_of,
)
from qtasks.components.worker.slot import Slot, Stop
from qtasks.context import TaskContext, _current
from qtasks.errors import (
    EncodeError,
    PayloadTooLargeError,
    PluginError,
    TaskCancelError,
    TaskDefer,
    TaskPluginTriggerError,
    TaskRejected,
    TaskTimeoutError,
)
from qtasks.schemas import (
    TaskExecSchema,
    TaskPrioritySchema,
    TaskRecord,
    TaskStatusEnum,
    TaskStatusErrorSchema,
    TaskStatusProcessSchema,
    TaskStatusSuccessSchema,
    TaskStatusTerminalSchema,
    make_held,
    make_process,
    task_from_record,
)
from qtasks.text import one_line

if TYPE_CHECKING:
    from qtasks.components.worker.worker import Worker

log = logging.getLogger("qtasks.worker")

UNKNOWN_TASK_DELAY = 1.0

_COUNTED = FENCED_FIELDS | {"attempt", "deliveries"}
"""What the start patch never changes."""


class UnknownTask(Exception):
    """No task of this name is declared in this process."""


class FollowUpError(PluginError):
    """A task that a plugin put into `then` was refused. The reason is its `__cause__`."""


class Run:
    """One delivery of one task.

    Attributes:
        thread: where a thread outlives the run, the future that is done when it returns; the slot
            stays occupied until then.
    """

    __slots__ = (
        "_args", "_context", "_kw", "_token", "app", "slot", "task_broker", "task_func", "thread", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, slot: Slot) -> None:
        self.worker = worker
        self.app = worker.app
        self.slot = slot
        self.thread: asyncio.Future[Any] | None = None
        self.task_func: TaskExecSchema
        self.task_broker: TaskPrioritySchema
        self._context: TaskContext | None = None

    async def __call__(self) -> Ended | None:
        """Runs the task and gives what is to be written; `None` where nothing may be (the lease is lost)."""
        slot = self.slot
        try:
            try:
                slot.enter()
                try:
                    await self._before()
                finally:
                    slot.leave()
                    if slot.interrupted:
                        await slot.take_back()
            except UnknownTask as unknown:
                return self._unknown(unknown)
            except (TaskCancelError, TaskDefer, TaskRejected) as control:
                await self._close(control)
                return await self._controlled(control)
            except (PluginError, asyncio.CancelledError) as error:
                await self._close(error)
                if slot.interrupted:
                    return await self._stopped(error)
                if not isinstance(error, PluginError):
                    raise
                return await self._release_after(error)
            return await self._executed()
        except BaseException as error:
            await self._close(error)
            raise
        finally:
            if self._context is not None:
                _current.reset(self._token)

    # --- Before the run ---------------------------------------------------------------------

    async def _before(self) -> None:
        app, worker, record, handle = self.app, self.worker, self.slot.record, self.slot.handle
        uuid, storage, broker = handle.uuid, app.storage, app.broker
        task = task_from_record(record)
        task.task_name, task.priority = await storage.add_process(uuid, record.task_name, record.priority)
        task = await broker.get(uuid, await storage.get(uuid, task))
        name, priority, args, kw, created = (
            task.task_name, task.priority, task.args, task.kwargs, record.created_at,
        )  # fmt: skip
        if handle.restored:
            name, priority, args, kw, created = await storage.running_older_tasks(
                worker, uuid, name, priority, args, kw, created
            )
        name, priority, args, kw, created = await broker.add_worker(
            worker, uuid, name, priority, args, kw, created
        )
        name, priority, args, kw, created = await worker.add(uuid, name, priority, args, kw, created)
        task_func = self._declared(name)
        started_at = record.started_at or app.clock()
        self.task_broker = make_held(
            priority=priority, uuid=uuid, name=name, queue=record.queue, args=args, kwargs=kw,
            attempt=record.attempt, created_at=created, updated_at=started_at,
        )  # fmt: skip
        model = make_process(
            task_name=name, queue=record.queue, priority=priority, args=args, kwargs=kw, created_at=created,
            updated_at=started_at, available_at=record.available_at, attempt=record.attempt, extra=task.extra,
            started_at=started_at,
        )  # fmt: skip
        replaced = await self.app.pm.hook.worker_execute_before(
            worker=worker, task_func=task_func, task_broker=self.task_broker, model=model
        )
        if replaced is not model:
            task_func = self._take(replaced)
        extra = await self._start_patch(replaced, task.extra)
        task_func, task_broker = await app.pm.hook.worker_run_task_before(
            worker=worker, task_func=task_func, task_broker=self.task_broker
        )
        self.task_func, self.task_broker = task_func, task_broker
        self._context = TaskContext(app, handle, task_func, task_broker, record.available_at, extra)
        self._token = _current.set(self._context)
        self._args, self._kw = await app.task_executor.prepare(self.task_func, self.task_broker)

    def _declared(self, name: str) -> TaskExecSchema:
        declared: TaskExecSchema | None = self.app.tasks.get(name)
        if declared is None:
            raise UnknownTask(name)
        self.task_func = declared
        return declared

    def _take(self, model: TaskStatusProcessSchema) -> TaskExecSchema:
        self.task_broker = replace(
            self.task_broker, name=model.task_name, priority=model.priority, queue=model.queue, args=model.args,
            kwargs=model.kwargs,
        )  # fmt: skip
        return self._declared(model.task_name)

    async def _start_patch(
        self, model: TaskStatusProcessSchema, seen_extra: dict[str, Any]
    ) -> dict[str, Any]:
        """Fires `broker_update` and `storage_update` with the start; writes only what a plugin changed. Gives
        `extra` as it then is."""
        uuid, record = self.slot.handle.uuid, self.slot.record
        patch = {
            "status": TaskStatusEnum.PROCESS, "started_at": model.started_at, "updated_at": model.updated_at,
            "extra": model.extra,
        }  # fmt: skip
        kw = await self.app.storage.update(uuid, await self.app.broker.update(uuid, patch))
        if (
            kw == patch
            and model.extra is seen_extra
            and model.started_at == model.updated_at == record.started_at
        ):
            return seen_extra
        known = {"started_at": record.started_at, "updated_at": record.started_at, "extra": seen_extra}
        changes = {
            name: value
            for name, value in kw.items()
            if name not in _COUNTED and (name not in known or value is not known[name])
        }
        if changes:
            await self.app.storage.update_many([Update(uuid, changes)])
            self.slot.record = replace(record, **changes)
        extra: dict[str, Any] = kw.get("extra", model.extra)
        return extra

    # --- The run ----------------------------------------------------------------------------

    async def _executed(self) -> Ended | None:
        slot, task_func, context = self.slot, self.task_func, self._context
        assert context is not None
        hit("worker.before_run")
        executor = self.app.task_executor
        if task_func.max_time is not None:
            self.worker.deadlines.watch(slot, task_func.max_time)
        try:
            slot.enter()
            try:
                result = await executor.execute(task_func, self.task_broker, context, self._args, self._kw)
            except TaskPluginTriggerError as error:
                result = await executor.trigger_error(task_func, self.task_broker, error)
            finally:
                slot.leave()
                slot.deadline = None
                if slot.interrupted:
                    await slot.take_back()
            result = await executor.finish(task_func, self.task_broker, result)
            if (resources := context.detach()) is not None:
                await close_all(resources, None, task_func.max_time)
        except (TaskCancelError, TaskDefer, TaskRejected) as control:
            await self._close(control)
            return await self._controlled(control)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # not the task's: somebody ends the process, or the loop
        except BaseException as error:
            return await self._ended_by(error)
        return await self._finish(success_model(slot.record, result, self.app.clock()))

    async def _ended_by(self, error: BaseException) -> Ended | None:
        if isinstance(error, ThreadStillRunning):
            self.thread = error.future
        await self._close(error)
        if self.slot.interrupted:
            return await self._stopped(error)
        if (own := asyncio.current_task()) is not None and own.cancelling():
            raise asyncio.CancelledError from error  # the subworker is to end
        return await self._failed(error)

    async def _close(self, error: BaseException) -> None:
        """Closes what was opened for the run. The error stands, whatever comes of this; what a thread still uses
        stays open until it returns."""
        context = self._context
        if context is None or (self.thread is not None and not self.thread.done()):
            return
        try:
            await context.close(error)
        except asyncio.CancelledError:
            if (own := asyncio.current_task()) is not None and own.cancelling():
                raise  # not by what was closed: the subworker is to end
        except Exception as failure:
            log.error("task %s: closing what it used failed: %s", self.slot.handle.uuid, one_line(failure))

    async def outlived(self, thread: asyncio.Future[Any]) -> None:
        """Waits for a thread that outlives the run, and closes what it used."""
        await asyncio.wait([thread])
        await self._close(ThreadStillRunning(thread))

    async def _stopped(self, error: BaseException) -> Ended | None:
        """The slot was interrupted. What the code raised then is not a failure of the task."""
        slot = self.slot
        if isinstance(error, Exception):
            log.warning("task %s raised when it was stopped: %r", slot.handle.uuid, error)
        match slot.stop:
            case Stop.LOST:
                log.warning("task %s: %s; its result is dropped", slot.handle.uuid, Stop.LOST.value)
                return None
            case Stop.CANCEL:
                return await self._finish(cancel_model(slot.record, slot.reason, self.app.clock()))
            case Stop.TIMEOUT:
                seconds = self.task_func.max_time
                late = TaskTimeoutError(f"the task ran longer than max_time ({seconds} s)")
                late.__cause__ = error if isinstance(error, Exception) else None
                return await self._failed(late)
        if self.thread is not None:
            return None  # what still runs is left to its lease
        return Ended(release_settle(slot.handle, self.app.clock(), 0.0, counted=False))

    # --- Outcomes ---------------------------------------------------------------------------

    async def _controlled(self, control: TaskCancelError | TaskDefer | TaskRejected) -> Ended | None:
        record, now = self.slot.record, self.app.clock()
        if isinstance(control, TaskDefer):
            return Ended(release_settle(self.slot.handle, now, control.seconds, counted=False))
        if isinstance(control, TaskCancelError):
            return await self._finish(cancel_model(record, control.reason, now))
        model = error_model(record, f"{type(control).__name__}: {control}", now)
        return await self._finish(model, error=type(control))

    async def _release_after(self, error: PluginError) -> Ended | None:
        """A plugin failed before the run: not the task's fault."""
        handle, config = self.slot.handle, self.app.config
        if handle.deliveries >= config.max_deliveries:
            log.error("task %s is dead: %s", handle.uuid, one_line(error))
            model = error_model(self.slot.record, str(error), self.app.clock(), failed=False)
            return await self._finish(model, dead=True, error=type(error))
        delay = min(config.release_delay * 2 ** (handle.deliveries - 1), config.release_max_delay)
        log.warning("task %s is put back for %.3g s: %s", handle.uuid, delay, one_line(error))
        return Ended(release_settle(handle, self.app.clock(), delay, counted=True))

    def _unknown(self, unknown: UnknownTask) -> Ended:
        handle, config, now = self.slot.handle, self.app.config, self.app.clock()
        # From when it was due: a retry or a defer moves that, a try to find the task does not.
        # Both times are of the storage's clock: that of this worker may be wrong.
        if (self.slot.record.started_at or now) > self.slot.record.available_at + config.missing_grace:
            reason = f"no task is registered as {str(unknown)!r} in this worker"
            log.error("task %s is dead: %s", handle.uuid, reason)
            model = error_model(self.slot.record, reason, now, failed=False)
            return Ended(terminal_settle(handle, self.slot.record, model, config, dead=True))
        log.warning("task %s is put back: no task is registered as %r here", handle.uuid, str(unknown))
        settle = release_settle(handle, now, UNKNOWN_TASK_DELAY, counted=False)
        settle.changes["available_at"] = self.slot.record.available_at
        return Ended(settle)

    async def _failed(self, error: BaseException) -> Ended | None:
        """User code failed: `worker_task_error_retry` decides, within the task's `retry`."""
        app, task_func, record, config = self.app, self.task_func, self.slot.record, self.app.config
        trace = traceback_of(error, config.max_traceback)
        model = error_model(record, trace, app.clock())
        try:
            model = await app.pm.hook.worker_task_error_retry(
                worker=self.worker, broker=app.broker, task_func=task_func, task_broker=self.task_broker,
                e=error, trace=trace, model=model,
            )  # fmt: skip
        except PluginError as failure:
            error.add_note(f"worker_task_error_retry failed too: {failure}")
            model = replace(model, traceback=traceback_of(error, config.max_traceback))
        # A plugin decides whether and when; the count, and with it the cap, is the worker's.
        model = replace(model, attempt=record.attempt + 1) if model.attempt != record.attempt + 1 else model
        limit = record.retry if record.retry is not None else task_func.retry
        if model.retry_in is None or record.attempt >= limit or self._unrepeatable():
            return await self._finish(
                model if model.retry_in is None else replace(model, retry_in=None),
                dead=True,
                error=type(error),
            )
        return await self._retry(model, model.retry_in, type(error))

    def _unrepeatable(self) -> bool:
        return self.thread is not None and not self.task_func.idempotent

    async def _retry(
        self, model: TaskStatusErrorSchema, delay: float, error: type[BaseException]
    ) -> Ended | None:
        uuid, app, due = self.slot.handle.uuid, self.app, model.updated_at + delay
        patch = {
            "status": TaskStatusEnum.NEW, "attempt": model.attempt, "available_at": due,
            "updated_at": model.updated_at, "traceback": model.traceback, "extra": model.extra,
        }  # fmt: skip
        try:
            changes = await app.storage.update(uuid, await app.broker.update(uuid, patch))
        except PluginError as failure:
            return await self._release_after(failure)
        except (TaskCancelError, TaskDefer, TaskRejected) as control:
            return await self._controlled(control)
        # What the protocol needs stays, also where a plugin replaced all fields.
        changes = {"available_at": due, "updated_at": model.updated_at, **changes, "attempt": model.attempt}
        if changes["available_at"] == due:
            # No plugin chose another time: the stores add the delay, each by its own clock.
            del changes["available_at"]
        else:
            delay = max(0.0, changes["available_at"] - model.updated_at)
        settle = retry_settle(self.slot.handle, changes, delay)
        return Ended(settle, self.task_func, self.task_broker, model, error)

    async def _finish(
        self, model: TaskStatusTerminalSchema, *, dead: bool = False, error: type[BaseException] | None = None
    ) -> Ended | None:
        """Fires the finish triggers and makes the settle. `error`: what the task failed with, if it did."""
        record, handle, app = self.slot.record, self.slot.handle, self.app
        task_func, task_broker = self._known()
        then: tuple[TaskRecord, ...] = ()
        returning: Any = None
        try:
            task_broker, model = await app.pm.hook.worker_remove_finished_task(
                worker=self.worker,
                broker=app.broker,
                task_func=task_func,
                task_broker=task_broker,
                model=model,
            )
            model = await app.broker.remove_finished_task(task_broker, model)
            if isinstance(model, TaskStatusSuccessSchema):
                returning = stored_result(model.returning, app.config)
            if model.then:
                then = await self._follow_ups(model)
        except (PluginError, EncodeError, PayloadTooLargeError) as failure:
            # Neither the unreplaced result nor what a plugin says of it may be written: the plugin that
            # encrypts it may be the one that failed.
            log.error("task %s ends in ERROR: %s", handle.uuid, one_line(failure))
            if isinstance(model, TaskStatusSuccessSchema) or not isinstance(failure, FollowUpError):
                model = error_model(record, finish_failure(failure), app.clock(), failed=False)
                dead, error = True, type(failure)
        dead = dead and isinstance(model, TaskStatusErrorSchema)
        settle = terminal_settle(handle, record, model, app.config, dead=dead, returning=returning, then=then)
        hit("worker.before_settle")
        return Ended(settle, task_func, task_broker, model, error)

    def _known(self) -> tuple[TaskExecSchema, TaskPrioritySchema]:
        """What the finish triggers are given when the run ended before its own values were made."""
        record = self.slot.record
        try:
            return self.task_func, self.task_broker
        except AttributeError:
            pass
        declared = self.app.tasks.get(record.task_name) or TaskExecSchema(name=record.task_name, func=_never)
        try:
            return declared, self.task_broker
        except AttributeError:
            return declared, TaskPrioritySchema(
                priority=record.priority, uuid=record.uuid, name=record.task_name, queue=record.queue,
                args=record.args, kwargs=record.kwargs, attempt=record.attempt, created_at=record.created_at,
                updated_at=record.updated_at,
            )  # fmt: skip

    async def _follow_ups(self, model: TaskStatusTerminalSchema) -> tuple[TaskRecord, ...]:
        """Takes `then` through the producer triggers; one that is refused ends the task in ERROR."""
        records = []
        for request in model.then:
            try:
                prepared = await self.app.producer.prepare(request)
                if prepared.trace is not None:
                    await self.app.tracer.end(prepared.trace, prepared.available_at)
                records.append(prepared)
            except Exception as error:
                raise FollowUpError(f"the follow-up task {request.task_name!r} was refused") from error
        return tuple(records)


def _never() -> None:
    raise RuntimeError("this task is not declared here")
