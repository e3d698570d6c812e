"""Where a plugin is tried: alone in an application in memory, on an event loop of its own."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from qtasks import (
    PluginError,
    QueueConfig,
    QueueTasks,
    TaskCancelError,
    TaskDefer,
    TaskExecSchema,
    TaskFunction,
    TaskPrioritySchema,
    TaskRejected,
)
from qtasks.components.primitives import DeliveryHandle
from qtasks.context import TaskContext, in_context
from qtasks.inmemory import VirtualClock, memory_app
from qtasks.testing.bench import KitFailure
from qtasks.testing.checks import FAILURES
from qtasks.testing.plugin.compared import told
from qtasks.testing.plugin.tasks import declare
from qtasks.testing.values import trigger_values

T = TypeVar("T")

MakePlugin = Callable[[], Any]
"""Gives a fresh plugin each time; may be a coroutine function."""

SHARE = 4
"""Of each trigger there are as many examples as hypothesis' present profile says, divided by this."""
SEARCH = 10
"""So many times more are looked through for a small one that shows what another one showed."""
PATIENCE = 20.0
"""Seconds after which a call that does not come back is given up."""

COMPONENTS = ("broker", "storage", "global_config", "worker", "task_executor", "starter", "stats")

CONTROL = (TaskCancelError, TaskDefer, TaskRejected)

IN_RUN = (
    "task_executor_", "worker_task_error_retry", "worker_remove_finished_task", "broker_remove_finished_task",
)  # fmt: skip
"""The beginnings of the triggers that fire while a task is the current one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of firing a trigger.

    Attributes:
        values: the replaceable parameters, by name; those it began with where it was ended by `raised`.
        raised: what ended the chain.
    """

    values: dict[str, Any]
    raised: Exception | None = None


class Stage:
    """One application with nothing in it but the plugins given. Use it as a context manager.

    Parameters:
        plugins: by name; an empty name lets the plugin name itself.
        tasks: declared tasks that examples are about, in the place of those of the kit.

    Attributes:
        app: the application; it has been opened.
        clock: its clock.
    """

    def __init__(self, plugins: Mapping[str, Any], tasks: Iterable[TaskFunction[..., Any]] = ()) -> None:
        self.clock = VirtualClock()
        self.app = bare_app(self.clock)
        declare(self.app)
        self._about = [self.app.tasks.add(task).name for task in tasks]
        self._runner = asyncio.Runner()
        try:
            for name, plugin in plugins.items():
                self.app.add_plugin(self.do(made(plugin)), name=name or None)
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Self:
        try:
            self.do(self.app.open())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.do(self.app.close())
        finally:
            self._runner.close()

    def do(self, step: Awaitable[T]) -> T:
        """Runs something to its end on this event loop."""

        async def bounded() -> T:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await step
            except TimeoutError:
                raise KitFailure(f"it did not come to an end within {PATIENCE:.0f} s") from None

        return self._runner.run(bounded())

    def values(self, trigger: str) -> st.SearchStrategy[dict[str, Any]]:
        """Examples of the parameters of a trigger."""
        return trigger_values(trigger, self.app, tasks=self._about)

    def triggers(self, *, signals: bool = True) -> list[str]:
        """The triggers that the plugins implement and that the kit can fire, in their order."""
        found = {name for info in self.app.pm.plugins() for name in info.triggers}
        declared = self.app.pm.triggers
        return [name for name in declared if name in found and (signals or not declared[name].signal)]

    async def fired(self, trigger: str, values: Mapping[str, Any]) -> Outcome:
        """Fires a trigger."""
        declared = self.app.pm.triggers[trigger]
        before = {name: values[name] for name in declared.replaces}
        try:
            async with self._as_in_a_run(trigger, values):
                got = await getattr(self.app.pm.hook, trigger)(**values)
        except TaskDefer as defer:
            after = before if not declared.defers else by_name(declared.replaces, defer.values)
            return Outcome(after, defer)
        except (PluginError, *CONTROL) as error:
            return Outcome(before, error)
        return Outcome(by_name(declared.replaces, got))

    def fire(self, trigger: str, values: Mapping[str, Any]) -> Outcome:
        """As `fired`, from outside of the event loop."""
        return self.do(self.fired(trigger, values))

    def own(self, value: object) -> Any:
        """What this application has in the place of another's: its own component, its own declared task; `None`
        for what is neither."""
        if isinstance(value, TaskExecSchema):
            return self.app.tasks[value.name]
        if not _is_component(value):
            return None
        parts = [self.app, *(getattr(self.app, name) for name in COMPONENTS)]
        return next(part for part in parts if type(part) is type(value))

    @asynccontextmanager
    async def _as_in_a_run(self, trigger: str, values: Mapping[str, Any]) -> AsyncIterator[None]:
        task_func, task_broker = values.get("task_func"), values.get("task_broker")
        if not trigger.startswith(IN_RUN) or not isinstance(task_func, TaskExecSchema):
            yield
            return
        assert isinstance(task_broker, TaskPrioritySchema)
        handle = DeliveryHandle(
            task_broker.uuid, 1, self.app.worker.owner, 1, False, task_broker.queue, task_broker.priority,
            task_broker.created_at,
        )  # fmt: skip
        context = TaskContext(self.app, handle, task_func, task_broker)
        try:
            with in_context(context):
                yield
        finally:
            await context.close()


def bare_app(clock: VirtualClock) -> QueueTasks:
    """An application in memory without any plugin, the default ones included."""
    config = QueueConfig(durability="none", concurrency=20, strict=False)
    return without_plugins(memory_app(clock=clock, config=config))


def without_plugins(app: QueueTasks) -> QueueTasks:
    """The application, with the default plugins taken out: what is tried is alone."""
    for info in app.pm.plugins():
        app.pm.unregister(info.name)
    return app


def by_name(replaces: tuple[str, ...], got: Any) -> dict[str, Any]:
    """What a trigger gave, under the names of its replaceable parameters."""
    if len(replaces) == 1:
        return {replaces[0]: got}
    return dict(zip(replaces, got or (), strict=True))


async def made(plugin: Any) -> Any:
    """A plugin as a factory gave it, which may be a coroutine function."""
    return await plugin if inspect.isawaitable(plugin) else plugin


def for_examples(stage: Stage, trigger: str, look: Callable[[dict[str, Any]], None]) -> None:
    """Calls `look` with examples of the parameters of a trigger.

    Raises:
        KitFailure: what `look` raised, for the smallest example that could be found.
    """
    for values in examples(stage, trigger):
        try:
            look(values)
        except FAILURES:
            shrink(stage.values(trigger), look)
            raise


def examples(stage: Stage, trigger: str, *, times: int = 1) -> list[dict[str, Any]]:
    """Examples of the parameters of a trigger. To make some takes far longer than to use them, so they are made once
    in a process; each use has copies.

    Parameters:
        times: so many times the usual number.
    """
    key = (trigger, tuple(stage.app.tasks), _settings().max_examples * times)
    if key not in _MADE:
        _MADE[key] = []
        _run_examples(stage.values(trigger), _MADE[key].append, phases=[Phase.generate], times=times)
    return [
        {name: stage.own(value) or copy.deepcopy(value) for name, value in values.items()}
        for values in _MADE[key]
    ]


_MADE: dict[tuple[str, tuple[str, ...], int], list[dict[str, Any]]] = {}


def shrink(strategy: st.SearchStrategy[T], look: Callable[[T], None]) -> None:
    """Raises what `look` raises for the smallest example that it fails for; nothing where none is found, or where it
    fails for the same one at one time and not at another."""
    with suppress(Flaky):
        _run_examples(strategy, look, phases=[Phase.generate, Phase.shrink], times=SEARCH)


def _settings() -> settings:
    usual = settings.default
    assert usual is not None
    return settings(
        usual, max_examples=max(1, usual.max_examples // SHARE), deadline=None, database=None,
        report_multiple_bugs=False, verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def _run_examples(
    strategy: st.SearchStrategy[T], look: Callable[[T], object], *, phases: list[Phase], times: int = 1
) -> None:
    usual = _settings()

    @settings(usual, phases=phases, max_examples=times * usual.max_examples)
    @given(example=strategy)
    def run(example: T) -> None:
        look(example)

    run()


def shown(trigger: str, values: Mapping[str, Any]) -> str:
    """A firing as text: the trigger with its data, without components."""
    return f"{trigger}({', '.join(f'{name}={told(value)}' for name, value in data(values).items())})"


def data(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are data, not components."""
    return {name: value for name, value in values.items() if not _is_component(value)}


def _is_component(value: Any) -> bool:
    return isinstance(value, QueueTasks) or hasattr(type(value), "bind")
