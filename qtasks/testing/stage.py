"""The workbench of checks that need a whole application: one with tasks, a recorder of triggers, and a worker."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.components.primitives import Capabilities
from qtasks.config import QueueConfig
from qtasks.inmemory import VirtualClock
from qtasks.recorder import Recorder, recorder
from qtasks.schemas import Task, TaskRecord, TaskStatusEnum
from qtasks.testing.bench import Bench, Factory, KitFailure
from qtasks.testing.checks import Suite

BESIDE = "global_config_set_status"
"""The sign of life, which is fired beside everything else."""

SETTINGS: dict[str, Any] = {
    "concurrency": 4, "threads": 4, "release_delay": 0.01, "release_max_delay": 0.02,
    "queues": ("default", "second"), "durability": "none", "strict": False, "max_queue": None,
}  # fmt: skip
"""Settings with short times."""


class Stage:
    """One application and what happened in it.

    Attributes:
        app: the application, not started.
        heard: a plugin that records all triggers, and returns what it is told to.
        ran: (name, args, kwargs) of the functions `work` and `other`, in the order of their calls.
    """

    def __init__(self, app: QueueTasks) -> None:
        self.app = app
        self.heard: Recorder = recorder()
        self.ran: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        app.add_plugin(self.heard, name="recorder")
        self.declare(work=self._echo("work"), other=self._echo("other"))

    def _echo(self, name: str) -> Callable[..., Any]:
        async def run(*args: Any, **kw: Any) -> list[Any]:
            self.ran.append((name, args, kw))
            return [name, list(args), kw]

        return run

    def declare(self, options: dict[str, Any] | None = None, **functions: Callable[..., Any]) -> None:
        """Declares tasks by their names, with these options."""
        for name, function in functions.items():
            decorate: Any = self.app.task(name=name, **(options or {}))
            decorate(function)

    def take(self) -> list[str]:
        """The triggers that were fired since the last time, in order, without the sign of life."""
        names = [name for name in self.heard.names() if name != BESIDE]
        self.heard.fired.clear()
        return names

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.Task[None]]:
        """The application's worker, at work; stopped at the end."""
        worker = asyncio.create_task(self.app.serve())
        try:
            await self.heard.until("broker_listen_start", len(self.heard.of("broker_listen_start")) + 1)
            yield worker
        except BaseException:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            raise
        await self.app.stop()
        await self.bounded(worker, "serve, after it was asked to stop,")

    async def bounded(self, awaitable: Any, told: str) -> Any:
        """Awaits, but not for ever."""
        try:
            async with asyncio.timeout(Bench.patience):
                return await awaitable
        except TimeoutError:
            raise KitFailure(f"{told} did not come to an end within {Bench.patience} s") from None

    async def ended(self, task: Task | UUID) -> TaskRecord:
        """The terminal record of a task, read without a trigger."""
        uuid = task if isinstance(task, UUID) else task.uuid
        record = await self.app.storage.wait_settled(uuid, Bench.patience)
        if record is None:
            raise KitFailure(f"the task did not end; it is {await self.stored(uuid)}")
        return record

    async def stored(self, uuid: UUID) -> TaskRecord:
        """The record as it is now, read without a trigger."""
        (record,) = await self.app.storage.get_many([uuid])
        if record is None:
            raise KitFailure("the record of the task is gone")
        return record

    async def run(self, name: str = "work", *args: Any, **kw: Any) -> TaskRecord:
        """Adds one task, has a worker run it to its end, and gives its record. What the recorder has heard is then
        what was fired from the claim on, before the worker was asked to stop."""
        task = await self.app.add_task(name, args=args, kwargs=kw)
        heard = self.heard
        heard.fired.clear()
        async with self.serving():
            record = await self.ended(task)
            await heard.until("worker_execute_after")
            fired = heard.fired[heard.names().index("broker_listen_start") + 1 :]
        heard.fired[:] = fired
        return record

    async def works(self) -> None:
        """A worker still runs a task to its success."""
        record = await self.run("work", "canary")
        assert record.status is TaskStatusEnum.SUCCESS, record.traceback
        assert record.returning == ["work", ["canary"], {}]

    async def quiet(self) -> None:
        """Nothing is ready, delayed, leased, buried or open (I4)."""
        sizes = await self.app.broker.size()
        assert not any(any(size) for size in sizes.values()), f"entries are left: {sizes}"
        assert await self.app.broker.buried(10) == []
        page = await self.app.storage.scan_open(None, 10, self.app.clock() + 1e6)
        assert page.records == []


class AppBench(Bench[Any]):
    """Makes applications with the component that is checked.

    Parameters:
        factory: gives a fresh component; a fresh application, from the settings it is given, where `slot` is "app".
        slot: the parameter of `QueueTasks` that the component is, or "app".
    """

    def __init__(self, factory: Factory, slot: str) -> None:
        super().__init__(factory, Capabilities())
        self._slot = slot
        self._apps: list[QueueTasks] = []

    async def __aenter__(self) -> AppBench:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for app in self._apps:
            await app.close()

    async def stage(
        self, *, clock: VirtualClock | None = None, parts: dict[str, Any] | None = None,
        plugins: Sequence[object] = (), **settings: Any,
    ) -> Stage:  # fmt: skip
        """An application that is not started.

        Parameters:
            clock: a clock for its components in the place of the real one.
            parts: other components for `QueueTasks`.
            plugins: these, before the recorder.
            settings: fields of `QueueConfig` in the place of the short ones.
        """
        config = QueueConfig(**{**SETTINGS, "shutdown_timeout": min(5.0, self.patience), **settings})
        made = self._factory(config) if self._slot == "app" else self._factory()
        made = await made if inspect.isawaitable(made) else made
        app = made
        if self._slot != "app":
            app = QueueTasks("kit", "memory://", config=config, **{self._slot: made}, **(parts or {}))
        if clock is not None:
            for part in (app, app.broker, app.storage, app.global_config, app.worker):
                part.clock = clock
        for plugin in plugins:
            app.add_plugin(plugin)
        self._apps.append(app)
        return Stage(app)


class AppSuite(Suite):
    """The base of the suites of components that work inside an application."""

    slot: ClassVar[str] = "app"

    def specimen(self, factory: Factory) -> Any:
        """One component, which is not used."""
        return factory(QueueConfig()) if self.slot == "app" else factory()

    def workbench(self, factory: Factory) -> AppBench:
        """Applications with the component that is checked."""
        return AppBench(factory, self.slot)
