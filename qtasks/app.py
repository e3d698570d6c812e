"""QueueTasks: the application, component `qtasks`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID, uuid5

from qtasks.backends import backend_from_url
from qtasks.calls import AddOptions, TaskAdder, positional
from qtasks.components.broker import Broker
from qtasks.components.delivery import Delivery, delivery_of
from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import CancelVerdict, Capabilities, Page
from qtasks.components.starter import Starter
from qtasks.components.stats import Stats
from qtasks.components.storage import Storage
from qtasks.components.streams import follow, read_stream
from qtasks.components.task_executor import TaskExecutor
from qtasks.components.worker import Worker
from qtasks.config import QueueConfig
from qtasks.errors import (
    BulkAddError,
    ConfigError,
    PluginError,
    QTasksError,
    ResultTimeoutError,
    TaskControl,
    TaskNotFoundError,
)
from qtasks.manager import PluginManager
from qtasks.producer import Producer
from qtasks.registry import Declares, Router, check_name
from qtasks.schemas import Task, TaskRecord, TaskRequest, task_from_record
from qtasks.text import cut
from qtasks.trace import Trace
from qtasks.tracing import Tracer

PAGE = 500


class QueueTasks(Declares):
    """A task queue application: it declares tasks, adds them, and runs them.

    Parameters:
        name: names the app's part of a shared store, `[A-Za-z0-9_-]{1,48}`.
        url: `memory://`, `sqlite:///file.db`, `redis://…`, or the scheme of an installed backend; the default
            is `QTASKS_URL`, else `sqlite:///qtasks.db`.
        broker, storage, global_config, worker, task_executor, starter, stats: components to use in the
            place of those that `url` and the defaults give.
        config: settings; the default reads the environment (`QTASKS_…`).
        plugins: plugin objects and names of installed plugins, or `"auto"` for all installed ones.
        trace: record every call of a trigger for each task; the default is `QTASKS_TRACE`.

    Attributes:
        pm: the plugin manager; `app.pm.hook` fires triggers, `app.pm.pluggy` is pluggy's own.
        tasks: the declared tasks by name.
        clock: gives the current Unix time in seconds.
        tracer: the trace: whether it is on for all tasks, and what it keeps out.

    Raises:
        ConfigError, InvalidNameError: a parameter is not valid.
    """

    def __init__(
        self,
        name: str = "qtasks",
        url: str | None = None,
        *,
        broker: Broker | None = None,
        storage: Storage | None = None,
        global_config: GlobalConfig | None = None,
        worker: Worker | None = None,
        task_executor: TaskExecutor | None = None,
        starter: Starter | None = None,
        stats: Stats | None = None,
        config: QueueConfig | None = None,
        plugins: Literal["auto"] | Iterable[object | str] = (),
        trace: bool | None = None,
    ) -> None:
        super().__init__()
        self.name = check_name(name, "app name")
        self.config = config if config is not None else QueueConfig()
        self.clock: Callable[[], float] = time.time
        self.pm = PluginManager(plugin_timeout=self.config.plugin_timeout)
        self.url = url or self.config.url
        if broker is None or storage is None or global_config is None:
            backend = backend_from_url(self.url)
            broker, storage = broker or backend.broker, storage or backend.storage
            global_config = global_config or backend.global_config
        self.broker, self.storage, self.global_config = broker, storage, global_config
        self.worker = worker or Worker()
        self.task_executor = task_executor or TaskExecutor()
        self.starter = starter or Starter()
        self.stats = stats or Stats()
        self._bind()
        self.producer = Producer(self)
        self.tracer = Tracer(self, self.config.trace if trace is None else trace)
        self._add_default_plugins()
        self._plugins = plugins
        if not isinstance(plugins, str):
            for plugin in plugins:
                if not isinstance(plugin, str):
                    self.add_plugin(plugin)
        elif plugins != "auto":
            raise ConfigError(f"plugins is a list, or 'auto', not {plugins!r}")
        self._load_installed()

    def _bind(self) -> None:
        for component in (
            self.broker, self.storage, self.global_config, self.worker, self.task_executor, self.starter, self.stats,
        ):  # fmt: skip
            component.bind(self.pm, app_name=self.name, config=self.config)
        self.broker.storage = self.storage
        self.pm.set_capabilities(self._capabilities())
        self.worker.app = self.task_executor.app = self.starter.app = self.stats.app = self
        self.delivery: Delivery = delivery_of(self.broker, self.storage)

    def _capabilities(self) -> dict[str, bool]:
        """What plugins may count on: what broker and storage both declare; that data are shared or outlive the
        process, the global config too."""
        parts = (self.broker, self.storage, self.global_config)
        return {
            name: all(
                getattr(part.capabilities, name)
                for part in (parts if name in ("shared", "durable") else parts[:2])
            )
            for name in Capabilities.__dataclass_fields__
        }

    def _add_default_plugins(self) -> None:
        from qtasks.plugins.retry import RetryPlugin
        from qtasks.plugins.validation import ValidationPlugin

        self.pm.register(ValidationPlugin(), name="validation")
        self.pm.register(RetryPlugin(), name="retry")

    def _load_installed(self) -> None:
        if isinstance(self._plugins, str):
            self.pm.load_installed("auto", strict=self.config.strict)
        elif names := [plugin for plugin in self._plugins if isinstance(plugin, str)]:
            self.pm.load_installed(names, strict=self.config.strict)

    # --- Declaring --------------------------------------------------------------------------

    def adder(self) -> TaskAdder:
        return self

    def include_router(self, router: Router) -> None:
        """Takes in the tasks of a router.

        Raises:
            DuplicateTaskError: a name is taken; none of the router's tasks is taken in.
        """
        self.tasks.include(router)
        router.included(self)
        if any("schedule" in declared.extra for declared in router.tasks.values()):
            self.scheduled()

    def scheduled(self) -> None:
        """Registers the plugin `schedule`, unless it is there, or blocked by name."""
        from qtasks.plugins.schedule import SchedulePlugin

        if not self.pm.has("schedule") and not self.pm.pluggy.is_blocked("schedule"):
            self.add_plugin(SchedulePlugin())

    def add_plugin(
        self, plugin: object, *, name: str | None = None, on_error: Literal["raise", "isolate"] | None = None,
        plugin_timeout: float | None = None,
    ) -> str:  # fmt: skip
        """Registers a plugin and gives its name.

        Parameters:
            name: the default is the plugin's `name`, else its class or module name.
            on_error: overrides what happens when it raises (rule 9).
            plugin_timeout: seconds that bound each of its implementations; the default is the application's.

        Raises:
            PluginRegistrationError: the plugin is not valid; it is not registered.
        """
        return self.pm.register(plugin, name=name, on_error=on_error, plugin_timeout=plugin_timeout)

    # --- Lifecycle --------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects to the backend, so that tasks can be added; `async with app:` does it too."""
        await self.starter.start()

    async def close(self) -> None:
        """Ends what `open` began."""
        await self.starter.stop()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def serve(self, *, until_idle: bool = False) -> Coroutine[Any, Any, None]:
        """Runs the worker on the present event loop until `stop()`; starts and stops what is not running.

        Parameters:
            until_idle: return when nothing is ready, delayed or running in the worker's queues.
        """
        return self.starter.serve(until_idle=until_idle)

    def run_forever(self, *, until_idle: bool = False) -> None:
        """Runs the worker in the foreground until SIGTERM or SIGINT, on uvloop where it is installed.

        Parameters:
            until_idle: return when nothing is ready, delayed or running in the worker's queues.
        """
        self.starter.run(until_idle=until_idle)

    async def stop(self) -> None:
        """Asks the worker to finish: `serve` returns when what runs has ended or the deadline is over."""
        self.starter.request_stop()

    # --- Adding -----------------------------------------------------------------------------

    async def add_task(
        self, task_name: str, *, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None, priority: int | None = None, delay: float | None = None,
        eta: datetime | None = None, uuid: UUID | None = None, timeout: float | None = None,
        extra: Mapping[str, Any] | None = None, unique_key: str | None = None, trace: bool | None = None,
    ) -> Task:  # fmt: skip
        """Adds a task. When it returns, the task is stored and queued.

        Parameters:
            task_name: the name of the task; it need not be declared in this process.
            args, kwargs: its arguments (JSON).
            queue, priority: `None` takes what the task declares; lower priorities run first, -128 to 127.
            delay: seconds before it may run.
            eta: the time (aware) before which it may not run; instead of `delay`.
            uuid: its identity; adding the same task with the same uuid again is idempotent.
            timeout: wait up to this many seconds for the result and return the finished task.
            extra: what plugins need (JSON).
            unique_key: at most one open task has it; the second call gets the first one's task.
            trace: record every call of a trigger for this task, see `trace()`; `None` is the application's choice.

        Raises:
            PluginError, TaskCancelError, TaskRejected: a plugin refused; nothing is stored.
            EnqueueUnknownError: the connection was cut before the reply; add it again with the same uuid.
            UuidConflictError: the uuid belongs to another task.
            QueueFullError, PayloadTooLargeError, EncodeError, InvalidNameError, ValueError: nothing is stored.
            ResultTimeoutError: it was added, but did not finish within `timeout`.
        """
        options = AddOptions(queue, priority, delay, eta, uuid, timeout, extra, unique_key, trace)
        return await self.add(task_name, positional(args), kwargs or {}, options)

    async def add(
        self, task_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: AddOptions
    ) -> Task:
        """As `add_task`, with the options as one value."""
        self.starter.check_started()
        request = options.request(task_name, args, kwargs, self.clock())
        task = (await self.producer.store([await self.producer.prepare(request)]))[0]
        if isinstance(task, QTasksError):
            raise task
        return task if options.timeout is None else await task.wait_result(options.timeout)

    async def add_tasks(self, requests: Iterable[TaskRequest]) -> list[Task]:
        """Adds many tasks in one step.

        Raises:
            BulkAddError: some were not added; it has the tasks that were, and the errors, by position.
            Others as in `add_task`: nothing is stored.
        """
        self.starter.check_started()
        results = await self.producer.add(list(requests))
        tasks = [result for result in results if isinstance(result, Task)]
        if len(tasks) < len(results):
            raise BulkAddError(
                {i: result for i, result in enumerate(results) if isinstance(result, Task)},
                {i: result for i, result in enumerate(results) if not isinstance(result, Task)},
            )
        return tasks

    # --- Reading and steering ---------------------------------------------------------------

    async def get(self, uuid: UUID) -> Task | None:
        """The task, after `storage_get`, `broker_get` and `qtasks_get`; `None` where there is none."""
        self.starter.check_started()
        record = (await self.storage.get_many([uuid]))[0]
        return None if record is None else await self._seen(record)

    async def get_all(self, cursor: str | None = None, limit: int = 100) -> tuple[list[Task], str | None]:
        """One page of tasks, newest first, after `storage_get_all`, and the cursor of the next page (or `None`)."""
        self.starter.check_started()
        return await self._page(await self.storage.scan(cursor, limit))

    async def wait_result(self, uuid: UUID, timeout: float | None = None) -> Task:
        """The finished task; waits for it.

        Parameters:
            timeout: seconds; `None` waits for ever.

        Raises:
            ResultTimeoutError: it did not finish in time.
            TaskNotFoundError: there is no such task (any more).
        """
        self.starter.check_started()
        try:
            record = await self.storage.wait_settled(uuid, timeout)
        except LookupError as error:
            raise TaskNotFoundError(f"no task has the uuid {uuid}") from error
        if record is None:
            raise ResultTimeoutError(f"task {uuid} did not finish within {timeout} s; it goes on")
        return await self._seen(record)

    async def trace(self, uuid: UUID) -> Trace | None:
        """Every call of a trigger for a task that was traced: which plugin changed what, on the producer and on the
        workers. `None` where there is no trace: it was not asked for, or the task has expired."""
        self.starter.check_started()
        return await self.tracer.read(uuid)

    def stream(self, uuid: UUID, start: int = 0) -> AsyncIterator[Any]:
        """The items of a generator task as they come; see `Task.stream`."""
        return read_stream(self, uuid, start)

    def follow(self, uuid: UUID) -> AsyncIterator[Task]:
        """Snapshots of a task as its status, progress or attempt changes; see `Task.follow`."""
        return follow(self, uuid)

    async def ended(self, uuid: UUID) -> bool:
        """Whether a task has finished.

        Raises:
            TaskNotFoundError: there is no such task.
        """
        try:
            return await self.storage.get_settled(uuid) is not None
        except LookupError as error:
            raise TaskNotFoundError(f"no task has the uuid {uuid}") from error

    async def seen_items(self, uuid: UUID, items: list[Any]) -> list[Any]:
        """Items of a stream as plugins let a client see them: they are given to `storage_get`, `broker_get` and
        `qtasks_get` as the result of their task."""
        record = (await self.storage.get_many([uuid]))[0]
        if record is None:
            raise TaskNotFoundError(f"no task has the uuid {uuid}")
        seen: list[Any] = (await self._seen(replace(record, returning=items))).returning
        return seen

    async def _seen(self, record: TaskRecord) -> Task:
        uuid = record.uuid
        try:
            task = await self.storage.get(uuid, task_from_record(record))
            task = await self.broker.get(uuid, task)
        except TaskControl as control:
            # There is no run to be steered here: an ordinary error of that plugin.
            raise PluginError(
                f"plugin {control.plugin!r} raised {type(control).__name__} in trigger {control.trigger!r}, where a "
                f"client reads a task: {control}",
                plugin=control.plugin,
                trigger=control.trigger,
            ) from control
        task = await self.pm.hook.qtasks_get(qtasks=self, broker=self.broker, uuid=uuid, task=task)
        task._app = self
        return task

    async def _page(self, page: Page) -> tuple[list[Task], str | None]:
        tasks = await self.storage.get_all([task_from_record(record) for record in page.records])
        for task in tasks:
            task._app = self
        return tasks, page.cursor

    async def cancel(self, uuid: UUID, reason: str = "cancelled by a client") -> bool:
        """Cancels a task: at once while it waits, soon while it runs.

        Returns:
            Whether there was something to cancel; `False` when it had finished already.

        Raises:
            TaskNotFoundError: there is no such task.
        """
        self.starter.check_started()
        expires_at = self.clock() + self.config.result_ttl
        reason = cut(reason, self.config.max_traceback)
        verdict = (await self.storage.cancel_many([uuid], reason, expires_at=expires_at))[0]
        if verdict is CancelVerdict.MISSING:
            raise TaskNotFoundError(f"no task has the uuid {uuid}")
        if verdict is CancelVerdict.CANCELLED:
            await self.broker.discard_many([uuid])
        elif verdict is CancelVerdict.REQUESTED:
            self.worker.cancel_running(uuid, reason)
        return verdict is not CancelVerdict.TERMINAL

    async def dead(self) -> AsyncIterator[Task]:
        """The dead letters, newest first."""
        cursor: str | None = None
        while True:
            tasks, cursor = await self._page(await self.storage.scan_dead(cursor, PAGE))
            for task in tasks:
                yield task
            if cursor is None:
                return

    async def replay(self, uuid: UUID) -> Task:
        """Adds a finished task again, as a new one whose `replay_of` names it. The stored arguments
        are read through the plugins first, and go through the producer triggers again.

        Returns:
            The new task; its uuid is `uuid5(dead uuid, n)`, so that asking twice does not run it twice.

        Raises:
            TaskNotFoundError: there is no such finished task.
        """
        dead = await self.get(uuid)
        if dead is None or not dead.finished:
            raise TaskNotFoundError(f"no finished task has the uuid {uuid}")
        n = 0
        while (earlier := await self.get(uuid5(uuid, str(n)))) is not None:
            if not earlier.finished:
                return earlier
            n += 1
        request = TaskRequest(
            task_name=dead.task_name, args=dead.args, kwargs=dead.kwargs, queue=dead.queue,
            priority=dead.priority, uuid=uuid5(uuid, str(n)), extra=dead.extra,
        )  # fmt: skip
        result = (await self.producer.store([await self.producer.prepare(request, replay_of=uuid)]))[0]
        if isinstance(result, QTasksError):
            raise result
        return result

    async def delete(self, uuids: Sequence[UUID]) -> list[bool]:
        """Deletes finished tasks, dead ones included; `False` where there is none."""
        self.starter.check_started()
        records = await self.storage.get_many(uuids)
        deleted = await self.storage.delete_many(uuids)
        for record, gone in zip(records, deleted, strict=True):
            if gone and record is not None and self.tracer.wanted(record.extra):
                await self.tracer.forget(record.uuid)
        return deleted

    async def ping(self) -> bool:
        """Whether a server of this app is alive; fires `qtasks_ping`."""
        self.starter.check_started()
        await self.pm.hook.qtasks_ping(qtasks=self, global_config=self.global_config)
        return bool(await self.global_config.servers())

    async def flush_all(self) -> None:
        """Forgets all tasks of this app, and nothing else; fires the three `…_flush_all` triggers.

        The storage goes first: a task that is added meanwhile is then found by the reconciler.
        """
        self.starter.check_started()
        await self.storage.flush_all()
        await self.broker.flush_all()
        await self.tracer.forget_all()
        await self.pm.hook.qtasks_flush_all(qtasks=self, broker=self.broker)
