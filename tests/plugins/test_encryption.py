"""encryption: no plaintext in the store, whatever becomes of a task; without the key nothing is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from qtasks import (
    PluginError,
    QueueConfig,
    QueueTasks,
    Task,
    TaskContext,
    TaskRejected,
    TaskRequest,
    TaskStatusEnum,
    hookimpl,
)
from qtasks.components.primitives import Update
from qtasks.plugins.at_rest import AtRest
from qtasks.plugins.compression import CompressionPlugin
from qtasks.plugins.encryption import EncryptionPlugin, KeyMissingError
from qtasks.schemas import TaskRecord
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins import encryption_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.stores import raw_store
from tests.plugins.support import kill, said, until, workers_up

SECRET = "4111-PLAINTEXT-1111"
LONG = f"{SECRET} " * 200
OLD, NEW = EncryptionPlugin.new_key(), EncryptionPlugin.new_key()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store that can be looked into from outside."""
    if request.param == "redis":
        found: str = request.getfixturevalue("redis_server").url()
        return found
    return f"sqlite:///{tmp_path / 'queue.db'}"


def make(url: str, *plugins: object, **settings: Any) -> QueueTasks:
    fast = {"release_delay": 0.01, "release_max_delay": 0.02, "max_deliveries": 3}
    return QueueTasks(url=url, config=QueueConfig(**{**fast, **settings}), plugins=plugins)


async def record(app: QueueTasks, uuid: UUID) -> TaskRecord:
    found = (await app.storage.get_many([uuid]))[0]
    assert found is not None
    return found


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


ORDERS: dict[str, Callable[[], list[AtRest]]] = {
    "alone": lambda: [EncryptionPlugin([NEW])],
    "encryption first": lambda: [EncryptionPlugin([NEW]), CompressionPlugin(minimum=10)],
    "compression first": lambda: [CompressionPlugin(minimum=10), EncryptionPlugin([NEW])],
}


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


# --- Keys -----------------------------------------------------------------------------------------


async def test_a_key_is_rotated_between_add_and_run(url: str) -> None:
    before, worker, after = (make(url, EncryptionPlugin(keys)) for keys in ([OLD], [NEW, OLD], [NEW]))

    @worker.task(name="echo")
    async def echo(text: str) -> str:
        return text

    async with before:
        task = await before.add_task("echo", args=(SECRET,))
        async with worker:
            async with asyncio.timeout(10):
                await worker.serve(until_idle=True)
            assert (await worker.wait_result(task.uuid, 10)).returning == SECRET
            new = (await worker.add_task("echo", args=(SECRET,))).uuid
        with pytest.raises(PluginError, match="is encrypted with the key") as caught:
            await before.get(task.uuid)
        assert isinstance(caught.value.__cause__, KeyMissingError)
        async with after:
            assert ((await after.get(new)) or task).args == (SECRET,)
            # What cannot be opened does not hide the rest of a list.
            listed = {task.uuid: task for task in (await after.get_all())[0]}
            assert listed[new].args == (SECRET,)
            assert str(listed[task.uuid].args[0]).startswith("sealed:1:")


async def test_a_worker_without_the_key_puts_tasks_back_for_as_long_as_it_takes(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, blind, seeing = (
        make(url, EncryptionPlugin(keys, missing_key_delay=0.01)) for keys in ([OLD], [NEW], [NEW, OLD])
    )
    ran: list[str] = []
    for app in (blind, seeing):

        @app.task(name="echo")
        async def echo(text: str) -> None:
            ran.append(text)

    def told() -> int:
        return sum("add the key to `keys`" in line for line in caplog.messages)

    async with client:
        task = await client.add_task("echo", args=(SECRET,))
        stored = await record(client, task.uuid)
        with caplog.at_level(logging.WARNING):
            async with working(blind), asyncio.timeout(10):
                while told() < 5:  # more often than deliveries would allow, if they were counted
                    await asyncio.sleep(0.01)
        assert ran == []
        kept = await record(client, task.uuid)
        assert (kept.status, kept.args, kept.dead) == (TaskStatusEnum.NEW, stored.args, False)
        async with working(seeing):
            assert (await seeing.wait_result(task.uuid, 10)).status is TaskStatusEnum.SUCCESS
    assert ran == [SECRET]


async def test_plaintext_is_refused_unless_an_application_goes_over(url: str) -> None:
    plain = make(url)
    async with plain:
        task = await plain.add_task("echo", args=(SECRET,))
    strict, lenient = (
        make(url, EncryptionPlugin([NEW])),
        make(url, EncryptionPlugin([NEW], accept_plaintext=True)),
    )

    @lenient.task(name="echo")
    async def echo(text: str) -> str:
        return text

    async with strict:
        with pytest.raises(PluginError, match=r"args of task .* is not encrypted: .* accept_plaintext=True"):
            await strict.get(task.uuid)
    async with lenient:
        async with asyncio.timeout(10):
            await lenient.serve(until_idle=True)
        assert ((await lenient.get(task.uuid)) or task).returning == SECRET
        assert str((await record(lenient, task.uuid)).args[0]).startswith("sealed:1:")
    async with strict:
        assert ((await strict.get(task.uuid)) or task).returning == SECRET


def test_a_key_that_is_none_is_an_error_that_does_not_show_it() -> None:
    for keys in ([], ["x" * 43], [b"short"], ["ünfug"]):
        with pytest.raises(ValueError, match=r"key.*new_key\(\)") as caught:
            EncryptionPlugin(keys)
        assert "x" * 43 not in str(caught.value)
    assert EncryptionPlugin([NEW]).key_ids != EncryptionPlugin([OLD]).key_ids


# --- Failures leak nothing ------------------------------------------------------------------------


class Talkative:
    """A plugin whose errors show what it was given."""

    def __init__(self, trigger: str) -> None:
        self.trigger = trigger

    @hookimpl
    def worker_remove_finished_task(self, model: Any) -> None:
        if self.trigger == "worker_remove_finished_task":
            raise ValueError(f"cannot take {model}")

    @hookimpl
    def broker_remove_finished_task(self, model: Any) -> str | None:
        return f"{model}" if self.trigger == "broker_remove_finished_task" else None

    @hookimpl
    def task_executor_decode(self, result: Any) -> None:
        if self.trigger == "task_executor_decode":
            raise ValueError(f"cannot take {result}")

    @hookimpl
    def worker_add(self, args: Any) -> None:
        if self.trigger == "worker_add":
            raise ValueError(f"cannot take {args}")

    @hookimpl
    def worker_execute_before(self, model: Any) -> None:
        if self.trigger == "worker_execute_before":
            raise TaskRejected(f"cannot take {model}")


@pytest.mark.parametrize(
    "trigger", [*(name for name in vars(Talkative) if "_" in name and name[0] != "_"), "none"]
)
async def test_a_failure_leaks_nothing(url: str, trigger: str) -> None:
    app = make(url, EncryptionPlugin([NEW]), Talkative(trigger))

    @app.task(name="job")
    async def job(text: str) -> Any:
        return {text: object()} if trigger == "none" else text

    async with working(app):
        done = await (await job.add_task(SECRET)).wait_result(10)
    assert done.status is TaskStatusEnum.ERROR
    assert done.traceback
    assert SECRET.encode() not in raw_store(url)


async def test_arguments_that_cannot_be_encrypted_are_not_added(url: str) -> None:
    class Objects:
        @hookimpl
        def broker_add_before(self, model: Any) -> Any:
            return replace(model, args=(object(),))

    app = make(url, Objects(), EncryptionPlugin([NEW]))
    async with app:
        with pytest.raises(PluginError, match="cannot be written as JSON, so it cannot be encrypted"):
            await app.add_task("t", args=(SECRET,))
        assert (await app.get_all())[0] == []


async def test_a_long_traceback_is_shortened_before_it_is_encrypted() -> None:
    app = make("memory://", EncryptionPlugin([NEW]), max_traceback=1024)

    @app.task(name="job")
    async def job() -> None:
        raise ValueError("x" * 10_000 + "the end")

    async with working(app):
        done = await (await job.add_task()).wait_result(10)
        assert len((await record(app, done.uuid)).traceback or "") <= 1024
    assert "(cut)" in (done.traceback or "")
    assert (done.traceback or "").rstrip().endswith("the end")


@pytest.mark.parametrize("plugins", ORDERS.values(), ids=ORDERS)
async def test_a_text_that_looks_encrypted_or_compressed_is_a_text(
    plugins: Callable[[], list[AtRest]],
) -> None:
    app = make("memory://", *plugins())

    @app.task(name="echo")
    async def echo(*args: str, **kw: str) -> list[Any]:
        return [*args, kw]

    async with working(app):
        for text in (
            "sealed:1:abc",
            "deflate:1:abc",
            "sealed:1:" + EncryptionPlugin([NEW]).key_ids[0] + ":AAAA",
        ):
            for args, kw in (((text,), {}), ((), {text[:9]: text}), ((), {text[:10]: text})):
                done = await app.add_task("echo", args=args, kwargs=kw, timeout=10)
                assert done.returning == [*args, kw]
                assert done.args == args


async def test_the_warning_about_digests(caplog: pytest.LogCaptureFixture) -> None:
    for key, warned in ((None, True), ("secret", False)):
        caplog.clear()
        async with make("memory://", EncryptionPlugin([NEW]), digest_key=key):
            assert any("QTASKS_DIGEST_KEY" in line for line in caplog.messages) is warned


def test_the_plugin_holds_what_a_plugin_has_to() -> None:
    check_plugin(lambda: EncryptionPlugin([NEW]))


# --- Two workers, a kill and a new key ------------------------------------------------------------


async def test_a_killed_worker_and_a_key_that_is_rotated_meanwhile(
    redis_url: str, start_workers: StartWorkers
) -> None:
    """Added with the old key; a worker with the old key is killed while it runs; one with the new key ends it."""
    app = encryption_site.make([NEW, OLD], redis_url)
    client = encryption_site.make([OLD], redis_url)
    async with client:
        task = await client.add_task("pay", args=(SECRET,), kwargs={"note": LONG}, priority=7)
    (first,) = start_workers(encryption_site, 1, SITE_KEYS=OLD)
    await said([first], "pay began")
    async with app:
        (second,) = start_workers(encryption_site, 1, SITE_KEYS=f"{NEW},{OLD}")
        await workers_up(app, 2)
        await kill(first)
        done = await app.wait_result(task.uuid, 20)
        assert (done.returning["card"], done.returning["note"]) == (SECRET, LONG)
        assert done.returning["pid"] == str(second.process.pid)
        assert done.progress == {"paying with": SECRET}
        assert SECRET.encode() not in raw_store(redis_url)
        kept = await record(app, task.uuid)
        (old_id,), new_id = EncryptionPlugin([OLD]).key_ids, EncryptionPlugin([NEW]).key_ids[0]
        assert old_id in str(kept.args[0])
        assert new_id in kept.returning
