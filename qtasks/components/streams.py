"""Streams: the items of a generator task are stored in batches while it runs, and read meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from qtasks.codec import encode
from qtasks.errors import EncodeError, PluginResultError, StreamLostError, TaskNotFoundError, TaskRejected

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.components.task_executor import TaskExecutor
    from qtasks.context import TaskContext
    from qtasks.schemas import Task, TaskExecSchema

BATCH = 100
"""Items that are stored in one step at most; a generator that is this far ahead of the store waits."""
FLUSH_AFTER = 0.05
"""Seconds that an item waits at most for its batch to fill, before what there is is stored."""
READ = 500
POLL_FIRST, POLL_LONGEST = 0.005, 0.1


class StreamWriter:
    """Stores what a generator yields, batch by batch.

    For each batch `task_executor_run_task_gen` fires with its items, then `broker_update` and `storage_update` with
    those items as `returning`. What these two make of them is stored; the result of the task is made of the items
    as they were before: a plugin that encrypts what is stored must not hand ciphertext to the task's own `decode`.

    A batch is stored when it is full, or when its first item is `FLUSH_AFTER` old: a reader sees an item
    soon, however long the next one takes. Use it as an asynchronous context manager.

    Attributes:
        items: what is stored so far, as `task_executor_run_task_gen` left it.
    """

    def __init__(self, executor: TaskExecutor, task_func: TaskExecSchema, context: TaskContext) -> None:
        self._executor = executor
        self._task_func = task_func
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._batch: list[Any] = []
        self._waiting = asyncio.Event()
        self._storing = asyncio.Lock()
        self._size = 0
        self._error: Exception | None = None
        self._stored = 0
        self.items: list[Any] = []

    async def __aenter__(self) -> Self:
        self._flusher = asyncio.create_task(self._flush_in_time(), name="qtasks-stream")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
        finally:
            # A thread may outlive the run; what it still yields belongs to nobody.
            self._error = self._error or StreamLostError(f"the run of task {self._context.uuid} is over")
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)

    def put(self, item: Any) -> bool:
        """Takes one item, from any thread; whether `flush` must be awaited before the next one.

        Raises:
            Exception: what was wrong with an earlier batch.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            self._batch.append(item)
            waiting = len(self._batch)
        if waiting == 1:
            self._loop.call_soon_threadsafe(self._waiting.set)
        return waiting >= BATCH

    def flush_from_thread(self) -> None:
        """Waits in a thread until everything is stored."""
        asyncio.run_coroutine_threadsafe(self.flush(), self._loop).result()

    async def _flush_in_time(self) -> None:
        while self._error is None:
            await self._waiting.wait()
            await asyncio.sleep(FLUSH_AFTER)
            with suppress(Exception):  # it is kept, and raised where the next item is put
                await self.flush()

    async def flush(self) -> None:
        """Stores what is waiting.

        Raises:
            StreamLostError: the task belongs to another worker now.
            TaskRejected: the items cannot be stored.
            PluginError: a plugin failed on them.
        """
        async with self._storing:
            if self._error is not None:
                raise self._error
            with self._lock:
                batch, self._batch = self._batch, []
            self._waiting.clear()
            if not batch:
                return
            try:
                await self._store(batch)
            except Exception as error:
                self._error = error
                raise

    async def _store(self, batch: list[Any]) -> None:
        executor, handle, app = self._executor, self._context.handle, self._executor.app
        results = await executor.pm.hook.task_executor_run_task_gen(
            task_executor=executor, task_func=self._task_func, task_broker=self._context.task_broker, results=batch
        )  # fmt: skip
        fields = {"returning": results}
        fields = await app.storage.update(handle.uuid, await app.broker.update(handle.uuid, fields))
        stored = fields.get("returning")
        if not isinstance(stored, list):
            raise PluginResultError(
                f"a plugin on broker_update or storage_update put {type(stored).__name__} in the place of the list "
                f"of items that task {handle.uuid} yielded; it has to be a list"
            )
        try:
            self._size += len(encode(stored))
            if self._size > executor.config.max_payload:
                # The list of all items is the result: it is told now, not when the generator has ended.
                raise TaskRejected(
                    f"the stream takes more than max_payload ({executor.config.max_payload} bytes); "
                    "yield references instead"
                )
            held = await app.storage.append_items(handle, self._stored, stored)
        except EncodeError as error:
            raise TaskRejected(f"an item of the stream cannot be stored: {error}") from error
        if not held:
            raise StreamLostError(f"task {handle.uuid} belongs to another worker now; its stream ends here")
        self._stored += len(stored)
        self.items.extend(results)


async def run_stream(
    executor: TaskExecutor,
    task_func: TaskExecSchema,
    context: TaskContext,
    args: tuple[Any, ...],
    kw: dict[str, Any],
) -> list[Any]:
    """Runs a generator task with `stream=True`; gives all items, as they were before they were stored."""
    handler = task_func.generate_handler
    async with StreamWriter(executor, task_func, context) as writer:
        if task_func.kind == "async_generator":
            async with aclosing(task_func.func(*args, **kw)) as generator:
                async for item in generator:
                    if handler is not None:
                        item = handler(item)
                        item = await item if inspect.isawaitable(item) else item
                    if writer.put(item):
                        await writer.flush()
        else:
            await executor.in_thread(partial(_pump, task_func, writer, args, kw))
    return writer.items


def _pump(task_func: TaskExecSchema, writer: StreamWriter, args: tuple[Any, ...], kw: dict[str, Any]) -> None:
    """Iterates a plain generator in its thread, which cannot run further ahead than one batch."""
    handler = task_func.generate_handler
    for item in task_func.func(*args, **kw):
        if writer.put(item if handler is None else handler(item)):
            writer.flush_from_thread()


async def read_stream(app: QueueTasks, uuid: UUID, start: int) -> AsyncIterator[Any]:
    """The items of a task from `start` on, as they come, until it has ended. See `Task.stream`."""
    position, pause, ended = start, POLL_FIRST, False
    while True:
        items = await app.storage.read_items(uuid, position, READ)
        if items:
            pause = POLL_FIRST
            position += len(items)
            for item in await app.seen_items(uuid, items):
                yield item
        elif ended:
            return
        else:
            # What is stored when a task has ended is all there is: one more read gives it.
            ended = await app.ended(uuid)
            if not ended:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, POLL_LONGEST)


async def follow(app: QueueTasks, uuid: UUID) -> AsyncIterator[Task]:
    """Snapshots of a task, one for each change that is seen, until it has ended. See `Task.follow`."""
    last: tuple[Any, ...] = ()
    pause = POLL_FIRST
    while True:
        task = await app.get(uuid)
        if task is None:
            raise TaskNotFoundError(f"no task has the uuid {uuid}")
        now = (task.status, task.progress, task.attempt)
        if now != last:
            last, pause = now, POLL_FIRST
            yield task
        if task.finished:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, POLL_LONGEST)
