"""Runs the demo: finds out what is left to do, adds it, works on it, and goes on where it was interrupted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from qtasks.demo.files import DemoFile, find, queue_of, summary_uuid
from qtasks.demo.plugins import MEASURE, ROOTS
from qtasks.demo.tasks import STATE_FILE, SUMMARISE, app, watch
from qtasks.demo.view import View
from qtasks.errors import BulkAddError, UuidConflictError
from qtasks.schemas import Task, TaskPrioritySchema, TaskRequest, TaskStatusEnum, TaskStatusTerminalSchema
from qtasks.trace import TraceCall, TraceRecorder

TRACES = "demo.traces"
"""The name in the global config under which each queue has the trace of its one task."""
BATCH = 200
INTERRUPTED = 130
SUMMARY_TIMEOUT = 60.0
ANNOUNCE_TIMEOUT = 2.0

T = TypeVar("T")


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""


@dataclass(slots=True)
class Plan:
    """What a run found, and what it is going to do.

    Attributes:
        files: what the demo is about.
        done: those of them that have succeeded in earlier runs.
        waiting: those that are in the queue already.
        missing: those that are to be added.
        again: how many of these failed in an earlier run.
        stale: how many tasks of changed or deleted files were thrown away.
        traced: the task that is shown step by step.
    """

    files: list[DemoFile]
    done: int = 0
    waiting: int = 0
    missing: list[DemoFile] = field(default_factory=list)
    again: int = 0
    stale: int = 0
    traced: UUID | None = None
    fails_at_first: UUID | None = None


@dataclass(slots=True)
class Outcome:
    """What there is to show at the end."""

    tasks: list[Task]
    kinds: list[dict[str, Any]]
    traced: Task | None
    trace: list[TraceCall]


class DemoRun:
    """One run over one folder.

    Parameters:
        root: the folder, absolute.
        limit: files at most.
        view: shows what happens.
    """

    def __init__(self, root: Path, limit: int, view: View) -> None:
        self._root = root
        self._queue = queue_of(root)
        self._limit = limit
        self._view = view
        self._recorder = TraceRecorder(only=())
        self._earlier: list[TraceCall] = []
        self._announced = asyncio.Event()
        self._stop = asyncio.Event()
        self._finished: set[UUID] = set()

    async def __call__(self) -> int:
        """Runs it and gives the exit code: 0 all files succeeded, 1 some failed, 130 interrupted."""
        files, more, unnameable = await asyncio.to_thread(find, self._root, self._limit)
        self._view.found(self._root, len(files), more=more, unnameable=unnameable)
        if not files:
            return 0
        try:
            async with app:
                outcome = await self._work(Plan(files))
        except Interrupted:
            self._view.interrupted(len(self._finished), len(files))
            return INTERRUPTED
        self._view.outcome(outcome)
        return 0 if all(task.status is TaskStatusEnum.SUCCESS for task in outcome.tasks) else 1

    def on_signal(self, _number: int) -> None:
        """SIGINT or SIGTERM: stop in good order; the second time: at once."""
        if self._stop.is_set():
            os._exit(INTERRUPTED)
        self._stop.set()
        self._view.stopping()

    async def _work(self, plan: Plan) -> Outcome:
        await self._unless_stopped(self._prepare(plan))
        watch.on_end = self._on_end
        app.pm.add_observer(self._recorder, idle=True)
        app.worker.configure(queues=[self._queue])
        serving = asyncio.ensure_future(app.serve())
        try:
            return await self._unless_stopped(self._outcome(plan), serving)
        finally:
            await app.stop()
            await serving
            self._view.stop()
            app.pm.remove_observer(self._recorder)
            watch.on_end = None
            await self._save_trace(plan)

    async def _unless_stopped(self, step: Awaitable[T], serving: asyncio.Future[None] | None = None) -> T:
        """Waits for a step; a signal ends it, and so does a worker that cannot go on."""
        doing = asyncio.ensure_future(step)
        stopped = asyncio.ensure_future(self._stop.wait())
        ends = {doing, stopped, *([serving] if serving is not None else [])}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if serving is not None and serving.done():
                serving.result()
            raise Interrupted
        finally:
            for end in (doing, stopped):
                end.cancel()
            await asyncio.gather(doing, stopped, return_exceptions=True)

    # --- Before -----------------------------------------------------------------------------

    async def _prepare(self, plan: Plan) -> None:
        """Compares the folder with the store, and sweeps out what is not about these files any more."""
        if await app.global_config.get(ROOTS, self._queue) != str(self._root):
            await app.global_config.set(ROOTS, self._queue, str(self._root))
        wanted = {file.uuid for file in plan.files}
        known: dict[UUID, Task] = {}
        gone: list[Task] = []
        async for task in self._stored(MEASURE):
            if task.uuid not in wanted or task.status in (TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL):
                gone.append(task)
                plan.again += task.uuid in wanted
            else:
                known[task.uuid] = task
        plan.stale = len(gone) - plan.again
        for task in gone:
            if not task.finished:
                await app.cancel(task.uuid)
        await app.delete([task.uuid for task in gone])
        plan.missing = [file for file in plan.files if file.uuid not in known]
        self._finished = {uuid for uuid, task in known.items() if task.finished}
        plan.done = len(self._finished)
        plan.waiting = len(known) - plan.done
        self._choose(plan, known)
        await self._load_trace(plan)
        self._view.planned(plan)

    async def _stored(self, name: str) -> AsyncIterator[Task]:
        cursor: str | None = None
        while True:
            tasks, cursor = await app.get_all(cursor, 500)
            for task in tasks:
                if (task.queue, task.task_name) == (self._queue, name):
                    yield task
            if cursor is None:
                return

    def _choose(self, plan: Plan, known: dict[UUID, Task]) -> None:
        """The first file's task fails at first; it is also the one that is shown step by step."""
        for uuid, task in known.items():
            if task.kwargs.get("fails_at_first"):
                plan.traced = uuid
                return
        if plan.missing:
            plan.traced = plan.fails_at_first = plan.missing[0].uuid

    async def _load_trace(self, plan: Plan) -> None:
        saved = await app.global_config.get(TRACES, self._queue) or {}
        if saved.get("uuid") == str(plan.traced):
            self._earlier = [TraceCall.from_dict(call) for call in saved["calls"]]
        elif plan.traced is None or plan.traced in self._finished:
            # Its run was killed before its trace was kept: another one is shown.
            rest = [file.uuid for file in plan.files if file.uuid not in self._finished]
            plan.traced = rest[0] if rest else plan.traced
        if plan.traced is not None:
            self._recorder = TraceRecorder(only=[plan.traced])

    async def _save_trace(self, plan: Plan) -> None:
        calls = self._trace(plan)
        if plan.traced is not None and len(calls) > len(self._earlier):
            value = {"uuid": str(plan.traced), "calls": [call.to_dict() for call in calls]}
            await app.global_config.set(TRACES, self._queue, value)

    def _trace(self, plan: Plan) -> list[TraceCall]:
        return self._earlier + (self._recorder.calls(plan.traced) if plan.traced is not None else [])

    # --- During -----------------------------------------------------------------------------

    async def _outcome(self, plan: Plan) -> Outcome:
        if plan.done < len(plan.files):
            self._view.start(len(plan.files), plan.done)
        running_here = plan.traced is not None and plan.traced not in self._finished
        await self._add(plan)
        tasks = [await app.wait_result(file.uuid) for file in plan.files if file.uuid != plan.traced]
        if running_here:
            await self._until_announced()
        if plan.traced is not None:
            tasks.append(await app.wait_result(plan.traced))
        failed = sum(task.status is not TaskStatusEnum.SUCCESS for task in tasks)
        kinds = await self._summarise(summary_uuid(plan.files, failed))
        return Outcome(tasks, kinds, tasks[-1] if plan.traced is not None else None, self._trace(plan))

    async def _add(self, plan: Plan) -> None:
        """Adds what is missing. The uuids are fixed, so adding a task twice does no harm."""
        for start in range(0, len(plan.missing), BATCH):
            requests = [
                TaskRequest(
                    task_name=MEASURE, args=(file.path,), queue=self._queue, uuid=file.uuid,
                    kwargs={"fails_at_first": True} if file.uuid == plan.fails_at_first else {},
                )
                for file in plan.missing[start : start + BATCH]
            ]  # fmt: skip
            try:
                await app.add_tasks(requests)
            except BulkAddError as error:
                # Another run over the same folder was quicker, with another task to fail at first.
                others = [e for e in error.errors.values() if not isinstance(e, UuidConflictError)]
                if others:
                    raise others[0] from error

    def _on_end(self, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema) -> None:
        if task_broker.name != MEASURE:
            return
        retry_in = getattr(model, "retry_in", None)
        if retry_in is not None:
            self._view.retried(str(task_broker.args[0]), retry_in)
            return
        self._finished.add(task_broker.uuid)
        if task_broker.uuid in (self._recorder.only or ()):
            self._announced.set()
        self._view.ended(str(task_broker.args[0]), model.status, len(self._finished))

    async def _until_announced(self) -> None:
        """The signals after a settle come a little later than the result."""
        try:
            async with asyncio.timeout(ANNOUNCE_TIMEOUT):
                await self._announced.wait()
        except TimeoutError:
            pass  # another process ran it

    async def _summarise(self, uuid: UUID) -> list[dict[str, Any]]:
        stale = [task.uuid async for task in self._stored(SUMMARISE) if task.finished and task.uuid != uuid]
        await app.delete(stale)
        task = await app.add_task(SUMMARISE, queue=self._queue, uuid=uuid, timeout=SUMMARY_TIMEOUT)
        return task.returning or []


def forget() -> None:
    """Deletes the state file, so that the next run starts over."""
    for suffix in ("", "-wal", "-shm"):
        Path(STATE_FILE + suffix).unlink(missing_ok=True)
