"""Checks of how tasks are added: once, in bulk, unique, within limits, when the store is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from qtasks.errors import (
    BulkAddError,
    EncodeError,
    EnqueueUnknownError,
    InvalidNameError,
    PayloadTooLargeError,
    QueueFullError,
    TaskRejected,
    TransientError,
    UuidConflictError,
)
from qtasks.schemas import TaskRequest, TaskStatusEnum
from qtasks.testing.app.triggers import ADD, empty
from qtasks.testing.checks import check
from qtasks.testing.samples import HOSTILE
from qtasks.testing.stage import AppBench, AppSuite


class Adding(AppSuite):
    """`add_task`, `add_tasks`."""

    @check("APP-20")
    async def test_the_same_uuid(self, bench: AppBench) -> None:
        """A task that is added again with its uuid is the same task, and runs once; another one with that uuid is
        refused. What plugins make of the arguments does not count.

        If this fails, check that the digest is made of what the caller gave.
        """
        stage = await bench.stage()
        uuid = uuid4()
        async with stage.app as app:
            counter = iter(range(100))
            stage.heard.returns["qtasks_add_task_before_broker"] = lambda _values: {
                "extra": {"n": next(counter)}
            }
            for _ in range(3):
                assert (await app.add_task("work", args=(1,), uuid=uuid)).uuid == uuid
            for name, args in (("other", (1,)), ("work", (2,))):
                with pytest.raises(UuidConflictError):
                    await app.add_task(name, args=args, uuid=uuid)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            await app.add_task("work", args=(1,), uuid=uuid)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
        assert stage.ran == [("work", (1,), {})]

    @check("APP-21")
    async def test_unique_key(self, bench: AppBench) -> None:
        """At most one open task has a unique key: a second call gets the first one's task, also from many clients at
        once; when it has ended, the key is free.

        If this fails, check that the key goes into the record.
        """
        stage = await bench.stage()
        async with stage.app as app:
            tasks = await asyncio.gather(
                *(app.add_task("work", args=(n,), unique_key="k") for n in range(20))
            )
            assert len({task.uuid for task in tasks}) == 1
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert len(stage.ran) == 1
            assert (await app.add_task("work", unique_key="k")).uuid != tasks[0].uuid

    @check("APP-22")
    async def test_bulk(self, bench: AppBench) -> None:
        """`add_tasks` adds all, in their order, each through its triggers. Where some cannot be added, `BulkAddError`
        has those that were, and the errors, by position.

        If this fails, check that each request gets its own verdict.
        """
        stage = await bench.stage(max_queue=3)
        async with stage.app as app:
            stage.take()
            added = await app.add_tasks([TaskRequest(task_name="work", args=(n,)) for n in range(2)])
            assert [task.args for task in added] == [(0,), (1,)]
            assert sorted(stage.take()) == sorted(ADD * 2)
            with pytest.raises(BulkAddError) as caught:
                await app.add_tasks([TaskRequest(task_name="work", args=(n,)) for n in range(3)])
            assert len(caught.value.tasks) == 1
            assert len(caught.value.errors) == 2
            assert all(isinstance(error, QueueFullError) for error in caught.value.errors.values())
            assert caught.value.tasks.keys() | caught.value.errors.keys() == {0, 1, 2}
            assert len((await app.storage.scan(None, 10)).records) == 3
            with pytest.raises(QueueFullError):
                await app.add_task("work")

    @check("APP-23")
    async def test_a_bulk_that_is_refused(self, bench: AppBench) -> None:
        """Where a plugin refuses one task of `add_tasks`, nothing of them is stored.

        If this fails, check that all have passed their triggers before one is stored.
        """
        stage = await bench.stage()

        def refuse(values: dict[str, Any]) -> None:
            if values["args"] == (1,):
                raise TaskRejected("not this one")

        stage.heard.returns["qtasks_add_task_before_broker"] = refuse
        async with stage.app as app:
            with pytest.raises(TaskRejected):
                await app.add_tasks([TaskRequest(task_name="work", args=(n,)) for n in range(3)])
            assert await empty(stage)

    @check("APP-24")
    async def test_limits(self, bench: AppBench) -> None:
        """Names outside their grammar, priorities outside -128 … 127, arguments that are no JSON or larger than
        `max_payload` are refused with an error that says so; nothing is stored.

        If this fails, check what is looked at before the task is stored.
        """
        stage = await bench.stage(max_payload=1000)
        async with stage.app as app:
            for error, name, options in (
                (InvalidNameError, "a b", {}), (InvalidNameError, "", {}), (InvalidNameError, "x" * 201, {}),
                (InvalidNameError, "work", {"queue": "a:b"}), (InvalidNameError, "work", {"queue": "x" * 49}),
                (ValueError, "work", {"priority": 128}), (ValueError, "work", {"priority": -129}),
                (EncodeError, "work", {"args": (object(),)}), (PayloadTooLargeError, "work", {"args": ("x" * 2000,)}),
                (PayloadTooLargeError, "work", {"extra": {"x": "x" * 2000}}),
            ):  # fmt: skip
                with pytest.raises(error):
                    await app.add_task(name, **options)
            assert await empty(stage)
            for priority in (127, -128):
                await app.add_task("work", priority=priority)

    @check("APP-25")
    async def test_hostile_values(self, bench: AppBench) -> None:
        """Any text is data: arguments, extra and unique keys come out as they went in, and are different keys.

        If this fails, check how values go into what is stored.
        """
        stage = await bench.stage()
        async with stage.app as app:
            tasks = {
                text: await app.add_task(
                    "work", args=(text,), kwargs={"k": text}, extra={text: text}, unique_key=text
                )
                for text in HOSTILE
                if text
            }
            assert len({task.uuid for task in tasks.values()}) == len(tasks)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            for text, task in tasks.items():
                record = await stage.stored(task.uuid)
                assert record.returning == ["work", [text], {"k": text}], repr(text)
                assert record.extra[text] == text

    @check("APP-26")
    async def test_what_the_caller_holds(self, bench: AppBench) -> None:
        """Plugins get containers that the caller does not hold: what one changes in place reaches nobody.

        If this fails, check that arguments and `extra` are copied before the first trigger.
        """
        stage = await bench.stage()

        def mutate(values: dict[str, Any]) -> None:
            values["kw"]["by"] = "plugin"
            values["extra"]["by"] = "plugin"

        stage.heard.returns["qtasks_add_task_before_broker"] = mutate
        args, kwargs, extra = [1], {"x": 2}, {"e": 3}
        async with stage.app as app:
            await app.add_task("work", args=args, kwargs=kwargs, extra=extra)
        assert (args, kwargs, extra) == ([1], {"x": 2}, {"e": 3})

    @check("APP-27")
    async def test_times(self, bench: AppBench) -> None:
        """`delay` and `eta` say before which time a task may not run; the declaration says queue and priority, unless
        the call does.

        If this fails, check what a call leaves to the declaration.
        """
        stage = await bench.stage()
        stage.declare({"queue": "second", "priority": 9}, declared=stage.app.tasks["work"].func)
        async with stage.app as app:
            late = await stage.stored((await app.add_task("work", delay=100)).uuid)
            assert late.available_at - late.created_at == pytest.approx(100, abs=1)
            eta = datetime(2100, 1, 1, tzinfo=UTC)
            assert (
                await stage.stored((await app.add_task("work", eta=eta)).uuid)
            ).available_at == eta.timestamp()
            record = await stage.stored((await app.add_task("declared")).uuid)
            assert (record.queue, record.priority) == ("second", 9)
            record = await stage.stored((await app.add_task("declared", queue="third", priority=0)).uuid)
            assert (record.queue, record.priority) == ("third", 0)

    @check("APP-28")
    async def test_an_unknown_outcome(self, bench: AppBench) -> None:
        """Where the store is cut off before its reply, `add_task` raises `EnqueueUnknownError` with the uuid; adding
        the task again with it is one task.

        If this fails, check what follows `TransientError` of the step that stores.
        """
        stage = await bench.stage()
        uuid = uuid4()
        async with stage.app as app:
            whole = app.delivery.add

            async def cut(records: Any) -> Any:
                await whole(records)
                raise TransientError("the reply was lost")

            app.delivery.add = cut  # type: ignore[method-assign]
            with pytest.raises(EnqueueUnknownError) as caught:
                await app.add_task("work", uuid=uuid)
            assert str(uuid) in str(caught.value)
            app.delivery.add = whole  # type: ignore[method-assign]
            await app.add_task("work", uuid=uuid)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
        assert len(stage.ran) == 1

    @check("APP-29")
    async def test_many_clients(self, bench: AppBench) -> None:
        """Tasks that are added at the same time are all stored, each once, with their own values.

        If this fails, check that nothing of a call is kept on the application while it waits.
        """
        stage = await bench.stage()
        async with stage.app as app:
            tasks = await asyncio.gather(*(app.add_task("work", args=(n,)) for n in range(100)))
            assert len({task.uuid for task in tasks}) == 100
            for n, task in enumerate(tasks):
                record = await stage.stored(task.uuid)
                assert (record.args, record.status) == ((n,), TaskStatusEnum.NEW)
            assert (await app.broker.size())["default"].ready == 100
