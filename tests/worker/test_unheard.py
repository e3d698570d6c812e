"""Triggers of which nobody is told are left out; whoever has something to do there is called as before."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any

import pytest

from qtasks import producer
from qtasks.app import QueueTasks
from qtasks.components import heard
from qtasks.components.broker import Broker
from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.components.storage import Storage
from qtasks.components.worker import Worker, finisher, run
from qtasks.errors import CapabilityError
from qtasks.markers import hookimpl

IN_MEMORY: dict[type, type] = {Broker: MemoryBroker, Storage: MemoryStorage, Worker: Worker}
METHODS = [(base, method) for base, methods in heard._FIRED_BY.items() for method in methods]


def of_its_own(base: type, method: str, calls: list[str]) -> type:
    """A component that has a method of its own, which says that it was called."""
    kind = IN_MEMORY[base]
    original = getattr(kind, method)

    def told(self: Any, *args: Any) -> Any:
        calls.append(method)
        return original(self, *args)

    return type("Own", (kind,), {method: told})


async def ran(*kinds: type) -> QueueTasks:
    """An application with these components, after one task was added and run in it."""
    space = MemorySpace()
    broker, storage, worker = (
        next((kind for kind in kinds if issubclass(kind, base)), IN_MEMORY[base])
        for base in (Broker, Storage, Worker)
    )
    app = QueueTasks(
        broker=broker(space), storage=storage(space), global_config=MemoryGlobalConfig(space), worker=worker()
    )

    @app.task(name="t")
    async def t() -> int:
        return 1

    async with app:
        task = await app.add_task("t")
        await app.serve(until_idle=True)
        assert (await task.wait_result(5)).returning == 1
    return app


@pytest.mark.parametrize(("base", "method"), METHODS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_method_that_a_component_has_of_its_own_is_called(base: type, method: str):
    calls: list[str] = []
    app = await ran(of_its_own(base, method, calls))
    assert calls
    assert app.pm.unheard.isdisjoint(heard._FIRED_BY[base][method])


async def test_all_that_is_left_out_of_components_is_known_to_be_fired_by_them():
    """So that no method of a component can be forgotten in the table."""
    left_out = producer._BEFORE | producer._AFTER
    for module in (run, finisher):
        left_out |= set(re.findall(r'"(\w+)" (?:not )?in [\w.]+\.unheard', inspect.getsource(module)))
    assert {"storage_get", "worker_add", "worker_execute_after"} <= left_out
    for base, methods in heard._FIRED_BY.items():
        for name, function in vars(base).items():
            if inspect.isfunction(function):
                fired = set(re.findall(r"hook\.(\w+)\(", inspect.getsource(function))) & left_out
                assert fired <= set(methods.get(name, ())), name


async def test_nothing_is_heard_of_adding_and_running_but_what_a_default_plugin_hears():
    app = await ran()
    assert set(app.pm.triggers) - app.pm.unheard == {"task_executor_args_replace", "worker_task_error_retry"}


async def test_a_plugin_that_comes_while_a_task_is_run_is_told_from_then_on():
    told: list[str] = []

    class Later:
        @hookimpl
        def storage_add_process(self) -> None:
            told.append("storage_add_process")

        @hookimpl
        def worker_add(self) -> None:
            told.append("worker_add")

        @hookimpl
        def worker_execute_after(self) -> None:
            told.append("worker_execute_after")

    class First:
        @hookimpl
        async def storage_get(self) -> None:
            await asyncio.sleep(0)
            if not app.pm.has("later"):
                app.add_plugin(Later(), name="later")

    app = QueueTasks(url="memory://", plugins=[First()])

    @app.task(name="t")
    async def t() -> None:
        """Does nothing."""

    async with app:
        await app.add_task("t")
        await app.serve(until_idle=True)
    assert told == ["worker_add", "worker_execute_after"]


async def test_what_a_broker_does_not_declare_is_refused_without_a_plugin_too():
    class Plain(MemoryBroker):
        capabilities = MemoryBroker.capabilities.__class__(priorities=False, colocated=True)

    space = MemorySpace()
    app = QueueTasks(
        broker=Plain(space), storage=MemoryStorage(space), global_config=MemoryGlobalConfig(space)
    )
    async with app:
        with pytest.raises(CapabilityError, match="priorities"):
            await app.add_task("any", priority=1)
        assert (await app.get_all())[0] == []
