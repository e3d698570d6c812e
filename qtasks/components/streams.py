"""Streams: the items of a generator task are stored in batches while it runs, and read meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from qtasks.components.primitives import DeliveryHandle
from qtasks.errors import EncodeError, StreamLostError, TaskRejected

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.components.task_executor import TaskExecutor
    from qtasks.context import TaskContext
    from qtasks.schemas import TaskExecSchema, TaskPrioritySchema

BATCH = 100
"""Items that are stored in one step at most; a generator that is this far ahead of the store waits."""
FLUSH_AFTER = 0.05
"""Seconds after which a smaller batch is stored with the next item."""
READ = 500
POLL_FIRST, POLL_LONGEST = 0.005, 0.1


class StreamWriter:
    """Stores what a generator yields; `task_executor_run_task_gen` fires once per batch."""

    def __init__(
        self, executor: TaskExecutor, task_func: TaskExecSchema, task_broker: TaskPrioritySchema,
        handle: DeliveryHandle,
    ) -> None:  # fmt: skip
        self._executor = executor
        self._task_func = task_func
        self._task_broker = task_broker
        self._handle = handle
        self._batch: list[Any] = []
        self._flushed_at = time.monotonic()
        self.items: list[Any] = []

    async def add(self, item: Any) -> None:
        """Takes one item; returns when it may go on."""
        self._batch.append(item)
        if len(self._batch) >= BATCH or time.monotonic() - self._flushed_at > FLUSH_AFTER:
            await self.flush()

    async def flush(self) -> None:
        """Stores what is waiting.

        Raises:
            StreamLostError: the task belongs to another worker now.
        """
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        app = self._executor.app
        results = await app.pm.hook.task_executor_run_task_gen(
            task_executor=self._executor,
            task_func=self._task_func,
            task_broker=self._task_broker,
            results=batch,
        )
        try:
            held = await app.storage.append_items(self._handle, len(self.items), results)
        except EncodeError as error:
            raise TaskRejected(f"an item of the stream cannot be stored: {error}") from error
        if not held:
            raise StreamLostError(
                f"task {self._handle.uuid} belongs to another worker now; its stream ends here"
            )
        self.items.extend(results)
        self._flushed_at = time.monotonic()


async def run_stream(
    executor: TaskExecutor,
    task_func: TaskExecSchema,
    context: TaskContext,
    args: tuple[Any, ...],
    kw: dict[str, Any],
) -> list[Any]:
    """Runs a generator task with `stream=True`; gives all items as they were stored."""
    writer = StreamWriter(executor, task_func, context.task_broker, context.handle)
    handler = task_func.generate_handler
    if task_func.kind == "async_generator":
        async for item in task_func.func(*args, **kw):
            if handler is not None:
                item = handler(item)
                item = await item if inspect.isawaitable(item) else item
            await writer.add(item)
    else:
        await executor.in_thread(_pump(task_func, writer, args, kw))
    await writer.flush()
    return writer.items


def _pump(
    task_func: TaskExecSchema, writer: StreamWriter, args: tuple[Any, ...], kw: dict[str, Any]
) -> Callable[[], None]:
    """Iterates a plain generator in its thread; each item waits for the loop, so the thread cannot run ahead."""
    loop = asyncio.get_running_loop()
    handler = task_func.generate_handler

    def run() -> None:
        batch: list[Any] = []
        flushed_at = time.monotonic()
        for item in task_func.func(*args, **kw):
            batch.append(item if handler is None else handler(item))
            if len(batch) >= BATCH or time.monotonic() - flushed_at > FLUSH_AFTER:
                asyncio.run_coroutine_threadsafe(_write(writer, batch), loop).result()
                batch, flushed_at = [], time.monotonic()
        if batch:
            asyncio.run_coroutine_threadsafe(_write(writer, batch), loop).result()

    return run


async def _write(writer: StreamWriter, batch: list[Any]) -> None:
    for item in batch:
        await writer.add(item)
    await writer.flush()


async def read_stream(app: QueueTasks, uuid: Any, start: int) -> AsyncIterator[Any]:
    """The items of a task from `start` on, as they come, until it has ended. See `Task.stream`."""
    position, pause = start, POLL_FIRST
    while True:
        # Asked before the read: what is stored when the task has ended is then all there is.
        ended = await app.ended(uuid)
        items = await app.storage.read_items(uuid, position, READ)
        if items:
            pause = POLL_FIRST
            position += len(items)
            for item in await app.seen_items(uuid, items):
                yield item
        elif ended:
            return
        else:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_LONGEST)
