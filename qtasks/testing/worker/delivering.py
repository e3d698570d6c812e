"""Checks of how a worker takes tasks: how many, in which order, each once, and what it does for lost ones."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from qtasks.components.primitives import Added
from qtasks.schemas import TaskRecord, TaskStatusEnum
from qtasks.testing.bench import EVENT_TIMEOUT
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite

SUCCESS = TaskStatusEnum.SUCCESS
MANY = 300


class Delivering(AppSuite):
    """Claims, order, concurrency, restoring."""

    @check("WORKER-50")
    async def test_each_task_runs_once(self, bench: AppBench) -> None:
        """Without a fault each task runs once, its end is told once, and nothing is left (I4, I6).

        If this fails, check that what is claimed is run, and what has run is settled.
        """
        stage = await bench.stage()
        async with stage.app as app:
            tasks = [await app.add_task("work", args=(n,)) for n in range(MANY)]
            stage.take()
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert sorted(args[0] for _, args, _ in stage.ran) == list(range(MANY))
            told = [values["task_broker"].uuid for values in stage.heard.of("worker_execute_after")]
            assert sorted(told) == sorted(task.uuid for task in tasks)
            for task in tasks:
                assert (await stage.stored(task.uuid)).status is SUCCESS
            await stage.quiet()

    @check("WORKER-51")
    async def test_concurrency(self, bench: AppBench) -> None:
        """`concurrency` tasks run at the same time, and never more.

        If this fails, check how free slots are counted.
        """
        stage = await bench.stage(concurrency=3)
        together, present, most = asyncio.Barrier(3), [0], [0]

        async def meets() -> None:
            present[0] += 1
            most[0] = max(most[0], present[0])
            async with asyncio.timeout(EVENT_TIMEOUT):
                await together.wait()
            present[0] -= 1

        stage.declare(meets=meets)
        async with stage.app as app:
            tasks = [await app.add_task("meets") for _ in range(9)]
            async with stage.serving():
                for task in tasks:
                    record = await stage.ended(task)
                    assert record.status is SUCCESS, record.traceback
        assert most[0] == 3

    @check("WORKER-52")
    async def test_order(self, bench: AppBench) -> None:
        """Tasks run by priority (lower first), then first in, first out.

        If this fails, check that what is claimed is run in the order in which it was claimed.
        """
        stage = await bench.stage(concurrency=1)
        async with stage.app as app:
            for n, priority in enumerate((5, 0, 5, -3, 0)):
                await app.add_task("work", args=(n,), priority=priority)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
        assert [args[0] for _, args, _ in stage.ran] == [3, 1, 4, 0, 2]

    @check("WORKER-53")
    async def test_queues(self, bench: AppBench) -> None:
        """The worker serves its queues in their order, and no other.

        If this fails, check which queues are claimed from.
        """
        stage = await bench.stage(concurrency=1, queues=("second", "default"))
        async with stage.app as app:
            left = await app.add_task("work", queue="third", args=("third",))
            for queue in ("default", "second", "default", "second"):
                await app.add_task("work", queue=queue, args=(queue,))
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert (await stage.stored(left.uuid)).status is TaskStatusEnum.NEW
        assert [args[0] for _, args, _ in stage.ran] == ["second", "second", "default", "default"]

    @check("WORKER-54")
    async def test_configure(self, bench: AppBench) -> None:
        """`configure` sets concurrency and queues of a worker that is not running; one that runs refuses it.

        If this fails, check what the properties `concurrency` and `queues` give.
        """
        stage = await bench.stage()
        worker = stage.app.worker
        worker.configure(concurrency=7, queues=("third",))
        assert (worker.concurrency, tuple(worker.queues)) == (7, ("third",))
        worker.configure()
        assert (worker.concurrency, tuple(worker.queues)) == (7, ("third",))
        async with stage.app as app:
            task = await app.add_task("work", queue="third")
            async with stage.serving():
                await stage.ended(task)
                try:
                    worker.configure(concurrency=1)
                except RuntimeError:
                    pass
                else:
                    raise AssertionError("a running worker was configured")

    @check("WORKER-55")
    async def test_the_last_deliveries_run_alone(self, bench: AppBench) -> None:
        """The last two deliveries of a task run alone in their worker, so that a task that kills its process buries
        no other.

        If this fails, check that a task with `deliveries >= max_deliveries - 1` (more than one) waits for the others
        to end, and the others for it.
        """
        stage = await bench.stage(max_deliveries=2)
        present: set[str] = set()
        beside: list[set[str]] = []

        async def poison() -> None:
            present.add("poison")
            for _ in range(20):
                beside.append({*present})
                await asyncio.sleep(0)
            present.discard("poison")

        async def neighbour(number: int) -> None:
            present.add(f"neighbour {number}")
            for _ in range(20):
                await asyncio.sleep(0)
            present.discard(f"neighbour {number}")

        stage.declare(poison=poison, neighbour=neighbour)
        async with stage.app as app:
            task = await app.add_task("poison")
            assert len(await app.delivery.claim(1, ("default",), "f" * 16, 1e-6)) == 1
            await app.broker.sweep(10, 5)
            for number in range(10):
                await app.add_task("neighbour", args=(number,), priority=-1 if number < 2 else 1)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert (await stage.stored(task.uuid)).status is SUCCESS
        assert beside
        assert set().union(*beside) == {"poison"}

    @check("WORKER-56")
    async def test_deliveries_used_up(self, bench: AppBench) -> None:
        """A task of a lost worker whose deliveries are used up is not run: it is dead, and told as such.

        If this fails, check that what `sweep` reports as buried is written to the storage, then discarded.
        """
        stage = await bench.stage(max_deliveries=1)
        async with stage.app as app:
            task = await app.add_task("work")
            assert len(await app.delivery.claim(1, ("default",), "f" * 16, 1e-6)) == 1
            async with stage.serving():
                record = await stage.ended(task)
            assert (record.status, record.dead, stage.ran) == (TaskStatusEnum.ERROR, True, [])
            await stage.quiet()

    @check("WORKER-57")
    async def test_a_record_without_an_entry(self, bench: AppBench) -> None:
        """A task that was stored and never queued (its client died between the two) is queued by the worker's
        reconciler, and run.

        If this fails, check that open records which the broker does not know are pushed.
        """
        stage = await bench.stage(reconcile_age=0.0, reconcile_interval=0.05)
        async with stage.app as app:
            now = app.clock()
            record = TaskRecord(
                uuid=uuid4(), task_name="work", digest="d", created_at=now, updated_at=now, available_at=now
            )
            (verdict,) = await app.storage.add_many([record])
            assert verdict.kind is Added.ADDED
            async with stage.serving():
                assert (await stage.ended(record.uuid)).status is SUCCESS

    @check("WORKER-58")
    async def test_the_sign_of_life(self, bench: AppBench) -> None:
        """While it runs, the worker shows in the global config what it is and does; when it has stopped, `ping`
        says so at once.

        If this fails, check that `set_status` is called with `status()`, and taken back at the end.
        """
        stage = await bench.stage()
        async with stage.app as app:
            assert await app.ping() is False
            async with stage.serving():
                await stage.heard.until("global_config_set_status")
                assert await app.ping() is True
                (status,) = (await app.global_config.servers()).values()
                assert status["queues"] == ["default", "second"]
                assert status["concurrency"] == 4
            assert await app.ping() is False

    @check("WORKER-59")
    async def test_deliveries_are_told(self, bench: AppBench) -> None:
        """`executed` counts what ended in this worker, by outcome.

        If this fails, check where it is counted.
        """
        stage = await bench.stage()

        async def fails(error: Any) -> None:
            raise ValueError(error)

        stage.declare(fails=fails)
        async with stage.app as app:
            for name in ("work", "work", "fails"):
                await app.add_task(name, args=(1,))
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            assert dict(app.worker.executed) == {"success": 2, "error": 1}
