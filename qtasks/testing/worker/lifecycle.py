"""Checks of a worker's life: started, stopped, both twice, neither, in another event loop."""

from __future__ import annotations

import asyncio
import threading

from qtasks.errors import QTasksError
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import Factory, KitFailure
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage


class Lifecycle(AppSuite):
    """`start` and `stop`."""

    @check("WORKER-90")
    async def test_never_started(self, bench: AppBench) -> None:
        """`stop` of a worker that was never started is harmless and fires nothing; so is an application that is
        only a client.

        If this fails, check that `stop` looks whether the worker runs.
        """
        stage = await bench.stage()
        async with stage.app as app:
            await app.worker.stop()
            await app.add_task("work")
            app.worker.cancel_running((await app.add_task("work")).uuid, "no")
        assert "worker_stop" not in stage.take()

    @check("WORKER-91")
    async def test_stopped_twice(self, bench: AppBench) -> None:
        """A second `stop` is harmless, and fires nothing.

        If this fails, check that `stop` looks whether the worker runs.
        """
        stage = await bench.stage()
        async with stage.app as app:
            await stage.works()
            stage.take()
            await app.worker.stop()
            assert stage.take() == []

    @check("WORKER-92")
    async def test_started_again(self, bench: AppBench) -> None:
        """A worker that was stopped can be started again, and runs tasks as before.

        If this fails, check that `start` makes everything new that `stop` has ended.
        """
        stage = await bench.stage()
        async with stage.app:
            for _ in range(3):
                await stage.works()
        async with stage.app:
            await stage.works()
            await stage.quiet()

    @check("WORKER-93")
    async def test_started_twice(self, bench: AppBench) -> None:
        """A worker that runs refuses to be started again with an error of qtasks, and runs on.

        If this fails, check that `start` looks whether the worker runs.
        """
        stage = await bench.stage()
        async with stage.app as app, stage.serving():
            try:
                await app.worker.start()
            except QTasksError:
                pass
            else:
                raise KitFailure("a running worker was started again")
            assert (await stage.ended(await app.add_task("work"))).status is TaskStatusEnum.SUCCESS

    @check("WORKER-94")
    async def test_nothing_is_left(self, bench: AppBench) -> None:
        """A worker that was stopped leaves no asyncio task and no thread behind.

        If this fails, check that `stop` waits for all that `start` began.
        """
        stage = await bench.stage()
        tasks = asyncio.all_tasks()
        async with stage.app as app:
            await stage.works()
            threads = _threads()
            await stage.works()
            assert not app.worker.running
            assert _threads() <= threads, "each start leaves a thread"
        left = {each.get_name() for each in asyncio.all_tasks() - tasks}
        assert not left, f"asyncio tasks are left: {left}"

    @check("WORKER-95")
    def test_another_loop(self, make_component: Factory) -> None:
        """A worker that was stopped can be started in another event loop.

        If this fails, check that `start` makes its events, locks and futures, and the constructor none.
        """
        stages: list[Stage] = []

        async def run() -> None:
            async with self.workbench(make_component) as bench:
                stages[:] = stages or [await bench.stage()]
                async with stages[0].app:
                    await stages[0].works()

        asyncio.run(run())
        asyncio.run(run())


def _threads() -> set[threading.Thread]:
    """All threads but those of asyncio's own pool."""
    return {each for each in threading.enumerate() if not each.name.startswith("asyncio_")}
