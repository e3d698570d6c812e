"""Checks of the broker's triggers: each fires once, when it should, with the right values."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from qtasks.components.broker import Broker
from qtasks.components.worker import Worker
from qtasks.errors import PluginError, TaskCancelError, TaskDefer, TaskRejected
from qtasks.manager import PluginManager
from qtasks.recorder import Fired, Recorder, recorder
from qtasks.schemas import (
    TaskPrioritySchema,
    TaskStatusNewSchema,
    TaskStatusSuccessSchema,
    task_from_record,
)
from qtasks.testing.bench import Bench
from qtasks.testing.broker.claims import drain, push
from qtasks.testing.checks import Suite, check
from qtasks.testing.lifecycle import check_refusal
from qtasks.testing.samples import item, record


class _Storage:
    """Stands in for the storage that a broker hands new tasks to."""

    def __init__(self) -> None:
        self.added: list[Any] = []

    async def add(self, uuid: Any, model: Any) -> Any:
        self.added.append((uuid, model))
        return replace(model, extra={**model.extra, "storage": True})


class _Worker:
    """Stands in for the worker that a broker serves."""

    def __init__(self, heard: Recorder) -> None:
        self.heard = heard
        self.before: list[list[str]] = []

    async def consume(self) -> None:
        self.before.append(self.heard.names())


async def watched(bench: Bench[Broker], opened: bool = True) -> tuple[Broker, Recorder]:
    """A broker with a recorder as its only plugin."""
    pm, heard = PluginManager(), recorder("broker")
    pm.register(heard, name="recorder")
    broker = await (bench.open(pm=pm) if opened else bench.make(pm=pm))
    return broker, heard


def worker(heard: Recorder) -> Worker:
    """A worker that does nothing."""
    return cast(Worker, _Worker(heard))


class Triggers(Suite):
    """The public methods, which fire the triggers."""

    @check("BROKER-80")
    async def test_start_and_stop(self, bench: Bench[Broker]) -> None:
        """`start` opens the broker and fires `broker_start` once, with the worker; `stop` fires
        `broker_stop` once and leaves the connection open, which `close` ends.

        If this fails, check that `start` and `stop` are those of the base class, or fire what they fire.
        """
        broker, heard = await watched(bench, opened=False)
        man = worker(heard)
        await broker.start(man)
        assert heard.fired == [Fired("broker_start", {"broker": broker, "worker": man})]
        await push(broker, item())
        heard.clear()
        await broker.stop()
        assert heard.fired == [Fired("broker_stop", {"broker": broker})]
        assert len(await drain(broker)) == 1, "after `stop` the last settles must still get through"

    @check("BROKER-81")
    async def test_listen(self, bench: Bench[Broker]) -> None:
        """`listen` fires `broker_listen_start` once, and then serves the worker.

        If this fails, check that `listen` fires before it consumes.
        """
        broker, heard = await watched(bench)
        man = worker(heard)
        await broker.listen(man)
        assert heard.fired == [Fired("broker_listen_start", {"broker": broker, "worker": man})]
        assert cast(_Worker, man).before == [["broker_listen_start"]]

    @check("BROKER-82")
    async def test_add(self, bench: Bench[Broker]) -> None:
        """`add` fires `broker_add_before` once, hands what comes of it to the storage, and gives what the
        storage made of that; `added` fires `broker_add_after` once.

        If this fails, check that `add` goes on with the model that the trigger gave back.
        """
        broker, heard = await watched(bench)
        store = _Storage()
        broker.storage = cast(Any, store)
        uuid, model = uuid4(), TaskStatusNewSchema(task_name="t", args=(1,))
        changed = replace(model, args=(2,))
        heard.returns["broker_add_before"] = changed
        got = await broker.add(uuid, model)
        values = {"broker": broker, "storage": store, "uuid": uuid, "model": model}
        assert heard.fired == [Fired("broker_add_before", values)]
        assert store.added == [(uuid, changed)], "the replacement did not reach the storage"
        assert got == replace(changed, extra={"storage": True})
        heard.clear()
        await broker.added(uuid, got)
        assert heard.fired == [Fired("broker_add_after", {**values, "model": got})]

    @check("BROKER-83")
    async def test_get(self, bench: Bench[Broker]) -> None:
        """`get` fires `broker_get` once and gives the task as plugins left it.

        If this fails, check that `get` gives back what the trigger gave.
        """
        broker, heard = await watched(bench)
        task = task_from_record(record(now=1.0))
        assert await broker.get(task.uuid, task) == task
        assert heard.fired == [Fired("broker_get", {"broker": broker, "uuid": task.uuid, "task": task})]
        heard.returns["broker_get"] = replace(task, returning=7)
        assert (await broker.get(task.uuid, task)).returning == 7

    @check("BROKER-84")
    async def test_update(self, bench: Bench[Broker]) -> None:
        """`update` fires `broker_update` once, and gives the fields merged with what plugins returned.

        If this fails, check that `update` gives back what the trigger gave.
        """
        broker, heard = await watched(bench)
        uuid, kw = uuid4(), {"extra": {"a": 1}, "updated_at": 5.0}
        heard.returns["broker_update"] = {"extra": {"b": 2}}
        assert await broker.update(uuid, kw) == {"extra": {"b": 2}, "updated_at": 5.0}
        assert [each.trigger for each in heard.fired] == ["broker_update"]
        assert heard.fired[0].values["uuid"] == uuid
        assert kw == {"extra": {"a": 1}, "updated_at": 5.0}, "the caller's mapping was changed"

    @check("BROKER-85")
    async def test_add_worker(self, bench: Bench[Broker]) -> None:
        """`add_worker` fires `broker_add_worker` once, with all values, and gives them as plugins left
        them.

        If this fails, check the order of the values that `add_worker` gives back.
        """
        broker, heard = await watched(bench)
        man, uuid = worker(heard), uuid4()
        heard.returns["broker_add_worker"] = {"priority": 9, "kw": {"b": 2}}
        got = await broker.add_worker(man, uuid, "t", 1, (1, 2), {"a": 1}, 5.0)
        assert got == ("t", 9, (1, 2), {"b": 2}, 5.0)
        (fired,) = heard.fired
        assert fired == Fired(
            "broker_add_worker",
            {
                "broker": broker, "worker": man, "uuid": uuid, "task_name": "t", "priority": 1,
                "args": (1, 2), "kw": {"a": 1}, "created_at": 5.0,
            },
        )  # fmt: skip

    @check("BROKER-86")
    async def test_remove_finished_task(self, bench: Bench[Broker]) -> None:
        """`remove_finished_task` fires `broker_remove_finished_task` once and gives the outcome as
        plugins left it.

        If this fails, check that `remove_finished_task` gives back what the trigger gave.
        """
        broker, heard = await watched(bench)
        broker.storage = cast(Any, SimpleNamespace())
        task = TaskPrioritySchema(priority=0, uuid=uuid4(), name="t")
        model = TaskStatusSuccessSchema(task_name="t", returning=1)
        heard.returns["broker_remove_finished_task"] = replace(model, returning=2)
        assert (await broker.remove_finished_task(task, model)) == replace(model, returning=2)
        values = {"broker": broker, "storage": broker.storage, "task_broker": task, "model": model}
        assert heard.fired == [Fired("broker_remove_finished_task", values)]

    @check("BROKER-87")
    async def test_running_older_tasks(self, bench: Bench[Broker]) -> None:
        """`running_older_tasks` fires `broker_running_older_tasks` once.

        If this fails, check that the method is that of the base class, or fires what it fires.
        """
        broker, heard = await watched(bench)
        man = worker(heard)
        await broker.running_older_tasks(man)
        assert heard.fired == [Fired("broker_running_older_tasks", {"broker": broker, "worker": man})]

    @check("BROKER-88")
    async def test_flush_all(self, bench: Bench[Broker]) -> None:
        """`flush_all` forgets all entries, and fires `broker_flush_all` once.

        If this fails, check that `flush_all` calls `flush`.
        """
        broker, heard = await watched(bench)
        await push(broker, item())
        await broker.flush_all()
        assert heard.fired == [Fired("broker_flush_all", {"broker": broker})]
        assert await drain(broker) == []

    @check("BROKER-89")
    async def test_primitives_fire_nothing(self, bench: Bench[Broker]) -> None:
        """No primitive fires a trigger.

        If this fails, check that the backend calls primitives, not public methods, from within primitives.
        """
        broker, heard = await watched(bench)
        await push(broker, item(), item(), item())
        got = await drain(broker)
        await broker.extend_many(got, bench.long)
        await broker.ack_many(got[:1])
        await broker.bury_many(got[1:2], "why")
        await broker.discard_many([got[2].uuid])
        await broker.sweep(5, 5)
        await broker.audit(5)
        await broker.size()
        await broker.wait_for_work(["default"], 0.0)
        await broker.flush()
        assert heard.names() == []

    @check("BROKER-90")
    async def test_add_with_control_flow(self, bench: Bench[Broker]) -> None:
        """Where a plugin defers in `broker_add_before`, the time of what is given back is moved; where it fails or
        refuses, the caller gets the error and the storage is not asked.

        If this fails, check what `add` does with `TaskDefer`, and that it catches nothing else.
        """
        broker, heard = await watched(bench)
        store = _Storage()
        broker.storage = cast(Any, store)
        model = TaskStatusNewSchema(task_name="t", available_at=bench.now())
        for error in (ValueError("broken"), TaskRejected("no"), TaskCancelError("no")):
            heard.returns["broker_add_before"] = error
            expected = PluginError if isinstance(error, ValueError) else type(error)
            with pytest.raises(expected):
                await broker.add(uuid4(), model)
        assert store.added == []
        if bench.capabilities.delayed:
            heard.returns["broker_add_before"] = TaskDefer(60.0)
            assert (await broker.add(uuid4(), model)).available_at == model.available_at + 60.0

    @check("BROKER-91", lacks=("priorities",))
    async def test_a_priority_is_refused(self, bench: Bench[Broker]) -> None:
        """A broker that does not declare `priorities` refuses a task with a priority other than 0 with
        `CapabilityError`.

        If this fails, check that `add` is that of the base class, or refuses what it refuses.
        """
        broker, _ = await watched(bench)
        broker.storage = cast(Any, _Storage())
        await broker.add(uuid4(), TaskStatusNewSchema(task_name="t"))
        await check_refusal(broker.add(uuid4(), TaskStatusNewSchema(task_name="t", priority=1)), "priorities")

    @check("BROKER-92", lacks=("delayed",))
    async def test_a_delay_is_refused(self, bench: Bench[Broker]) -> None:
        """A broker that does not declare `delayed` refuses a task for a later time with `CapabilityError`.

        If this fails, check that `add` is that of the base class, or refuses what it refuses.
        """
        broker, _ = await watched(bench)
        broker.storage = cast(Any, _Storage())
        await broker.add(uuid4(), TaskStatusNewSchema(task_name="t", available_at=bench.now()))
        later = TaskStatusNewSchema(task_name="t", available_at=bench.now() + bench.long)
        await check_refusal(broker.add(uuid4(), later), "delayed")
