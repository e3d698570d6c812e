"""Which task runs, when, and how often: orders, unknown names, poison, dead letters."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4, uuid5

import pytest

from qtasks.app import QueueTasks
from qtasks.components.primitives import QueueSize
from qtasks.context import TaskContext
from qtasks.errors import TaskNotFoundError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskStatusEnum

from ..apps import WAIT, alive, ended, make_app, recording, serving, stored

SUCCESS, ERROR, NEW = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.NEW


# --- Order --------------------------------------------------------------------------------------


async def test_priority_then_first_in(backend: str, tmp_path: Path) -> None:
    """The lower number first, within it the order of adding; the default is the task's own."""
    app = make_app(backend, tmp_path, concurrency=1)
    seen = recording(app, priority=3)
    async with app:
        for value, priority in [("c", 127), ("a", -128), ("b", None), ("d", 127), ("b2", 3)]:
            await app.add_task("work", args=(value,), priority=priority)
        await app.serve(until_idle=True)
    assert seen == ["a", "b", "b2", "c", "d"]


async def test_queues_in_their_order(backend: str, tmp_path: Path) -> None:
    """The first queue of the worker is served first, whatever the priorities; a queue it has not is left."""
    app = make_app(backend, tmp_path, concurrency=1, queues=("mail", "default"))
    seen = recording(app)
    async with app:
        for value, queue, priority in [(1, "default", -5), (2, "mail", 5), (3, "other", 0), (4, "mail", 0)]:
            await app.add_task("work", args=(value,), queue=queue, priority=priority)
        await app.serve(until_idle=True)
        assert seen == [4, 2, 1]
        assert (await app.broker.size())["other"] == QueueSize(ready=1)


@pytest.mark.parametrize("how", ["delay", "eta"])
async def test_a_delayed_task_waits(app: QueueTasks, how: str) -> None:
    """It is not started before its time."""
    recording(app)
    async with alive(app):
        now = datetime.fromtimestamp(app.clock(), UTC)
        when = {"delay": 0.05} if how == "delay" else {"eta": now + timedelta(seconds=0.05)}
        task = await app.add_task("work", **when)
        assert task.available_at > task.created_at
        record = await ended(app, task.uuid)
        assert (record.started_at or 0) >= record.available_at


# --- Unknown names and poison -------------------------------------------------------------------


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    app: QueueTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rolling deploys: put back with a delay, the delivery returned; run by who knows it."""
    monkeypatch.setattr("qtasks.components.worker.run.UNKNOWN_TASK_DELAY", 0.01)
    tries = asyncio.Event()
    count = []

    class Counts:
        @hookimpl
        def worker_add(self, task_name: str) -> None:
            if task_name == "later":
                count.append(1)
                if len(count) > app.config.max_deliveries + 1:
                    tries.set()

    app.add_plugin(Counts(), name="counts")
    async with alive(app):
        task = await app.add_task("later", args=(1,))
        await asyncio.wait_for(tries.wait(), WAIT)
        record = await stored(app, task.uuid)
        assert record is not None
        assert record.status in (NEW, TaskStatusEnum.PROCESS)
        assert record.attempt == 0
        recording(app, "later")
        record = await ended(app, task.uuid)
        assert (record.status, record.returning, record.deliveries) == (SUCCESS, 1, 1)


async def test_an_unknown_task_is_dead_after_the_grace(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace is counted from when it was due."""
    monkeypatch.setattr("qtasks.components.worker.run.UNKNOWN_TASK_DELAY", 0.01)
    app = make_app(backend, tmp_path, missing_grace=0.05)
    async with alive(app):
        record = await ended(app, (await app.add_task("never")).uuid)
        assert (record.status, record.dead, record.attempt) == (ERROR, True, 0)
        assert "'never'" in (record.traceback or "")
        assert (record.finished_at or 0) - record.available_at >= 0.05
        assert [task.uuid async for task in app.dead()] == [record.uuid]


async def test_the_grace_of_an_unknown_task_begins_with_its_retry(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was put off for long, by a retry or a defer, has its whole grace from then on."""
    monkeypatch.setattr("qtasks.components.worker.run.UNKNOWN_TASK_DELAY", 0.01)
    app = make_app(backend, tmp_path, missing_grace=3600.0)
    now = app.clock()
    app.clock = app.broker.clock = app.storage.clock = app.worker.clock = lambda: now
    seen: list[int] = []
    met = asyncio.Event()

    class Renames:
        @hookimpl
        def worker_add(self) -> Any:
            seen.append(1)
            met.set()
            return {"task_name": "unknown"} if len(seen) == 2 else None

    @app.task(name="work", echo=True)
    async def work(context: TaskContext) -> str:
        if len(seen) == 1:
            context.defer(7200.0)
        return "done"

    app.add_plugin(Renames(), name="renames")
    async with app:
        task = await app.add_task("work")
        async with serving(app):
            await met.wait()  # and serving ends when what runs has ended
        now += 7201.0
        met.clear()
        async with serving(app):
            await met.wait()
        now += 2.0
        async with serving(app):
            record = await ended(app, task.uuid)
    assert (record.status, record.returning) == (SUCCESS, "done")


async def test_the_last_deliveries_run_alone(app: QueueTasks) -> None:
    """A task that kills its process buries no neighbours: nothing runs beside it, and all go on after it."""
    running: set[str] = set()
    beside: list[set[str]] = []

    @app.task(name="poison")
    async def poison() -> None:
        running.add("poison")
        await asyncio.sleep(0)
        beside.append(set(running))
        await asyncio.sleep(0)
        running.discard("poison")

    @app.task(name="neighbour")
    async def neighbour(number: int) -> None:
        running.add(f"neighbour {number}")
        for _ in range(5):
            await asyncio.sleep(0)
            if "poison" in running:
                beside.append(set(running))
        running.discard(f"neighbour {number}")

    async with app:
        task = await app.add_task("poison")
        for _ in range(app.config.max_deliveries - 2):
            assert await app.delivery.claim(1, ("default",), "f" * 16, 1e-6)
            await app.broker.sweep(10, app.config.max_deliveries)
    async with alive(app):
        others = [await app.add_task("neighbour", args=(number,)) for number in range(20)]
        record = await ended(app, task.uuid)
        assert (record.status, record.deliveries) == (SUCCESS, app.config.max_deliveries - 1)
        for other in others:
            assert (await ended(app, other.uuid)).status is SUCCESS
    assert beside == [{"poison"}]


async def test_what_waits_beside_a_task_that_runs_alone_is_given_back(app: QueueTasks) -> None:
    """Also what is in its own last deliveries: if the one that runs ends its process, the others lose none."""
    most = app.config.max_deliveries
    lonely = asyncio.Event()
    go = asyncio.Event()

    @app.task(name="lonely")
    async def first() -> None:
        lonely.set()
        await go.wait()

    @app.task(name="work")
    async def work() -> str:
        return "done"

    async with app:
        poison = await app.add_task("lonely")
        doomed = [await app.add_task("work") for _ in range(5)]
        for _ in range(most - 2):
            assert len(await app.delivery.claim(6, ("default",), "f" * 16, 1e-6)) == 6
            await app.broker.sweep(10, most)
    async with alive(app):
        others = [await app.add_task("work") for _ in range(5)]
        async with asyncio.timeout(WAIT):
            await lonely.wait()
        assert len(app.worker.held()) == 1, "nothing is held that would be lost with it"
        (size,) = (await app.broker.size()).values()
        assert (size.ready, size.leased) == (10, 1)
        go.set()
        for task in (poison, *doomed, *others):
            assert (await ended(app, task.uuid)).status is SUCCESS
        for task in doomed:
            assert (await ended(app, task.uuid)).deliveries == most - 1
        for task in others:
            assert (await ended(app, task.uuid)).deliveries == 1


async def test_a_task_whose_deliveries_are_used_up_is_dead(app: QueueTasks) -> None:
    """By lost workers, without ever coming to an end: ERROR in the dead set, written by any worker."""
    seen = recording(app)
    async with app:
        task = await app.add_task("work")
        for _ in range(app.config.max_deliveries):
            assert await app.delivery.claim(1, ("default",), "f" * 16, 1e-6)
            report = await app.broker.sweep(10, app.config.max_deliveries)
        assert [item.uuid for item in report.buried] == [task.uuid]
    async with alive(app):
        record = await ended(app, task.uuid)
        assert (record.status, record.dead, seen) == (ERROR, True, [])
        assert "lost" in (record.traceback or "")


# --- Dead letters -------------------------------------------------------------------------------


async def test_replay(app: QueueTasks) -> None:
    """A new task of its own, whose identity follows from the dead one's, so that asking twice runs it once."""
    good = []

    @app.task(name="work")
    async def work(value: int, *, key: str) -> int:
        if not good:
            raise ValueError("not yet")
        return value

    async with alive(app):
        dead = await ended(
            app, (await app.add_task("work", args=(7,), kwargs={"key": "k"}, queue="second")).uuid
        )
        assert dead.dead
        with pytest.raises(TaskNotFoundError):
            await app.replay(uuid4())
        good.append(True)
        again, twice = await asyncio.gather(app.replay(dead.uuid), app.replay(dead.uuid))
        assert again.uuid == twice.uuid == uuid5(dead.uuid, "0")
        record = await ended(app, again.uuid)
        assert (record.status, record.returning, record.queue) == (SUCCESS, 7, "second")
        assert record.replay_of == dead.uuid
        third = await app.replay(dead.uuid)
        assert third.uuid == uuid5(dead.uuid, "1")
        await ended(app, third.uuid)
        assert (await stored(app, dead.uuid)).status is ERROR
        assert await app.delete([dead.uuid]) == [True]
        assert [task async for task in app.dead()] == []


async def test_finished_records_are_purged_by_their_own_time(backend: str, tmp_path: Path) -> None:
    """The task's `result_ttl`, the application's, `dead_ttl` for the dead, and `dead_max` of them at most."""
    app = make_app(backend, tmp_path, result_ttl=100.0, dead_ttl=1000.0, dead_max=2)
    now = app.clock()
    app.clock = app.broker.clock = app.storage.clock = app.worker.clock = lambda: now
    recording(app, "short", result_ttl=10.0)
    recording(app, "plain")

    @app.task(name="fails")
    async def fails() -> None:
        raise ValueError

    async with app:
        uuids = {name: (await app.add_task(name)).uuid for name in ("short", "plain", "fails")}
        await app.serve(until_idle=True)

        async def left() -> set[str]:
            await app.storage.delete_finished_tasks()
            records = await app.storage.get_many(list(uuids.values()))
            return {record.task_name for record in records if record is not None}

        assert await left() == {"short", "plain", "fails"}
        now += 11
        assert await left() == {"plain", "fails"}
        now += 100
        assert await left() == {"fails"}
        for _ in range(2):
            await app.add_task("fails")
        await app.serve(until_idle=True)
        assert await left() == set(), "the oldest of three dead ones is above dead_max"
        assert (await app.storage.counts())["dead"] == 2
        now += 1001
        await left()
        assert (await app.storage.counts())["dead"] == 0
