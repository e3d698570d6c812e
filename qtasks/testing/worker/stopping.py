"""Checks of how a running task is stopped: cancelled, timed out, shut down, its lease lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from qtasks.components.broker import LeaseKeeper
from qtasks.components.primitives import DeliveryHandle, HoldVerdict
from qtasks.inmemory import VirtualClock
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import EVENT_TIMEOUT
from qtasks.testing.checks import check
from qtasks.testing.samples import success
from qtasks.testing.stage import AppBench, AppSuite, Stage

NEW, SUCCESS, ERROR, CANCEL = (
    TaskStatusEnum.NEW, TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL,
)  # fmt: skip


class Gate:
    """A task that says that it runs and waits to be let go.

    Attributes:
        running: set when it runs.
        go: lets it end.
        ended: set when it has ended, however.
        ends: how each run ended.
    """

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.running, self.go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ends: list[str] = []
        stage.declare(options, gate=self._run)

    async def _run(self) -> str:
        self.running.set()
        try:
            async with asyncio.timeout(EVENT_TIMEOUT):
                await self.go.wait()
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        finally:
            self.ended.set()
        self.ends.append("done")
        return "done"


class WatchedKeeper(LeaseKeeper):
    """A lease keeper that tells of each renewal."""

    def __init__(self, inner: LeaseKeeper, loop: asyncio.AbstractEventLoop, renewed: asyncio.Event) -> None:
        self._inner, self._loop, self._renewed = inner, loop, renewed

    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        verdicts = self._inner.extend(handles, lease)
        self._loop.call_soon_threadsafe(self._renewed.set)
        return verdicts

    def close(self) -> None:
        self._inner.close()


def watch_renewals(stage: Stage) -> asyncio.Event:
    """An event that is set with each renewal of leases."""
    renewed, broker = asyncio.Event(), stage.app.broker
    make = broker.lease_keeper
    loop = asyncio.get_running_loop()
    broker.lease_keeper = lambda: WatchedKeeper(make(), loop, renewed)  # type: ignore[method-assign]
    return renewed


class Stopping(AppSuite):
    """Cancel, `max_time`, shutdown, leases."""

    @check("WORKER-70")
    async def test_a_running_task_is_cancelled(self, bench: AppBench) -> None:
        """A running task that is cancelled sees `CancelledError`, ends in CANCEL with the reason, and is not tried
        again.

        If this fails, check `cancel_running`, and what follows the interruption.
        """
        stage = await bench.stage()
        gate = Gate(stage, retry=3)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                await stage.bounded(gate.running.wait(), "the start of the task")
                assert await app.cancel(task.uuid, "enough") is True
                record = await stage.ended(task)
                await stage.heard.until("worker_execute_after")
            assert (record.status, record.cancel_reason, record.attempt) == (CANCEL, "enough", 0)
            assert gate.ends == ["cancelled"]
            assert "worker_task_error_retry" not in stage.take()

    @check("WORKER-71")
    async def test_another_process_asks_for_a_cancel(self, bench: AppBench) -> None:
        """A request to cancel that another process left in the storage is seen by the worker, and carried out.

        If this fails, check that the worker asks `cancel_requested_many` about what it runs.
        """
        # The clock stands still: no lease runs out on a machine that stalls.
        stage = await bench.stage(clock=VirtualClock(), lease=0.3)
        gate = Gate(stage)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                await stage.bounded(gate.running.wait(), "the start of the task")
                await app.storage.cancel_many([task.uuid], "from elsewhere", expires_at=app.clock() + 60)
                record = await stage.ended(task)
        assert (record.status, record.cancel_reason) == (CANCEL, "from elsewhere")

    @check("WORKER-72")
    async def test_max_time(self, bench: AppBench) -> None:
        """A task that runs longer than its `max_time` is stopped; this is a failure, which may be retried.

        If this fails, check the deadline of the slot.
        """
        stage = await bench.stage()
        gate = Gate(stage, max_time=0.02, retry=1, retry_delay=0.001)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                record = await stage.ended(task)
        assert (record.status, record.attempt, gate.ends) == (ERROR, 2, ["cancelled"] * 2)
        assert "max_time" in (record.traceback or "")

    @check("WORKER-73")
    async def test_shutdown_waits(self, bench: AppBench) -> None:
        """A worker that is asked to stop lets running tasks end, writes their results, and claims no more.

        If this fails, check that `stop` waits for the slots and the results within `shutdown_timeout`.
        """
        stage = await bench.stage(concurrency=1)
        gate = Gate(stage)
        async with stage.app as app:
            task, waiting = await app.add_task("gate"), await app.add_task("work")
            worker = asyncio.create_task(app.serve())
            await stage.bounded(gate.running.wait(), "the start of the task")
            await app.stop()
            await begins_to_stop()
            assert not worker.done()
            gate.go.set()
            await stage.bounded(worker, "the stop of the worker")
            assert (await stage.stored(task.uuid)).status is SUCCESS
            assert (await stage.stored(waiting.uuid)).status is NEW
            assert stage.ran == []
            assert not any(size.leased for size in (await app.broker.size()).values())

    @check("WORKER-74")
    async def test_shutdown_at_the_deadline(self, bench: AppBench) -> None:
        """What still runs when `shutdown_timeout` is over is cancelled and put back with its delivery returned: it is
        no failure of the task, and another worker runs it at once.

        If this fails, check what follows an interruption by a shutdown.
        """
        stage = await bench.stage(shutdown_timeout=0.02)
        gate = Gate(stage)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                await stage.bounded(gate.running.wait(), "the start of the task")
            record = await stage.stored(task.uuid)
            assert (record.status, record.attempt, record.deliveries) == (NEW, 0, 0)
            assert "worker_execute_after" not in stage.take()
            gate.go.set()
            async with stage.serving():
                assert (await stage.ended(task)).status is SUCCESS
        assert gate.ends == ["cancelled", "done"]

    @check("WORKER-75")
    async def test_leases_are_renewed(self, bench: AppBench) -> None:
        """While a task runs, its lease is renewed: no sweep takes it away.

        If this fails, check that what runs is given to the lease keeper every lease/3.
        """
        clock = VirtualClock()
        stage = await bench.stage(clock=clock, lease=0.3)
        gate, renewed = Gate(stage), watch_renewals(stage)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                await stage.bounded(gate.running.wait(), "the start of the task")
                for _ in range(10):
                    renewed.clear()
                    await stage.bounded(renewed.wait(), "the renewal of a lease")
                    clock.advance(
                        0.1
                    )  # even two of them, for a renewal that was under way, are less than a lease
                    assert (await app.broker.sweep(10, 5)).restored == [], (
                        "the lease of a running task ran out"
                    )
                gate.go.set()
                assert (await stage.ended(task)).status is SUCCESS
        assert gate.ends == ["done"]

    @check("WORKER-76")
    async def test_a_lost_lease(self, bench: AppBench) -> None:
        """A task whose lease is lost is stopped, its result dropped, and nothing is told of its end; the other run
        of it counts.

        If this fails, check what the worker does with handles that the lease keeper says are lost (R6).
        """
        clock = VirtualClock()
        stage = await bench.stage(clock=clock, lease=0.3)
        gate = Gate(stage)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                await stage.bounded(gate.running.wait(), "the start of the task")
                clock.advance(1.0)
                while task.uuid not in (await app.broker.sweep(10, 5)).restored:
                    clock.advance(1.0)  # the lease was renewed in between
                # Another process has it now, and ends it.
                await _taken_over(stage, task.uuid)
                await stage.bounded(gate.ended.wait(), "the stop of a task whose lease was lost")
                record = await stage.ended(task)
            assert record.returning == "by the other"
            assert gate.ends == ["cancelled"]
            assert stage.heard.of("worker_execute_after") == []

    @check("WORKER-77")
    async def test_a_rejected_settle(self, bench: AppBench) -> None:
        """Where a settle is rejected (another worker had the task meanwhile), the worker changes nothing more and
        tells nobody of an end (R6).

        If this fails, check the verdict before the signals after a settle.
        """
        clock = VirtualClock()
        stage = await bench.stage(clock=clock, lease=1000.0)  # no renewal comes in between
        gate = Gate(stage)
        async with stage.app as app:
            task = await app.add_task("gate")
            async with stage.serving():
                await stage.bounded(gate.running.wait(), "the start of the task")
                clock.advance(2000.0)
                await app.broker.sweep(10, 5)
                await _taken_over(stage, task.uuid)
                gate.go.set()
                await stage.bounded(gate.ended.wait(), "the end of the code")
            assert (await stage.stored(task.uuid)).returning == "by the other"
            assert gate.ends == ["done"]
            assert stage.heard.of("worker_execute_after") == []

    @check("WORKER-78")
    async def test_what_waits_is_given_back(self, bench: AppBench) -> None:
        """A worker that stops gives back at once what it has claimed and not begun; none of it waits for a lease.

        If this fails, check that the local queue is released with the deliveries returned.
        """
        stage = await bench.stage(concurrency=2)
        gate = Gate(stage)
        async with stage.app as app:
            running = [await app.add_task("gate") for _ in range(2)]
            for n in range(100):
                await app.add_task("work", args=(n,))
            worker = asyncio.create_task(app.serve())
            await stage.bounded(gate.running.wait(), "the start of the task")
            await app.stop()
            await begins_to_stop()
            gate.go.set()
            await stage.bounded(worker, "the stop of the worker")
            for task in running:
                assert (await stage.stored(task.uuid)).status in (SUCCESS, NEW)
            sizes = await app.broker.size()
            assert sum(size.leased for size in sizes.values()) == 0, (
                "what waited in the worker is left to its lease"
            )
            assert sum(size.ready + size.delayed for size in sizes.values()) >= 100 - len(stage.ran)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
        assert sorted(args[0] for _, args, _ in stage.ran) == list(range(100))


async def begins_to_stop() -> None:
    """Turns of the loop in which a worker that was asked to stop begins with it."""
    for _ in range(100):
        await asyncio.sleep(0)


async def _taken_over(stage: Stage, uuid: Any) -> None:
    """Another process claims the task and settles it, faster than the worker that had it."""
    app = stage.app
    claimed: list[Any] = []
    async with asyncio.timeout(EVENT_TIMEOUT):
        while not claimed:
            claimed = await app.delivery.claim(1, ("default",), "e" * 16, 5000.0)
            await asyncio.sleep(0)
    ((handle, _),) = claimed
    assert handle.uuid == uuid
    await app.delivery.settle([success(handle, app.clock(), "by the other")])
