"""Adding tasks: options, idempotence, bulk, what is refused; and what the task function gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from qtasks.app import QueueTasks
from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.components.primitives import QueueSize
from qtasks.context import TaskContext, current_task
from qtasks.errors import (
    BulkAddError,
    EncodeError,
    InvalidNameError,
    NotStartedError,
    PayloadTooLargeError,
    QueueFullError,
    TaskNotFoundError,
    UuidConflictError,
)
from qtasks.markers import hookimpl
from qtasks.registry import _check_match, check_name
from qtasks.schemas import TaskRecord, TaskRequest, TaskStatusEnum
from tests.app.conftest import MakeApp, working


async def test_options_reach_the_record(app: QueueTasks) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    async with app:
        task = await app.add_task(
            "any", args=(1,), kwargs={"k": None}, queue="other", priority=-3, eta=eta, extra={"a": [1]}
        )
        read = await app.get(task.uuid)
    assert read == task
    assert read is not None
    assert (read.args, read.kwargs, read.queue, read.priority) == ((1,), {"k": None}, "other", -3)
    assert read.extra == {"a": [1]}
    assert abs(read.available_at - eta) < timedelta(milliseconds=1)
    assert read.status is TaskStatusEnum.NEW


async def test_the_declaration_gives_queue_and_priority(app: QueueTasks) -> None:
    @app.task(queue="slow", priority=5)
    async def job() -> None: ...

    async with app:
        declared = await job.add_task()
        said = await job.options(queue="fast", priority=1, delay=60).add_task()
    assert (declared.queue, declared.priority) == ("slow", 5)
    assert (said.queue, said.priority) == ("fast", 1)
    assert abs(said.available_at - said.created_at - timedelta(seconds=60)) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"delay": -1}, ValueError, "delay is 0 to 3155760000 seconds, not -1"),
        ({"delay": float("nan")}, ValueError, "delay is 0 to 3155760000 seconds, not nan"),
        ({"delay": 1e300}, ValueError, "delay is 0 to 3155760000 seconds"),
        ({"uuid": "abc"}, TypeError, "uuid is a uuid.UUID, not 'abc'"),
        ({"args": "abc"}, TypeError, r"args=\('abc',\)"),
        ({"eta": datetime(2030, 1, 1)}, ValueError, "eta needs a time zone"),
        ({"eta": 1893456000.0}, TypeError, "eta is a datetime with a time zone"),
        ({"delay": 1, "eta": datetime.now(UTC)}, ValueError, "delay or eta, not both"),
        ({"priority": 128}, ValueError, "priority 128 is no whole number from -128 to 127"),
        ({"priority": 1.5}, ValueError, "priority 1.5 is no whole number"),
        ({"queue": "a b"}, InvalidNameError, "queue name 'a b' is not valid"),
        ({"args": (object(),)}, EncodeError, "cannot be written as JSON"),
        ({"args": ("x" * 2000,)}, PayloadTooLargeError, "more than max_payload"),
        (
            {"kwargs": {"unique_key": 1}, "extra": {"unique_key": 1}},
            EncodeError,
            "unique_key must be a string",
        ),
    ],
)
async def test_what_is_refused_leaves_nothing(
    make_app: MakeApp, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    app = make_app(max_payload=1000)
    async with app:
        with pytest.raises(error, match=message):
            await app.add_task("any", **options)
        assert (await app.get_all())[0] == []
        assert await app.broker.size() == {}


async def test_what_a_plugin_adds_in_place_is_measured(make_app: MakeApp) -> None:
    class Grows:
        @hookimpl
        def qtasks_add_task_before_broker(self, args: tuple[Any, ...], kw: dict[str, Any]) -> None:
            args[0].append("x" * 1000)
            kw["more"] = "x" * 1000

    app = make_app(max_payload=1000)
    app.add_plugin(Grows())
    async with app:
        with pytest.raises(PayloadTooLargeError, match="more than max_payload"):
            await app.add_task("any", args=([],))
        assert (await app.get_all())[0] == []


def test_what_is_no_name_is_not_kept() -> None:
    """A client may send anything, of any size; the names that were seen are remembered."""
    check_name("a-name", "queue name")
    kept = _check_match.cache_info().currsize
    for wrong in ("", "a b", "x" * 1_000_000, "a\n", b"bytes", None, 1, ["list"]):
        with pytest.raises(InvalidNameError, match="queue name"):
            check_name(wrong, "queue name")  # type: ignore[arg-type]
    assert _check_match.cache_info().currsize == kept


async def test_adding_again_with_the_same_uuid_is_idempotent(app: QueueTasks) -> None:
    uuid = uuid4()
    async with app:
        first = await app.add_task("any", args=(1,), uuid=uuid)
        again = await app.add_task("any", args=(1,), uuid=uuid)
        assert again == first
        assert await app.add_task("any", args=(1,), uuid=uuid, queue="another") == first
        with pytest.raises(UuidConflictError, match=str(uuid)):
            await app.add_task("any", args=(2,), uuid=uuid)
        assert len((await app.get_all())[0]) == 1
        assert await app.broker.size() == {"default": QueueSize(ready=1)}


async def test_a_unique_key_gives_the_task_that_stands(app: QueueTasks) -> None:
    async with app:
        first = await app.add_task("any", args=(1,), unique_key="k")
        second = await app.add_task("any", args=(2,), unique_key="k")
        assert second.uuid == first.uuid
        assert await app.cancel(first.uuid)
        third = await app.add_task("any", args=(3,), unique_key="k")
        assert third.uuid != first.uuid


class Forgetful(MemoryStorage):
    """Is flushed by somebody else just before it is read."""

    flushed = True

    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        if not self.flushed:
            self.flushed = True
            await self.flush()
        return await super().get_many(uuids)


async def test_a_task_is_stored_when_the_one_with_its_unique_key_is_gone_meanwhile() -> None:
    space = MemorySpace()
    storage = Forgetful(space)
    app = QueueTasks(broker=MemoryBroker(space), storage=storage, global_config=MemoryGlobalConfig(space))
    async with app:
        first = await app.add_task("any", unique_key="k")
        storage.flushed = False
        second = await app.add_task("any", unique_key="k")
        assert second.uuid != first.uuid
        assert await app.get(second.uuid) == second


async def test_bulk_adds_in_order_and_says_what_did_not_go(make_app: MakeApp) -> None:
    app = make_app(max_queue=3)
    async with app:
        tasks = await app.add_tasks([TaskRequest(task_name="any", args=(i,)) for i in range(2)])
        assert [task.args for task in tasks] == [(0,), (1,)]
        with pytest.raises(BulkAddError) as caught:
            await app.add_tasks([TaskRequest(task_name="any", args=(i,)) for i in range(2, 5)])
        assert {i: task.args for i, task in caught.value.tasks.items()} == {0: (2,)}
        assert {i: type(error) for i, error in caught.value.errors.items()} == {
            1: QueueFullError,
            2: QueueFullError,
        }
        with pytest.raises(QueueFullError, match="holds 3 tasks already"):
            await app.add_task("any")
        assert len((await app.get_all())[0]) == 3


async def test_bulk_refuses_a_time_that_no_datetime_can_tell(app: QueueTasks) -> None:
    async with app:
        for moment in (-1.0, float("nan"), 1e300):
            with pytest.raises(ValueError, match="available_at is a time in Unix seconds"):
                await app.add_tasks([TaskRequest(task_name="any", available_at=moment)])
        assert (await app.get_all())[0] == []


async def test_outside_of_async_with_the_error_says_what_to_do(app: QueueTasks) -> None:
    with pytest.raises(NotStartedError, match="async with app"):
        await app.add_task("any")
    with pytest.raises(NotStartedError, match="async with app"):
        await app.get(uuid4())


async def test_a_task_that_is_not_there(app: QueueTasks) -> None:
    async with app:
        assert await app.get(uuid4()) is None
        with pytest.raises(TaskNotFoundError):
            await app.cancel(uuid4())
        with pytest.raises(TaskNotFoundError):
            await app.wait_result(uuid4(), 1)


async def test_the_context_is_the_first_argument_with_echo(app: QueueTasks) -> None:
    @app.task(name="child")
    async def child(x: int) -> int:
        return x

    @app.task(echo=True)
    async def parent(context: TaskContext, x: int) -> list[Any]:
        await context.progress({"half": True})
        added = await context.add_task("child", args=(x,))
        assert current_task() is context
        return [str(context.uuid), context.name, context.attempt, str(added.uuid)]

    @app.task(echo=True)
    def plain(context: TaskContext, x: int) -> str:
        context.progress_sync("in a thread")
        return str(context.add_task_sync("child", args=(x,)).uuid)

    async with working(app):
        task = await parent.add_task(1)
        result = await task.wait_result(10)
        assert result.returning[:3] == [str(task.uuid), parent.name, 0]
        assert result.progress == {"half": True}
        in_thread = await (await plain.add_task(2)).wait_result(10)
        assert in_thread.progress == "in a thread"
        assert (await app.wait_result(UUID(in_thread.returning), 10)).returning == 2
        assert (await app.wait_result(UUID(result.returning[3]), 10)).returning == 1


async def test_timeout_gives_the_finished_task(app: QueueTasks) -> None:
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(app):
        assert (await add.options(timeout=10).add_task(1, 2)).returning == 3
        assert (await app.add_task(add.name, args=(3, 4), timeout=10)).returning == 7


async def test_the_task_that_an_add_gives_is_the_one_that_is_stored():
    class Shifted:
        @hookimpl
        def broker_add_before(self, model):
            return replace(
                model, updated_at=model.created_at + 5, available_at=model.created_at + 9, extra={"by": 1}
            )

    app = QueueTasks("calling", "memory://", plugins=[Shifted()])
    async with app:
        task = await app.add_task("work", args=(1,), queue="mail", priority=3)
        assert task == await app.get(task.uuid)
