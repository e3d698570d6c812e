"""Checks of an application's life: opened, closed, both twice, neither, in another loop; plugins that call it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest

from qtasks.errors import DuplicateTaskError, NotStartedError, PluginRegistrationError, QTasksError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskRequest
from qtasks.testing.bench import Factory, KitFailure
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage

START = ["starter_start", "global_config_start", "storage_start", "broker_start"]
STOP = ["qtasks_stop", "broker_stop", "storage_stop", "global_config_stop", "starter_stop"]


class Lifecycle(AppSuite):
    """`open`, `close`, `serve`, `stop`."""

    @check("APP-60")
    async def test_open_and_close(self, bench: AppBench) -> None:
        """`async with app:` fires the start triggers in order, each once, and at its end `qtasks_stop` and the stop
        triggers in the reverse order; also when its block raises, and again the next time.

        If this fails, check `open` and `close`.
        """
        stage = await bench.stage()
        for error in (None, ValueError("of the block"), None):
            with pytest.raises(ValueError, match="of the block") if error else nullcontext():
                async with stage.app as app:
                    assert app is stage.app
                    assert stage.take() == START
                    if error is not None:
                        raise error
            assert stage.heard.of("qtasks_stop") == [{"qtasks": app, "starter": app.starter}]
            assert stage.take() == STOP

    @check("APP-61")
    async def test_not_started(self, bench: AppBench) -> None:
        """Before it is opened, and after it is closed, every call raises `NotStartedError`, and fires nothing.

        If this fails, check that each method asks `starter.check_started` first.
        """
        stage = await bench.stage()
        app = stage.app
        uuid = uuid4()

        async def each_is_refused() -> None:
            for call in (
                lambda: app.add_task("work"), lambda: app.add_tasks([TaskRequest(task_name="work")]),
                lambda: app.get(uuid), app.get_all, lambda: app.wait_result(uuid, 0.01), lambda: app.cancel(uuid),
                lambda: app.replay(uuid), lambda: app.delete([uuid]), app.ping, app.flush_all, app.stats.inspect,
            ):  # fmt: skip
                with pytest.raises(NotStartedError):
                    await call()
            assert stage.take() == []

        await each_is_refused()
        async with app:
            pass
        stage.take()
        await each_is_refused()

    @check("APP-62")
    async def test_twice(self, bench: AppBench) -> None:
        """A second `open` is refused with an error of qtasks, and the application goes on; a second `close`, one
        before `open`, and `stop` without a worker are harmless.

        If this fails, check that the application knows whether it is open.
        """
        stage = await bench.stage()
        app = stage.app
        await app.close()
        await app.stop()
        await app.open()
        try:
            await app.open()
        except QTasksError:
            pass
        else:
            raise KitFailure("a second open was not refused")
        await app.add_task("work")
        await app.close()
        await app.close()
        assert [name for name in stage.take() if name in STOP] == STOP

    @check("APP-63")
    def test_another_loop(self, make_component: Factory) -> None:
        """An application that was closed opens again in another event loop, and adds and runs tasks there.

        If this fails, check that nothing of the first loop is kept over `close`.
        """
        stages: list[Stage] = []

        async def run() -> None:
            async with self.workbench(make_component) as bench:
                stages[:] = stages or [await bench.stage()]
                async with stages[0].app:
                    await stages[0].works()

        asyncio.run(run())
        asyncio.run(run())

    @check("APP-64")
    async def test_end_to_end(self, bench: AppBench) -> None:
        """Tasks that are added while a worker runs are run, each once, and nothing is left when it has stopped.

        If this fails, check that the worker of the application is told of its tasks.
        """
        stage = await bench.stage()
        async with stage.app as app:
            async with stage.serving():
                tasks = [await app.add_task("work", args=(n,)) for n in range(50)]
                for task in tasks:
                    await stage.ended(task)
            await stage.quiet()
        assert sorted(args[0] for _, args, _ in stage.ran) == list(range(50))

    @check("APP-65")
    async def test_a_plugin_calls_the_application(self, bench: AppBench) -> None:
        """A plugin may add and read tasks inside a trigger; one that does so without an end is stopped by an error
        that names it, instead of the process.

        If this fails, check that nothing is locked while a trigger is fired.
        """
        stage = await bench.stage()

        async def add(values: dict[str, Any]) -> None:
            if values["task_name"] == "work":
                other = await values["qtasks"].add_task("other")
                assert await values["qtasks"].get(other.uuid) is not None

        stage.heard.returns["qtasks_add_task_before_broker"] = add
        async with stage.app as app:
            await app.add_task("work")
            assert (await app.broker.size())["default"].ready == 2

            async def add_again(values: dict[str, Any]) -> None:
                await values["qtasks"].add_task("work")

            stage.heard.returns["qtasks_add_task_before_broker"] = add_again
            with pytest.raises(QTasksError, match="recorder"):
                await stage.bounded(app.add_task("work"), "a plugin that calls itself")

    @check("APP-66")
    async def test_declaring(self, bench: AppBench) -> None:
        """Two tasks of one name, and two plugins of one name, are errors when they are declared; so is a plugin with
        a trigger that there is not.

        If this fails, check that `task` and `add_plugin` are those of the base class, or refuse what they refuse.
        """
        stage = await bench.stage()
        app = stage.app
        with pytest.raises(DuplicateTaskError):
            stage.declare(work=stage.app.tasks["work"].func)
        with pytest.raises(PluginRegistrationError):
            app.add_plugin(object(), name="recorder")

        class Misspelled:
            @hookimpl
            def worker_ad(self) -> None: ...

        with pytest.raises(PluginRegistrationError, match="worker_ad"):
            app.add_plugin(Misspelled())
        async with app:
            await stage.works()

    @check("APP-67")
    async def test_plugins_come_and_go(self, bench: AppBench) -> None:
        """A plugin that is registered while the application runs is called from then on, and no more when it is gone.

        If this fails, check that triggers are fired through `self.pm.hook` each time, and no reference is kept.
        """
        stage = await bench.stage()

        class Renames:
            @hookimpl
            def qtasks_add_task_before_broker(self) -> dict[str, Any]:
                return {"task_name": "other"}

        plugin = Renames()
        async with stage.app as app:
            names = [(await app.add_task("work")).task_name]
            app.add_plugin(plugin, name="renames")
            names.append((await app.add_task("work")).task_name)
            app.pm.unregister(plugin)
            names.append((await app.add_task("work")).task_name)
        assert names == ["work", "other", "work"]
