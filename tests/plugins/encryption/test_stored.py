"""encryption: no plaintext in the store, whatever becomes of a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from qtasks import PluginError, QueueTasks, Task, TaskContext, TaskRequest, TaskStatusEnum, hookimpl
from qtasks.components.primitives import Update
from qtasks.plugins.encryption import EncryptionPlugin
from tests.app.conftest import working
from tests.plugins.encryption.conftest import LONG, NEW, ORDERS, SECRET, make, record
from tests.plugins.stores import raw_store
from tests.plugins.support import until


class Steps:
    """Lets a task of the tests run on when the test has looked into the store."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def pause(self) -> None:
        self.reached.set()
        await self.go_on.wait()


def declare(app: QueueTasks, steps: Steps) -> None:
    """One task for each way in which a task can end."""
    tries: list[int] = []

    @app.task(name="success")
    async def success(text: str, *, day: date) -> dict[str, str]:
        assert isinstance(day, date)  # validation sees what was decrypted
        return {SECRET: text}

    @app.task(name="error")
    async def error(text: str) -> None:
        raise ValueError(text)

    @app.task(name="retry", retry=1, retry_delay=0.01)
    async def retry(text: str) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError(text)
        await steps.pause()
        return len(tries)

    @app.task(name="cancel", echo=True)
    async def cancel(context: TaskContext, text: str) -> None:
        context.cancel(f"no {text}")

    @app.task(name="stream", stream=True, echo=True)
    async def stream(context: TaskContext, text: str) -> AsyncIterator[str]:
        await context.progress([text])
        yield text + "0"
        await steps.pause()
        yield text + "1"

    @app.task(name="waits")
    async def waits(text: str) -> None:
        await asyncio.Event().wait()


class Follow:
    """Adds a task with the result of another."""

    @hookimpl
    def worker_remove_finished_task(self, task_func: Any, model: Any) -> Any:
        if task_func.name == "success" and model.status is TaskStatusEnum.SUCCESS:
            then = TaskRequest(task_name="later", args=(model.returning,), available_at=4e9)
            return {"model": replace(model, then=(then,))}
        return None


@pytest.mark.parametrize("order", ORDERS)
async def test_no_plaintext_in_the_store_whatever_becomes_of_a_task(url: str, order: str) -> None:
    app, steps = make(url, *ORDERS[order](), Follow()), Steps()
    declare(app, steps)

    def look() -> None:
        assert SECRET.encode() not in raw_store(url)

    async with working(app):
        waiting = await app.add_task("success", args=(LONG,), kwargs={"day": "2024-02-29"}, delay=600)
        look()
        await waiting.cancel()
        look()

        good = await app.add_task("success", args=(LONG,), kwargs={"day": "2024-02-29"})
        assert (await good.wait_result(10)).returning == {SECRET: LONG}
        look()

        bad = await (await app.add_task("error", args=(SECRET,))).wait_result(10)
        assert f"ValueError: {SECRET}" in (bad.traceback or "")
        look()
        assert [task.args async for task in app.dead()] == [(SECRET,)]
        again = await (await app.replay(bad.uuid)).wait_result(10)
        assert (again.args, again.replay_of) == ((SECRET,), bad.uuid)
        look()

        retried = await app.add_task("retry", args=(SECRET,))
        await steps.reached.wait()
        assert f"ValueError: {SECRET}" in ((await app.get(retried.uuid)) or bad).traceback  # type: ignore[operator]
        look()
        steps.go_on.set()
        assert (await retried.wait_result(10)).returning == 2

        cancelled = await (await app.add_task("cancel", args=(SECRET,))).wait_result(10)
        assert cancelled.cancel_reason == f"no {SECRET}"
        look()

        steps.reached.clear()
        steps.go_on.clear()
        streaming = await app.add_task("stream", args=(SECRET,))
        items = streaming.stream()
        assert await anext(items) == SECRET + "0"
        await steps.reached.wait()
        assert ((await app.get(streaming.uuid)) or bad).progress == [SECRET]
        look()
        steps.go_on.set()
        assert [item async for item in items] == [SECRET + "1"]
        assert (await streaming.wait_result(10)).returning == [SECRET + "0", SECRET + "1"]

        rejected = await (await app.add_task("success", args=(SECRET,), kwargs={"day": SECRET})).wait_result(
            10
        )
        assert rejected.status is TaskStatusEnum.ERROR
        running = await app.add_task("waits", args=(SECRET,))
        async with asyncio.timeout(10):
            while ((await app.get(running.uuid)) or bad).status is not TaskStatusEnum.PROCESS:
                await asyncio.sleep(0.01)
        await running.cancel()
        await running.wait_result(10)
        look()

        listed = {task.uuid: task for task in (await app.get_all())[0]}
        assert listed[good.uuid].args == (LONG,)
        assert listed[good.uuid].returning == {SECRET: LONG}
        assert [task.args for task in listed.values() if task.task_name == "later"] == [({SECRET: LONG},)]
    look()


async def test_the_check_above_can_fail(url: str) -> None:
    app = make(url)
    async with app:
        await app.add_task("success", args=(SECRET,))
        assert SECRET.encode() in raw_store(url)


async def test_compression_comes_before_encryption_in_either_order(url: str) -> None:
    sizes = []
    for plugins in ORDERS.values():
        app = make(url, *plugins())
        async with app:
            task = await app.add_task("t", args=(LONG,))
            sizes.append(len(str(task.args[0])))
    alone, *both = sizes
    assert both[0] == both[1] < alone / 5


class Unaware:
    """Plugins of others put their own into the arguments, the progress and the result."""

    @hookimpl
    def storage_add(self, task_status: Any) -> Any:
        return {"task_status": replace(task_status, args=(*task_status.args, SECRET))}

    @hookimpl
    def storage_update(self, kw: dict[str, Any]) -> Any:
        return {"progress": SECRET}

    @hookimpl
    def broker_remove_finished_task(self, model: Any) -> Any:
        return replace(model, returning=[model.returning, SECRET], kwargs={"a": SECRET})

    @hookimpl
    def storage_get(self, result: Task) -> Any:
        return replace(result, args=(*result.args, "read"))


@pytest.mark.parametrize("first", [True, False])
async def test_other_plugins_see_plaintext_and_what_they_store_is_encrypted(url: str, first: bool) -> None:
    plugins = [EncryptionPlugin([NEW]), Unaware()]
    app = make(url, *(plugins if first else reversed(plugins)))

    @app.task(name="echo")
    async def echo(*args: str) -> list[str]:
        return list(args)

    async with working(app):
        done = await (await app.add_task("echo", args=("a",))).wait_result(10)
    assert (done.args, done.kwargs) == (("a", SECRET, "read"), {"a": SECRET})
    assert (done.returning, done.progress) == ([["a", SECRET, "read"], SECRET], SECRET)
    assert SECRET.encode() not in raw_store(url)


async def test_a_trace_keeps_no_plaintext(url: str) -> None:
    app = make(url, EncryptionPlugin([NEW]), Unaware())

    @app.task(name="echo")
    async def echo(*args: str) -> list[str]:
        return list(args)

    async with working(app):
        task = await app.add_task("echo", args=(SECRET,), trace=True)
        await task.wait_result(10)

        async def whole() -> Any:
            found = await app.trace(task.uuid)
            return found if found is not None and len(found.parts) == 2 else None

        traced = await until(whole)
        assert any(call.plugin == "encryption" for call in traced.calls)
    assert SECRET.encode() not in raw_store(url)


# --- A value belongs to its place ---------------------------------------------------------------


async def test_a_value_cannot_be_put_in_the_place_of_another(url: str) -> None:
    app = make(url, EncryptionPlugin([NEW]))
    ran: list[str] = []

    @app.task(name="pay")
    async def pay(to: str) -> None:
        ran.append(to)

    async with app:
        mine = await pay.add_task("me")
        yours = await pay.options(delay=0).add_task("you")
        stolen = (await record(app, mine.uuid)).args
        await app.storage.update_many([Update(yours.uuid, {"args": stolen})])
        await app.storage.update_many([Update(mine.uuid, {"progress": stolen[0]})])
        for uuid, field in ((yours.uuid, "args"), (mine.uuid, "progress")):
            with pytest.raises(PluginError, match=f"{field} of task {uuid} was not encrypted for this"):
                await app.get(uuid)
        async with asyncio.timeout(10):
            await app.serve(until_idle=True)
        assert ran == []
        # Nothing is destroyed: both are dead letters, with what was stored.
        for uuid in (mine.uuid, yours.uuid):
            kept = await record(app, uuid)
            assert (kept.dead, kept.args) == (True, stolen)


async def test_a_changed_value_is_not_opened() -> None:
    app = make("memory://", EncryptionPlugin([NEW]))
    async with app:
        task = await app.add_task("t", args=(1,))
        (text,) = task.args
        for broken in (text[:-4] + "AAAA", text[:-1], text[:40], "sealed:1:"):
            await app.storage.update_many([Update(task.uuid, {"args": (broken,)})])
            with pytest.raises(PluginError):
                await app.get(task.uuid)
