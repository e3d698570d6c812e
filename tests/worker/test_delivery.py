"""Which task runs, when, and how often: orders, unknown names, poison, uniqueness, follow-ups, dead letters."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4, uuid5

import pytest

from qtasks.app import QueueTasks
from qtasks.components.primitives import QueueSize
from qtasks.context import TaskContext
from qtasks.errors import (
    BulkAddError,
    PayloadTooLargeError,
    QueueFullError,
    TaskCancelError,
    TaskNotFoundError,
    UuidConflictError,
)
from qtasks.markers import hookimpl
from qtasks.schemas import Task, TaskRequest, TaskStatusEnum, TaskStatusSuccessSchema

from ..apps import WAIT, alive, ended, make_app, run_canary, serving, stored

SUCCESS, ERROR, NEW = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.NEW


def recording(app: QueueTasks, name: str = "work", **options: Any) -> list[Any]:
    """Declares a task that keeps its argument; gives the list."""
    seen: list[Any] = []

    async def work(value: Any = None) -> Any:
        seen.append(value)
        return value

    app.task(name=name, **options)(work)
    return seen


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


# --- Uniqueness and identity --------------------------------------------------------------------


async def test_unique_key(app: QueueTasks) -> None:
    """One open task has it: the second call gets the first one's task; a finished one frees it."""
    seen = recording(app)
    keys = ["k", "nul\0", 'quotes"`', "glob*?[a]{b}\\:\n"]
    async with app:
        first = {key: await app.add_task("work", args=(key,), unique_key=key) for key in keys}
        for key in keys:
            assert (await app.add_task("work", args=("other",), unique_key=key)).uuid == first[key].uuid
    async with alive(app):
        for key in keys:
            await ended(app, first[key].uuid)
            second = await app.add_task("work", args=(key,), unique_key=key)
            assert second.uuid != first[key].uuid
            await ended(app, second.uuid)
    assert sorted(seen) == sorted(keys * 2)


async def test_the_same_uuid(app: QueueTasks) -> None:
    """The same task is there already; another one is a conflict, whatever a plugin makes of its arguments."""
    seen = recording(app)
    recording(app, "other")
    uuid = uuid4()

    class Salts:
        @hookimpl
        def broker_add_before(self, model: Any) -> Any:
            return replace(model, kwargs={**model.kwargs, "salt": uuid4().hex})

        @hookimpl
        def storage_get(self, result: Task) -> Any:
            return replace(result, kwargs={key: result.kwargs[key] for key in result.kwargs if key != "salt"})

    app.add_plugin(Salts(), name="salts")
    async with alive(app):
        assert (await app.add_task("work", args=(1,), uuid=uuid)).uuid == uuid
        await ended(app, uuid)
        again = await app.add_task("work", args=(1,), uuid=uuid)
        assert (again.uuid, again.status, again.returning) == (uuid, SUCCESS, 1)
        for name, args in [("work", (2,)), ("other", (1,))]:
            with pytest.raises(UuidConflictError, match=str(uuid)):
                await app.add_task(name, args=args, uuid=uuid)
        assert (await stored(app, uuid)).returning == 1
    assert seen == [1]


async def test_a_batch_in_which_some_are_not_added(backend: str, tmp_path: Path) -> None:
    """The others are, and the error says which is which."""
    app = make_app(backend, tmp_path, max_queue=3)
    seen = recording(app)
    async with app:
        taken = await app.add_task("work", args=(0,))
        requests = [
            TaskRequest(task_name="work", args=(1,)),
            TaskRequest(task_name="work", args=(9,), uuid=taken.uuid),
            TaskRequest(task_name="work", args=(2,)),
            TaskRequest(task_name="work", args=(3,)),
            TaskRequest(task_name="work", args=(4,), queue="second"),
        ]
        with pytest.raises(BulkAddError) as caught:
            await app.add_tasks(requests)
        assert sorted(caught.value.tasks) == [0, 2, 4]
        assert {i: type(error) for i, error in caught.value.errors.items()} == {
            1: UuidConflictError,
            3: QueueFullError,
        }
        await app.serve(until_idle=True)
    assert sorted(seen) == [0, 1, 2, 4]


async def test_a_batch_of_which_a_trigger_refuses_one(app: QueueTasks) -> None:
    """None is stored."""

    class Refuses:
        @hookimpl
        def storage_add(self, task_status: Any) -> None:
            if task_status.args == (2,):
                raise TaskCancelError("not this one")

    recording(app)
    app.add_plugin(Refuses(), name="refuses")
    async with alive(app):
        with pytest.raises(TaskCancelError):
            await app.add_tasks([TaskRequest(task_name="work", args=(n,)) for n in range(4)])
        assert sum((await app.storage.counts()).values()) == 0
        await run_canary(app)


async def test_too_large_arguments(backend: str, tmp_path: Path) -> None:
    """Refused before anything is stored, as the caller gives them and as plugins leave them."""
    app = make_app(backend, tmp_path, max_payload=2000)
    recording(app)

    class Grows:
        @hookimpl
        def broker_add_before(self, model: Any) -> Any:
            return replace(model, extra={"big": "x" * 3000}) if model.args == ("grow",) else None

    app.add_plugin(Grows(), name="grows")
    async with alive(app):
        for value in ("x" * 3000, "grow"):
            with pytest.raises(PayloadTooLargeError):
                await app.add_task("work", args=(value,))
        assert sum((await app.storage.counts()).values()) == 0


# --- Follow-ups ---------------------------------------------------------------------------------


class Then:
    """Adds follow-up tasks to the success of `first`."""

    def __init__(self, *requests: TaskRequest) -> None:
        self.requests = requests

    @hookimpl
    def worker_remove_finished_task(self, model: Any) -> Any:
        if isinstance(model, TaskStatusSuccessSchema) and model.task_name == "first":
            return {"model": replace(model, then=self.requests)}
        return None


async def test_follow_ups_are_stored_with_the_result(app: QueueTasks) -> None:
    """Whoever sees the result finds them there; they went through the producer triggers."""
    recording(app, "first")
    seen = recording(app, "second", queue="second")
    uuid, later = uuid4(), uuid4()
    prepared = []

    class Sees:
        @hookimpl
        def storage_add(self, task_status: Any) -> None:
            prepared.append(task_status.task_name)

    app.add_plugin(Sees(), name="sees")
    app.add_plugin(
        Then(
            TaskRequest(task_name="second", args=("now",), uuid=uuid),
            TaskRequest(task_name="second", args=("later",), uuid=later, available_at=app.clock() + 0.05),
        ),
        name="then",
    )
    async with alive(app):
        await ended(app, (await app.add_task("first")).uuid)
        record = await stored(app, uuid)
        assert record is not None
        assert record.queue == "second"
        assert (await ended(app, uuid)).returning == "now"
        assert (await ended(app, later)).returning == "later"
    assert seen == ["now", "later"]
    assert prepared[:3] == ["first", "second", "second"]


async def test_a_follow_up_that_is_refused_ends_the_task_in_error(app: QueueTasks) -> None:
    """Nothing is stored of it, and the result is not announced as a success."""
    recording(app, "first")
    app.add_plugin(Then(TaskRequest(task_name="second", args=(object(),))), name="then")
    async with alive(app):
        record = await ended(app, (await app.add_task("first", args=("result",))).uuid)
        assert (record.status, record.returning) == (ERROR, None)
        assert "'second'" in (record.traceback or "")
        assert (await app.storage.counts())["new"] == 0


@pytest.mark.parametrize("refused", [False, True])
async def test_a_task_that_ends_badly_has_follow_ups_too(app: QueueTasks, refused: bool) -> None:
    """Where one is refused, the end of the task is what it was."""
    uuids = {"error": uuid4(), "cancel": uuid4()}

    @app.task(name="fails")
    async def fails(how: str) -> None:
        raise ValueError("the cause") if how == "error" else TaskCancelError("the cause")

    recording(app, "second")

    class Cleans:
        @hookimpl
        def worker_remove_finished_task(self, model: Any) -> Any:
            if model.task_name == "fails":
                status = model.status.value
                args = (object(),) if refused else (status,)
                return {
                    "model": replace(
                        model, then=(TaskRequest(task_name="second", args=args, uuid=uuids[status]),)
                    )
                }
            return None

    app.add_plugin(Cleans())
    async with alive(app):
        for how, uuid in uuids.items():
            record = await ended(app, (await app.add_task("fails", args=(how,))).uuid)
            assert record.status.value == how
            assert "the cause" in (record.traceback or record.cancel_reason or "")
            if refused:
                assert await stored(app, uuid) is None
            else:
                assert (await ended(app, uuid)).returning == how


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
