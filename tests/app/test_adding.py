"""Adding where nobody is told of the producer's triggers: a shorter way, which stores and shows just the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

import pytest

from qtasks.app import QueueTasks
from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.config import QueueConfig
from qtasks.markers import hookimpl
from qtasks.schemas import Task, TaskRecord, TaskRequest, TaskStatusNewSchema
from qtasks.tracing import FLAG

NOW = 1_800_000_000.0
REQUESTS: dict[str, list[TaskRequest]] = {
    "some": [TaskRequest(task_name="declared", args=(n,), kwargs={"n": n}) for n in range(3)],
    "defaults of a declaration": [TaskRequest(task_name="declared")],
    "not declared": [TaskRequest(task_name="any", args=("ü", [1.5, None]))],
    "everything said": [
        TaskRequest(
            task_name="declared", args=(1,), kwargs={"a": {"b": 2}}, queue="other", priority=-128,
            available_at=NOW + 60, extra={"unique_key": "k", "more": [1]},
        )
    ],
    "one unique key, twice": [TaskRequest(task_name="any", extra={"unique_key": "k"})] * 2,
    "an empty unique key": [TaskRequest(task_name="any", extra={"unique_key": ""})],
    "a name that is none": [TaskRequest(task_name="any"), TaskRequest(task_name="two words")],
    "a queue that is none": [TaskRequest(task_name="declared", queue="two words")],
    "a priority that is none": [TaskRequest(task_name="any", priority=128)],
    "a time that is none": [TaskRequest(task_name="any", available_at=float("nan"))],
    "no JSON": [TaskRequest(task_name="any"), TaskRequest(task_name="any", args=(object,))],
    "no JSON in extra": [TaskRequest(task_name="any", extra={"a": object})],
    "a unique key that is no text": [TaskRequest(task_name="any", extra={"unique_key": 7})],
    "too large": [TaskRequest(task_name="any", args=("x" * 2000,))],
    "too large with extra": [TaskRequest(task_name="any", args=("x" * 500,), extra={"y": "y" * 500})],
}  # fmt: skip


class Told:
    """Hears all five triggers and changes nothing."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def qtasks_add_task_before_broker(self) -> None:
        self.heard.append("qtasks_add_task_before_broker")

    @hookimpl
    async def broker_add_before(self, model: TaskStatusNewSchema) -> None:
        self.heard.append("broker_add_before")

    @hookimpl
    def storage_add(self) -> None:
        self.heard.append("storage_add")

    @hookimpl
    def broker_add_after(self) -> None:
        self.heard.append("broker_add_after")

    @hookimpl
    async def qtasks_add_task_after_broker(self) -> None:
        self.heard.append("qtasks_add_task_after_broker")


BEFORE = ["qtasks_add_task_before_broker", "broker_add_before", "storage_add"]
AFTER = ["broker_add_after", "qtasks_add_task_after_broker"]


def make(
    broker: type[MemoryBroker] = MemoryBroker, storage: type[MemoryStorage] = MemoryStorage, **options: Any
) -> QueueTasks:
    """An application in memory whose clock stands still."""
    space = MemorySpace()
    app = QueueTasks(
        broker=broker(space), storage=storage(space), global_config=MemoryGlobalConfig(space),
        config=QueueConfig(max_payload=1000), **options,
    )  # fmt: skip
    app.clock = app.broker.clock = app.storage.clock = lambda: NOW

    @app.task(name="declared", queue="own", priority=5, retry=2, result_ttl=60.0)
    async def declared() -> None:
        """Is never run here."""

    return app


async def outcome(app: QueueTasks, requests: list[TaskRequest]) -> tuple[Any, list[TaskRecord | None]]:
    """What adding them gives, or raises, and what is stored then."""
    uuids = [UUID(int=n + 1) for n in range(len(requests))]
    async with app:
        try:
            given: Any = await app.add_tasks(
                [replace(each, uuid=uuid) for each, uuid in zip(requests, uuids, strict=True)]
            )
        except Exception as error:
            given = (type(error), str(error))
        return given, await app.storage.get_many(uuids)


@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS)
async def test_the_same_is_stored_and_shown_whether_a_plugin_is_told_or_not(requests):
    told = Told()
    silent, heard = await outcome(make(), requests), await outcome(make(plugins=[told]), requests)
    assert silent == heard
    if isinstance(heard[0], list):
        # One that has the unique key of another is prepared, and not announced.
        added = len({task.uuid for task in heard[0]})
        assert told.heard == BEFORE * len(requests) + AFTER * added


async def test_tasks_share_nothing_with_each_other_or_with_the_caller():
    app = make()
    request = TaskRequest(task_name="any")
    async with app:
        one, other = await app.add_tasks([request, request])
        one.kwargs["a"] = one.extra["b"] = 1
        assert (other.kwargs, other.extra, request.kwargs, request.extra) == ({}, {}, {}, {})
        found = await app.get(one.uuid)
        assert found is not None
        assert (found.kwargs, found.extra) == ({}, {})


async def test_a_plugin_that_comes_while_tasks_are_stored_is_told_that_they_are():
    models: list[TaskStatusNewSchema] = []

    class Late:
        @hookimpl
        def broker_add_after(self, uuid: UUID, model: TaskStatusNewSchema) -> None:
            models.append(model)

    class Slow(MemoryBroker):
        async def add_and_push(self, records, max_queue):
            app.add_plugin(Late())
            return await super().add_and_push(records, max_queue)

    app = make(broker=Slow)
    async with app:
        await app.add_task("declared", args=(1,), kwargs={"a": 2}, extra={"b": 3})
    assert models == [
        TaskStatusNewSchema(
            task_name="declared", queue="own", priority=5, args=(1,), kwargs={"a": 2}, created_at=NOW,
            updated_at=NOW, available_at=NOW, extra={"b": 3},
        )
    ]  # fmt: skip


async def test_a_plugin_that_comes_and_goes_between_two_tasks_of_a_batch_is_told_of_those_between():
    names: list[str] = []

    class Between:
        @hookimpl
        def storage_add(self, task_status: TaskStatusNewSchema) -> None:
            names.append(task_status.task_name)
            if task_status.task_name == "last":
                app.pm.unregister("between")

    class Arriving(list):
        """Arguments that register the plugin as they are read."""

        def __iter__(self):
            if not app.pm.has("between"):
                app.add_plugin(Between(), name="between")
            return super().__iter__()

    app = make()
    requests = [TaskRequest(task_name=name) for name in ("first", "second", "last", "none")]
    requests[0] = replace(requests[0], args=Arriving())
    async with app:
        assert len(await app.add_tasks(requests)) == 4
    assert names == ["second", "last"]


Components = tuple[type[MemoryBroker], type[MemoryStorage]]


def a_broker_that_adds(seen: list[Any]) -> Components:
    class Own(MemoryBroker):
        async def add(self, uuid, model):
            seen.append(model.task_name)
            return replace(await super().add(uuid, model), priority=7)

    return Own, MemoryStorage


def a_broker_that_is_told(seen: list[Any]) -> Components:
    class Own(MemoryBroker):
        async def added(self, uuid, model):
            seen.append(model.task_name)
            await super().added(uuid, model)

    return Own, MemoryStorage


def a_storage_that_adds(seen: list[Any]) -> Components:
    class Own(MemoryStorage):
        async def add(self, uuid, model):
            seen.append(model.task_name)
            return replace(await super().add(uuid, model), priority=7)

    return MemoryBroker, Own


@pytest.mark.parametrize(
    ("components", "priority"),
    [(a_broker_that_adds, 7), (a_broker_that_is_told, 0), (a_storage_that_adds, 7)],
)
async def test_what_a_component_does_of_its_own_is_done(
    components: Callable[[list[Any]], Components], priority: int
):
    seen: list[Any] = []
    app = make(*components(seen))
    async with app:
        tasks = await app.add_tasks([TaskRequest(task_name=name) for name in "ab"])
    assert seen == ["a", "b"]
    assert [task.priority for task in tasks] == [priority] * 2


@pytest.mark.parametrize("plugins", [[], [Told()]], ids=["silent", "told"])
async def test_a_storage_may_make_of_the_fields_of_a_new_record_another_one(plugins):
    class Own(MemoryStorage):
        async def add_many(self, records):
            return await super().add_many([TaskRecord(**asdict(each)) for each in records])

    app = make(storage=Own, plugins=plugins)
    async with app:
        tasks = await app.add_tasks([TaskRequest(task_name="any", extra={FLAG: on}) for on in (True, False)])
        for task in tasks:
            assert await app.get(task.uuid) == task
        assert [await app.trace(task.uuid) is not None for task in tasks] == [True, False]


async def test_an_observer_of_triggers_without_a_plugin_hears_those_of_adding():
    app = make()
    told: list[str] = []
    async with app:
        app.pm.add_observer(lambda call: told.append(call.trigger), idle=True)
        task = await app.add_task("any")
    assert isinstance(task, Task)
    assert [name for name in told if "_add" in name] == [*BEFORE, *AFTER]
