"""Checks of the storage's triggers: each fires once, when it should, with the right values."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from qtasks.components.primitives import Update
from qtasks.components.storage import Storage
from qtasks.manager import PluginManager
from qtasks.recorder import Fired, Recorder, recorder
from qtasks.schemas import TaskPrioritySchema, TaskStatusNewSchema, TaskStatusSuccessSchema, task_from_record
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import record, success
from qtasks.testing.storage.adding import add, bury
from qtasks.testing.storage.running import started


async def watched(bench: Bench[Storage], opened: bool = True) -> tuple[Storage, Recorder]:
    """A storage with a recorder as its only plugin."""
    pm, heard = PluginManager(), recorder("storage")
    pm.register(heard, name="recorder")
    storage = await (bench.open(pm=pm) if opened else bench.make(pm=pm))
    return storage, heard


class Triggers(Suite):
    """The public methods, which fire the triggers."""

    @check("STORAGE-100")
    async def test_start_and_stop(self, bench: Bench[Storage]) -> None:
        """`start` opens the storage and fires `storage_start` once; `stop` fires `storage_stop` once and
        leaves the connection open, which `close` ends.

        If this fails, check that `start` and `stop` are those of the base class, or fire what they fire.
        """
        storage, heard = await watched(bench, opened=False)
        await storage.start()
        assert heard.fired == [Fired("storage_start", {"storage": storage})]
        heard.clear()
        await storage.stop()
        assert heard.fired == [Fired("storage_stop", {"storage": storage})]
        await add(storage, record())

    @check("STORAGE-101")
    async def test_add(self, bench: Bench[Storage]) -> None:
        """`add` fires `storage_add` once and gives what is to be stored as plugins left it; it stores
        nothing.

        If this fails, check that `add` gives back what the trigger gave.
        """
        storage, heard = await watched(bench)
        uuid, model = uuid4(), TaskStatusNewSchema(task_name="t")
        assert await storage.add(uuid, model) == model
        values = {"storage": storage, "uuid": uuid, "task_status": model}
        assert heard.fired == [Fired("storage_add", values)]
        heard.returns["storage_add"] = {"task_status": replace(model, priority=5)}
        assert (await storage.add(uuid, model)).priority == 5
        assert await storage.get_many([uuid]) == [None]

    @check("STORAGE-102")
    async def test_get(self, bench: Bench[Storage]) -> None:
        """`get` fires `storage_get` once and gives the task as plugins left it.

        If this fails, check that `get` gives back what the trigger gave.
        """
        storage, heard = await watched(bench)
        task = task_from_record(record(now=1.0))
        assert await storage.get(task.uuid, task) == task
        values = {"storage": storage, "uuid": task.uuid, "result": task}
        assert heard.fired == [Fired("storage_get", values)]
        heard.returns["storage_get"] = replace(task, returning=7)
        assert (await storage.get(task.uuid, task)).returning == 7

    @check("STORAGE-103")
    async def test_get_all(self, bench: Bench[Storage]) -> None:
        """`get_all` fires `storage_get_all` once per page and gives the page as plugins left it.

        If this fails, check that `get_all` gives back what the trigger gave.
        """
        storage, heard = await watched(bench)
        tasks = [task_from_record(record(now=1.0)) for _ in range(3)]
        assert await storage.get_all(tasks) == tasks
        assert heard.fired == [Fired("storage_get_all", {"storage": storage, "results": tasks})]
        heard.returns["storage_get_all"] = tasks[:1]
        assert await storage.get_all(tasks) == tasks[:1]

    @check("STORAGE-104")
    async def test_update_fires(self, bench: Bench[Storage]) -> None:
        """`update` fires `storage_update` once, and gives the fields merged with what plugins returned.

        If this fails, check that `update` gives back what the trigger gave.
        """
        storage, heard = await watched(bench)
        uuid, kw = uuid4(), {"extra": {"a": 1}, "updated_at": 5.0}
        heard.returns["storage_update"] = {"extra": {"b": 2}}
        assert await storage.update(uuid, kw) == {"extra": {"b": 2}, "updated_at": 5.0}
        assert heard.names() == ["storage_update"]
        assert heard.fired[0].values["uuid"] == uuid
        assert kw == {"extra": {"a": 1}, "updated_at": 5.0}, "the caller's mapping was changed"

    @check("STORAGE-105")
    async def test_add_process(self, bench: Bench[Storage]) -> None:
        """`add_process` fires `storage_add_process` once and gives name and priority as plugins left them.

        If this fails, check the order of the values that `add_process` gives back.
        """
        storage, heard = await watched(bench)
        uuid = uuid4()
        heard.returns["storage_add_process"] = {"priority": 9}
        assert await storage.add_process(uuid, "t", 1) == ("t", 9)
        values = {"storage": storage, "uuid": uuid, "task_name": "t", "priority": 1}
        assert heard.fired == [Fired("storage_add_process", values)]

    @check("STORAGE-106")
    async def test_running_older_tasks(self, bench: Bench[Storage]) -> None:
        """`running_older_tasks` fires `storage_running_older_tasks` once, with all values, and gives them
        as plugins left them.

        If this fails, check the order of the values that `running_older_tasks` gives back.
        """
        storage, heard = await watched(bench)
        worker, uuid = cast(Any, SimpleNamespace()), uuid4()
        heard.returns["storage_running_older_tasks"] = {"args": (3,), "task_name": "u"}
        got = await storage.running_older_tasks(worker, uuid, "t", 1, (1, 2), {"a": 1}, 5.0)
        assert got == ("u", 1, (3,), {"a": 1}, 5.0)
        values = {
            "storage": storage, "worker": worker, "uuid": uuid, "task_name": "t", "priority": 1,
            "args": (1, 2), "kw": {"a": 1}, "created_at": 5.0,
        }  # fmt: skip
        assert heard.fired == [Fired("storage_running_older_tasks", values)]

    @check("STORAGE-107")
    async def test_remove_finished_task(self, bench: Bench[Storage]) -> None:
        """`remove_finished_task` fires the signal `storage_remove_finished_task` once.

        If this fails, check that the method is that of the base class, or fires what it fires.
        """
        storage, heard = await watched(bench)
        task = TaskPrioritySchema(priority=0, uuid=uuid4(), name="t")
        model = TaskStatusSuccessSchema(task_name="t", returning=1)
        await storage.remove_finished_task(task, model)
        values = {"storage": storage, "task_broker": task, "model": model}
        assert heard.fired == [Fired("storage_remove_finished_task", values)]

    @check("STORAGE-108")
    async def test_delete_finished_tasks(self, bench: Bench[Storage]) -> None:
        """`delete_finished_tasks` deletes what has expired, says how many, and fires
        `storage_delete_finished_tasks` once.

        If this fails, check that it purges up to the clock's present time.
        """
        storage, heard = await watched(bench)
        token, young = await started(storage, n=2)
        expired = success(token, bench.now())
        expired.changes["expires_at"] = bench.now() - 1
        await storage.settle_many([expired, success(young, bench.now())])
        assert await storage.delete_finished_tasks() == 1
        assert heard.fired == [Fired("storage_delete_finished_tasks", {"storage": storage})]
        found = await storage.get_many([token.uuid, young.uuid])
        assert [each is None for each in found] == [True, False]

    @check("STORAGE-109")
    async def test_flush_all(self, bench: Bench[Storage]) -> None:
        """`flush_all` deletes all records, and fires `storage_flush_all` once.

        If this fails, check that `flush_all` calls `flush`.
        """
        storage, heard = await watched(bench)
        given = record()
        await add(storage, given)
        await storage.flush_all()
        assert heard.fired == [Fired("storage_flush_all", {"storage": storage})]
        assert await storage.get_many([given.uuid]) == [None]

    @check("STORAGE-110")
    async def test_primitives_fire_nothing(self, bench: Bench[Storage]) -> None:
        """No primitive fires a trigger.

        If this fails, check that the backend calls primitives, not public methods, from within primitives.
        """
        storage, heard = await watched(bench)
        now = bench.now()
        a, b, c = await started(storage, n=3)
        await storage.update_many([Update(a.uuid, {"progress": 1})])
        await storage.settle_many([success(a, now)])
        await storage.bury_many([bury(b.uuid)], expires_at=now)
        await storage.cancel_many([c.uuid], "", expires_at=now)
        await storage.cancel_requested_many([c.uuid])
        await storage.get_settled(a.uuid)
        await storage.wait_settled(a.uuid, 0.0)
        await storage.scan(None, 5)
        await storage.scan_open(None, 5, now)
        await storage.scan_dead(None, 5)
        await storage.delete_many([a.uuid])
        await storage.purge(now, 5)
        await storage.counts()
        await storage.flush()
        assert heard.names() == []
