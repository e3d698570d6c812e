"""The suite of a starter: what is started and stopped in which order, and how a worker is served."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import Any

import pytest

from qtasks.errors import FatalError, NotStartedError, QTasksError
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import Factory, KitFailure
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage

START = ["starter_start", "global_config_start", "storage_start", "broker_start"]
STOP = ["qtasks_stop", "broker_stop", "storage_stop", "global_config_stop", "starter_stop"]
SERVE = ["worker_start", "broker_listen_start"]


async def refused(step: Any, told: str) -> None:
    """A step that must be refused with an error of qtasks."""
    try:
        await step
    except QTasksError:
        return
    raise KitFailure(f"{told} was not refused")


class StarterSuite(AppSuite):
    """All that a starter has to hold, whether it inherits the methods of `Starter` or has its own.

    class TestMyStarter(StarterSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self):
            return MyStarter
    """

    slot = "starter"

    @check("STARTER-01")
    async def test_start_and_stop(self, bench: AppBench) -> None:
        """Start fires the start triggers in order: starter, global config, storage, broker; stop fires
        `qtasks_stop`, then the stop triggers in the reverse order. Each once, with its component.

        If this fails, check the order, and that the components' own `start` and `stop` are called.
        """
        stage = await bench.stage()
        app = stage.app
        await app.starter.start()
        (first, *_) = stage.heard.fired
        assert first.values == {"starter": app.starter}
        assert stage.heard.of("broker_start") == [{"broker": app.broker, "worker": None}]
        assert stage.take() == START
        await app.starter.stop()
        assert stage.heard.of("qtasks_stop") == [{"qtasks": app, "starter": app.starter}]
        assert stage.heard.of("starter_stop") == [{"starter": app.starter}]
        assert stage.take() == STOP

    @check("STARTER-02")
    async def test_serve(self, bench: AppBench) -> None:
        """`serve` starts what is not running, then the worker; it stops the worker first, then what it has started
        itself, and nothing else.

        If this fails, check that `serve` remembers whether the application was started before.
        """
        stage = await bench.stage()
        await stage.bounded(stage.app.starter.serve(until_idle=True), "serving until idle")
        assert stage.take() == [*START, *SERVE, "worker_stop", *STOP]
        async with stage.app:
            stage.take()
            await stage.bounded(stage.app.starter.serve(until_idle=True), "serving until idle")
            assert stage.take() == [*SERVE, "worker_stop"]
            await stage.app.add_task("work")

    @check("STARTER-03")
    async def test_plugins_stop_before_connections(self, bench: AppBench) -> None:
        """While the stop triggers fire, the store can still be used; after stop it is closed.

        If this fails, check that the connections are closed last.
        """
        stage = await bench.stage()
        app = stage.app
        seen: list[str] = []
        closed: list[str] = []

        def watch(name: str) -> None:
            component = getattr(app, name)
            whole = component.close

            async def close() -> None:
                closed.append(name)
                await whole()

            component.close = close

        async def look(_values: dict[str, Any]) -> None:
            await app.storage.get_many([])
            seen.append(",".join(closed))

        for trigger in STOP:
            stage.heard.returns[trigger] = look
        for name in ("broker", "storage", "global_config"):
            watch(name)
        async with app:
            pass
        assert seen == [""] * len(STOP), "a connection was closed before all plugins were stopped"
        assert sorted(closed) == ["broker", "global_config", "storage"]

    @check("STARTER-04")
    async def test_started_or_not(self, bench: AppBench) -> None:
        """`check_started` raises `NotStartedError` before start and after stop, and only then. A second start is
        refused; a second stop, and a stop before start, are harmless and fire nothing.

        If this fails, check that the starter keeps whether it is started.
        """
        stage = await bench.stage()
        starter = stage.app.starter
        await starter.stop()
        assert stage.take() == []
        for _ in range(2):
            with pytest.raises(NotStartedError):
                starter.check_started()
            await starter.start()
            starter.check_started()
            await refused(starter.start(), "a second start")
            starter.check_started()
            assert stage.take() == START
            await starter.stop()
            await starter.stop()
            assert stage.take() == STOP

    @check("STARTER-05")
    async def test_a_start_that_fails(self, bench: AppBench) -> None:
        """Where a component cannot start, its error is raised, all that was opened is closed, and the application is
        not started; it can be started later.

        If this fails, check what follows an exception in `start`.
        """
        stage = await bench.stage()
        app = stage.app
        whole, closed = app.broker.start, []
        close = app.storage.close

        async def broken(worker: Any = None) -> None:
            raise FatalError("no store")

        async def watched() -> None:
            closed.append(1)
            await close()

        app.broker.start, app.storage.close = broken, watched  # type: ignore[method-assign]
        with pytest.raises(FatalError, match="no store"):
            await app.starter.start()
        assert closed, "what was opened is not closed"
        with pytest.raises(NotStartedError):
            app.starter.check_started()
        app.broker.start = whole  # type: ignore[method-assign]
        async with app:
            await stage.works()

    @check("STARTER-06")
    async def test_a_plugin_that_fails(self, bench: AppBench) -> None:
        """A plugin that fails in a start or stop trigger holds up neither.

        If this fails, check that these signals are fired through `self.pm.hook`, which isolates them.
        """
        stage = await bench.stage()
        for trigger in (*START, *SERVE, *STOP, "worker_stop"):
            stage.heard.returns[trigger] = ValueError("broken")
        async with stage.app:
            await stage.works()
        assert stage.take()[-len(STOP) :] == STOP

    @check("STARTER-07")
    async def test_a_stop_is_asked_for(self, bench: AppBench) -> None:
        """`request_stop` ends `serve` when what runs has ended; it counts from the call of `serve` on, also when
        that has not begun to run. Without a worker it is harmless.

        If this fails, check that `serve` makes its event when it is called, not when it is awaited.
        """
        stage = await bench.stage()
        starter = stage.app.starter
        starter.request_stop()
        running, go = asyncio.Event(), asyncio.Event()

        async def gate() -> None:
            running.set()
            await go.wait()

        stage.declare(gate=gate)
        async with stage.app as app:
            serving = starter.serve()
            starter.request_stop()
            await stage.bounded(serving, "serve, after it was asked to stop,")
            task = await app.add_task("gate")
            worker = asyncio.create_task(starter.serve())
            await stage.bounded(running.wait(), "the start of the task")
            starter.request_stop()
            await asyncio.sleep(0)
            assert not worker.done(), "a running task was not waited for"
            go.set()
            await stage.bounded(worker, "serve, after it was asked to stop,")
            assert (await stage.stored(task.uuid)).status is TaskStatusEnum.SUCCESS

    @check("STARTER-08")
    async def test_serving_twice(self, bench: AppBench) -> None:
        """A second `serve` at the same time is refused, and the first one goes on; one after the other is fine.

        If this fails, check that `serve` looks whether it runs, and forgets it at the end.
        """
        stage = await bench.stage()
        async with stage.app as app:
            for _ in range(2):
                async with stage.serving():
                    try:
                        again = app.starter.serve()
                    except QTasksError:
                        pass
                    else:
                        await refused(stage.bounded(again, "a second serve"), "a second serve")
                    await stage.ended(await app.add_task("work"))

    @check("STARTER-09")
    async def test_a_worker_that_fails(self, bench: AppBench) -> None:
        """What ends the worker in the background is raised by `serve`, after everything was stopped.

        If this fails, check that `serve` waits for `worker.failure`, too.
        """
        stage = await bench.stage()
        app = stage.app

        async def breaks() -> None:
            app.worker.failure.set_exception(FatalError("broken"))

        stage.declare(breaks=breaks)
        async with app:
            await app.add_task("breaks")
        stage.take()
        with pytest.raises(FatalError, match="broken"):
            await stage.bounded(app.starter.serve(), "serve with a broken worker")
        assert stage.take()[-len(STOP) - 1 :] == ["worker_stop", *STOP]
        with pytest.raises(NotStartedError):
            app.starter.check_started()

    @check("STARTER-10")
    async def test_until_idle(self, bench: AppBench) -> None:
        """`serve(until_idle=True)` returns when nothing is ready, delayed or running, and all results are written.

        If this fails, check that it waits for `worker.idle()`.
        """
        stage = await bench.stage()
        async with stage.app as app:
            tasks = [await app.add_task("work", delay=delay) for delay in (None, None, 0.05)]
            await stage.bounded(app.starter.serve(until_idle=True), "serving until idle")
            for task in tasks:
                assert (await stage.stored(task.uuid)).status is TaskStatusEnum.SUCCESS
            await stage.quiet()

    @check("STARTER-11")
    def test_another_loop(self, make_component: Factory) -> None:
        """A starter that was stopped starts again in another event loop.

        If this fails, check that `stop` lets go of the loop (`pm.bind_loop(None)`).
        """
        stages: list[Stage] = []

        async def run() -> None:
            async with self.workbench(make_component) as bench:
                stages[:] = stages or [await bench.stage()]
                async with stages[0].app:
                    await stages[0].works()

        asyncio.run(run())
        asyncio.run(run())

    @check("STARTER-12")
    def test_sigterm(self, make_component: Factory) -> None:
        """`run` serves until SIGTERM: what runs ends, then everything is stopped, and it returns. No handler of
        a signal is left.

        If this fails, check which signals `run` listens to, and that it takes its handlers back.
        """
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("STARTER-12 needs the main thread: only there signals can be listened to")
        stages: list[Stage] = []

        async def make() -> None:
            async with self.workbench(make_component) as bench:
                stages.append(await bench.stage())
                async with stages[0].app as app:
                    await app.add_task("ends_it")

        async def ends_it() -> str:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
            return "ended"

        asyncio.run(make())
        stage, before = stages[0], signal.getsignal(signal.SIGTERM)
        stage.declare(ends_it=ends_it)
        stage.take()
        thresholds = gc.get_threshold()
        try:
            stage.app.starter.run()
        finally:
            gc.set_threshold(*thresholds)  # a process that only serves may have its own
            gc.unfreeze()
            after_run = signal.signal(signal.SIGTERM, before)
        (after,) = stage.heard.of("worker_execute_after")
        assert after["model"].returning == "ended"
        assert stage.take()[-len(STOP) - 1 :] == ["worker_stop", *STOP]
        assert after_run in (before, signal.SIG_DFL), f"a handler of SIGTERM is left: {after_run}"
