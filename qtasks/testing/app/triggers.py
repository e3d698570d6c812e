"""Checks of the application's triggers: each fires once, when it should, and what plugins replace is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from qtasks.errors import PluginError, TaskCancelError, TaskDefer, TaskRejected
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage

BEFORE = ["qtasks_add_task_before_broker", "broker_add_before", "storage_add"]
ADD = [*BEFORE, "broker_add_after", "qtasks_add_task_after_broker"]
GET = ["storage_get", "broker_get", "qtasks_get"]


async def empty(stage: Stage) -> bool:
    """Whether nothing is stored and nothing queued."""
    page = await stage.app.storage.scan(None, 10)
    return not page.records and not any(any(size) for size in (await stage.app.broker.size()).values())


class Triggers(AppSuite):
    """What fires, when, with what."""

    @check("APP-01")
    async def test_add(self, bench: AppBench) -> None:
        """`add_task` fires the three producer triggers, then stores and queues, then the two that tell of it; each
        once, with the task's values.

        If this fails, check that `add_task` goes through the producer, or fires what it fires.
        """
        stage = await bench.stage()
        async with stage.app as app:
            stage.take()
            uuid = uuid4()
            task = await app.add_task(
                "work", args=(1,), kwargs={"x": 2}, priority=3, uuid=uuid, extra={"e": 1}
            )
            assert task.uuid == uuid
            (before,) = stage.heard.of("qtasks_add_task_before_broker")
            assert (before["qtasks"], before["broker"], before["uuid"]) == (app, app.broker, uuid)
            given = {name: before[name] for name in ("task_name", "priority", "args", "kw", "extra", "queue")}
            assert given == {
                "task_name": "work", "priority": 3, "args": (1,), "kw": {"x": 2}, "extra": {"e": 1}, "queue": "default",
            }  # fmt: skip
            (after,) = stage.heard.of("qtasks_add_task_after_broker")
            assert (after["task"].uuid, after["task_name"], after["priority"]) == (uuid, "work", 3)
            assert (after["args"], after["kw"]) == ((1,), {"x": 2})
            for trigger in ("broker_add_before", "broker_add_after"):
                (values,) = stage.heard.of(trigger)
                assert (values["uuid"], values["model"].task_name, values["model"].status) == (
                    uuid,
                    "work",
                    "new",
                )
            assert stage.take() == ADD

    @check("APP-02")
    async def test_what_is_replaced_before_the_broker(self, bench: AppBench) -> None:
        """Each value that a plugin replaces in `qtasks_add_task_before_broker` is what is stored and queued.

        If this fails, check the order of the values that the trigger gives back.
        """
        for field, value in (
            ("task_name", "other"), ("priority", -7), ("args", (5,)), ("kw", {"y": 6}), ("extra", {"by": "plugin"}),
            ("queue", "second"), ("available_at", 4_000_000_000.0),
        ):  # fmt: skip
            stage = await bench.stage()
            stage.heard.returns["qtasks_add_task_before_broker"] = {field: value}
            async with stage.app as app:
                record = await stage.stored((await app.add_task("work", args=(1,), kwargs={"x": 2})).uuid)
                name = "kwargs" if field == "kw" else field
                assert getattr(record, name) == value, field
                rest = {
                    "task_name": "work",
                    "priority": 0,
                    "args": (1,),
                    "kwargs": {"x": 2},
                    "queue": "default",
                }
                rest.pop(name, None)
                assert {each: getattr(record, each) for each in rest} == rest, (
                    f"{field} changed another field"
                )
                size = (await app.broker.size())[record.queue]
                assert (size.ready, size.delayed) == ((0, 1) if field == "available_at" else (1, 0)), field

    @check("APP-03")
    async def test_what_broker_and_storage_replace(self, bench: AppBench) -> None:
        """The model that plugins leave in `broker_add_before` and `storage_add` is what is stored, and what is told
        afterwards.

        If this fails, check that the record is made of what `broker.add` gives back.
        """
        for trigger, key in (("broker_add_before", "model"), ("storage_add", "task_status")):

            def answer(values: dict[str, Any], key: str = key) -> Any:
                model = replace(values[key], args=("replaced",), priority=4)
                return model if key == "model" else {key: model}

            stage = await bench.stage()
            stage.heard.returns[trigger] = answer
            async with stage.app as app:
                record = await stage.stored((await app.add_task("work", args=(1,))).uuid)
                assert (record.args, record.priority) == (("replaced",), 4), trigger
                (after,) = stage.heard.of("qtasks_add_task_after_broker")
                assert (after["args"], after["priority"]) == (("replaced",), 4), trigger

    @check("APP-04")
    async def test_told_when_it_is_stored(self, bench: AppBench) -> None:
        """`broker_add_after` and `qtasks_add_task_after_broker` fire when the task is stored and queued.

        If this fails, check that they are fired after the step that stores.
        """
        stage = await bench.stage()
        seen: list[Any] = []

        async def look(values: dict[str, Any]) -> None:
            uuid = values["uuid"] if "uuid" in values else values["task"].uuid
            seen.append(((await stage.stored(uuid)).status, await stage.app.broker.contains_many([uuid])))

        for trigger in ADD[3:]:
            stage.heard.returns[trigger] = look
        async with stage.app as app:
            await app.add_task("work")
        assert seen == [(TaskStatusEnum.NEW, [True])] * 2

    @check("APP-05")
    async def test_a_plugin_refuses(self, bench: AppBench) -> None:
        """Where a plugin fails, vetoes or rejects in one of the three producer triggers, the caller of `add_task` gets
        the error, nothing is stored, and nothing is told.

        If this fails, check that nothing is written before the third trigger has passed.
        """
        for trigger in BEFORE:
            for error, expected in (
                (ValueError("broken"), PluginError), (TaskCancelError("no"), TaskCancelError),
                (TaskRejected("no"), TaskRejected),
            ):  # fmt: skip
                stage = await bench.stage()
                stage.heard.returns[trigger] = error
                async with stage.app as app:
                    with pytest.raises(expected):
                        await app.add_task("work")
                    assert await empty(stage), f"{trigger}: something was stored"
                assert not {*ADD[3:]} & {*stage.heard.names()}, trigger

    @check("APP-06")
    async def test_a_plugin_defers(self, bench: AppBench) -> None:
        """`TaskDefer` in a producer trigger moves the time from which the task may run; the rest goes on.

        If this fails, check what follows `TaskDefer` there.
        """
        for trigger in BEFORE:
            stage = await bench.stage()
            stage.heard.returns[trigger] = TaskDefer(500.0)
            async with stage.app as app:
                task = await app.add_task("work")
                record = await stage.stored(task.uuid)
                assert record.available_at - record.created_at == pytest.approx(500.0), trigger
                assert [name for name in stage.take() if name in ADD] == ADD

    @check("APP-07")
    async def test_get(self, bench: AppBench) -> None:
        """`get` fires `storage_get`, `broker_get`, `qtasks_get`, each once and with the task as those before left it;
        for a task that is not there it gives `None` and fires nothing.

        If this fails, check what `get` does between the record and its return.
        """
        stage = await bench.stage()
        async with stage.app as app:
            task = await app.add_task("work")
            stage.take()
            assert await app.get(uuid4()) is None
            assert stage.take() == []
            stage.heard.returns["storage_get"] = lambda values: replace(values["result"], returning=[1])
            stage.heard.returns["broker_get"] = lambda values: replace(
                values["task"], returning=[*values["task"].returning, 2]
            )
            stage.heard.returns["qtasks_get"] = lambda values: replace(
                values["task"], returning=[*values["task"].returning, 3]
            )
            got = await app.get(task.uuid)
            assert got is not None
            assert got.returning == [1, 2, 3]
            (values,) = stage.heard.of("qtasks_get")
            assert (values["qtasks"], values["broker"], values["uuid"]) == (app, app.broker, task.uuid)
            assert stage.take() == GET

    @check("APP-08")
    async def test_wait_result(self, bench: AppBench) -> None:
        """A waited-for result is read through the same triggers as `get`.

        If this fails, check what `wait_result` does with the record.
        """
        stage = await bench.stage()
        async with stage.app as app:
            task = await app.add_task("work")
            async with stage.serving():
                await stage.ended(task)
            stage.take()
            stage.heard.returns["qtasks_get"] = lambda values: replace(values["task"], returning="seen")
            assert (await task.wait_result(5)).returning == "seen"
            assert stage.take() == GET

    @check("APP-09")
    async def test_get_all(self, bench: AppBench) -> None:
        """`get_all` fires `storage_get_all` once per page, with its tasks, and gives the page as plugins left it.

        If this fails, check that each page goes through `storage.get_all`.
        """
        stage = await bench.stage()
        async with stage.app as app:
            added = {(await app.add_task("work")).uuid for _ in range(3)}
            stage.take()
            page, cursor = await app.get_all(limit=2)
            rest, end = await app.get_all(cursor, limit=2)
            assert (len(page), len(rest), end) == (2, 1, None)
            assert {task.uuid for task in (*page, *rest)} == added
            assert stage.take() == ["storage_get_all"] * 2
            stage.heard.returns["storage_get_all"] = lambda values: values["results"][:1]
            assert len((await app.get_all())[0]) == 1

    @check("APP-10")
    async def test_ping(self, bench: AppBench) -> None:
        """`ping` fires `qtasks_ping` once, and says whether a server of this application lives.

        If this fails, check that it reads the signs of life from the global config.
        """
        stage = await bench.stage()
        async with stage.app as app:
            stage.take()
            assert await app.ping() is False
            assert stage.heard.of("qtasks_ping") == [{"qtasks": app, "global_config": app.global_config}]
            assert stage.take() == ["qtasks_ping"]
            async with stage.serving():
                await stage.heard.until("global_config_set_status")
                assert await app.ping() is True

    @check("APP-11")
    async def test_flush_all(self, bench: AppBench) -> None:
        """`flush_all` forgets everything, and fires `storage_flush_all`, `broker_flush_all`, `qtasks_flush_all`, each
        once, when it is done.

        If this fails, check that it calls `flush_all` of storage and broker, in this order.
        """
        stage = await bench.stage()
        seen: list[bool] = []

        async def look(_values: dict[str, Any]) -> None:
            seen.append(await empty(stage))

        stage.heard.returns["qtasks_flush_all"] = look
        async with stage.app as app:
            for delay in (None, 100):
                await app.add_task("work", delay=delay)
            stage.take()
            await app.flush_all()
            assert stage.heard.of("qtasks_flush_all") == [{"qtasks": app, "broker": app.broker}]
            assert stage.take() == ["storage_flush_all", "broker_flush_all", "qtasks_flush_all"]
        assert seen == [True]

    @check("APP-12")
    async def test_a_plugin_fails_on_a_read(self, bench: AppBench) -> None:
        """Where a plugin fails in `storage_get`, `broker_get`, `qtasks_get` or `storage_get_all`, the caller gets a
        `PluginError`, not the task as it was before; so it does where one raises control flow.

        If this fails, check that no plugin is passed over on the way to a client.
        """
        for trigger in (*GET, "storage_get_all"):
            for error in (ValueError("broken"), TaskCancelError("no run is here")):
                stage = await bench.stage()
                async with stage.app as app:
                    task = await app.add_task("work")
                    stage.heard.returns[trigger] = error
                    with pytest.raises(PluginError) as caught:
                        await (app.get_all() if trigger == "storage_get_all" else app.get(task.uuid))
                    assert trigger in str(caught.value)
