"""What task code may raise, and how a running task is stopped: no subworker is lost by it."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace

import pytest

from qtasks.app import QueueTasks
from qtasks.context import TaskContext, current_task
from qtasks.markers import hookimpl
from qtasks.schemas import TaskExecSchema, TaskPrioritySchema, TaskStatusEnum

from ..apps import WAIT, alive, ended, run_canary

SUCCESS, ERROR, CANCEL = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL


class Rude(BaseException):
    """Not an Exception, as some test frameworks and libraries raise."""


@pytest.mark.parametrize("kind", ["coroutine", "thread", "async generator"])
@pytest.mark.parametrize(
    "error",
    [SystemExit(3), asyncio.CancelledError("own"), Rude("rude"), StopIteration(1), StopAsyncIteration()],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_the_code_raises_is_its_error(
    app: QueueTasks, error: BaseException, kind: str
) -> None:
    """More such tasks than there are slots: each ends in ERROR, and every slot goes on."""

    async def coroutine() -> None:
        raise error

    def thread() -> None:
        raise error

    async def generator():
        yield 1
        raise error

    code = {"coroutine": coroutine, "thread": thread, "async generator": generator}[kind]
    app.task(name="raises")(code)
    async with alive(app):
        tasks = [await app.add_task("raises") for _ in range(app.config.concurrency + 1)]
        for task in tasks:
            record = await ended(app, task.uuid)
            assert (record.status, record.attempt) == (ERROR, 1)
            assert type(error).__name__ in (record.traceback or "")


async def test_keyboard_interrupt_in_a_thread_is_its_error(app: QueueTasks) -> None:
    """In a thread it can only come from the code itself."""

    @app.task(name="raises")
    def raises() -> None:
        raise KeyboardInterrupt

    async with alive(app):
        record = await ended(app, (await app.add_task("raises")).uuid)
        assert record.status is ERROR
        assert "KeyboardInterrupt" in (record.traceback or "")


async def test_a_plugin_that_raises_cancelled_error_costs_no_slot(app: QueueTasks) -> None:
    """A library inside a plugin may raise CancelledError though nobody cancelled the worker."""
    raising = True

    class Plugin:
        @hookimpl
        async def worker_add(self) -> None:
            if raising:
                raise asyncio.CancelledError

        @hookimpl
        async def worker_execute_after(self) -> None:
            if raising:
                raise asyncio.CancelledError

    @app.task(name="work")
    async def work() -> None: ...

    app.add_plugin(Plugin(), name="rude")
    async with alive(app):
        for _ in range(app.config.concurrency + 1):
            record = await ended(app, (await app.add_task("work")).uuid)
            assert record.status is ERROR
            assert "worker_add" in (record.traceback or "")
        raising = False
        await run_canary(app)


# --- Cancel -------------------------------------------------------------------------------------


async def test_cancel_waiting(app: QueueTasks) -> None:
    """It ends in CANCEL at once, and never runs."""
    ran = []

    @app.task(name="work")
    async def work() -> None:
        ran.append(1)

    async with app:
        task = await app.add_task("work")
        assert await app.cancel(task.uuid, "not needed") is True
        assert await app.cancel(task.uuid, "again") is False
        record = await ended(app, task.uuid)
    assert (record.status, record.cancel_reason) == (CANCEL, "not needed")
    async with alive(app):
        await run_canary(app)
    assert ran == []


async def test_cancel_running(app: QueueTasks) -> None:
    """The code sees CancelledError where it waits, and may clean up."""
    running, cleaned = asyncio.Event(), []

    @app.task(name="work", retry=3)
    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    async with alive(app):
        task = await app.add_task("work")
        await running.wait()
        assert await app.cancel(task.uuid, "enough") is True
        record = await ended(app, task.uuid)
        assert (record.status, record.cancel_reason, record.attempt) == (CANCEL, "enough", 0)
        assert cleaned == [True]


async def test_cancel_asked_by_another_process_keeps_its_reason(
    app: QueueTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker finds the request in the storage."""
    running = asyncio.Event()
    monkeypatch.setattr("qtasks.components.worker.worker.TEND", 0.02)

    @app.task(name="work")
    async def work() -> None:
        running.set()
        await asyncio.Event().wait()

    async with alive(app):
        task = await app.add_task("work")
        await running.wait()
        await app.storage.cancel_many([task.uuid], "from elsewhere", expires_at=app.clock() + 60)
        record = await ended(app, task.uuid)
        assert (record.status, record.cancel_reason) == (CANCEL, "from elsewhere")


@pytest.mark.parametrize("way", ["swallows", "raises", "cancels itself", "cancels itself and waits"])
async def test_code_that_takes_a_cancel_badly(app: QueueTasks, way: str) -> None:
    """Whatever the code makes of its CancelledError, the next tasks in the same slot are unharmed."""
    running = asyncio.Event()

    @app.task(name="work", echo=True, retry=3, retry_delay=0.01)
    async def work(context: TaskContext) -> str:
        if way.startswith("cancels itself"):
            await context.app.cancel(context.uuid, "mine")
            if way.endswith("waits"):
                await asyncio.Event().wait()
            return "went on"
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if way == "raises":
                raise ValueError("cannot clean up") from None
        return "went on"

    async with alive(app):
        for _ in range(app.config.concurrency + 1):
            task = await app.add_task("work")
            if not way.startswith("cancels itself"):
                await asyncio.wait_for(running.wait(), WAIT)
                running.clear()
                await app.cancel(task.uuid, "mine")
            record = await ended(app, task.uuid)
            if way in ("swallows", "cancels itself"):
                assert (record.status, record.returning) == (SUCCESS, "went on")
            else:
                assert (record.status, record.cancel_reason) == (CANCEL, "mine"), record.traceback
        await check_every_slot(app)


async def check_every_slot(app: QueueTasks) -> None:
    """As many tasks as there are slots wait for each other: all slots are there, and none is being cancelled."""
    together = asyncio.Barrier(app.config.concurrency)
    name = f"together{len(app.tasks)}"

    async def meet() -> int:
        async with asyncio.timeout(WAIT):
            await together.wait()
        own = asyncio.current_task()
        assert own is not None
        return own.cancelling()

    app.task(name=name)(meet)
    tasks = [await app.add_task(name) for _ in range(app.config.concurrency)]
    for task in tasks:
        record = await ended(app, task.uuid)
        assert (record.status, record.returning) == (SUCCESS, 0), record.traceback


# --- max_time -----------------------------------------------------------------------------------


async def test_max_time_of_a_coroutine(app: QueueTasks) -> None:
    """It is stopped, and its retry rules hold."""
    runs = []

    @app.task(name="work", max_time=0.02, retry=1, retry_delay=0.01)
    async def work() -> str:
        runs.append(1)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "second"

    async with alive(app):
        record = await ended(app, (await app.add_task("work")).uuid)
        assert (record.status, record.returning, record.attempt) == (SUCCESS, "second", 1)
        assert "max_time" in (record.traceback or "max_time")
        await check_every_slot(app)


async def test_max_time_where_cleaning_up_fails(app: QueueTasks) -> None:
    """It is the timeout that is reported, not what the code raised when it was stopped."""

    @app.task(name="work", max_time=0.02)
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("cannot clean up")

    async with alive(app):
        record = await ended(app, (await app.add_task("work")).uuid)
        assert record.status is ERROR
        assert "TaskTimeoutError" in (record.traceback or "")
        assert "cannot clean up" in (record.traceback or "")
        await check_every_slot(app)


@pytest.mark.parametrize("idempotent", [False, True])
async def test_max_time_of_a_thread(app: QueueTasks, idempotent: bool) -> None:
    """It cannot be stopped: ERROR, no retry unless it may be repeated, and the slot is taken until it returns."""
    go, runs = threading.Event(), []

    @app.task(name="work", echo=True, max_time=0.02, retry=1, retry_delay=0.01, idempotent=idempotent)
    def work(context: TaskContext) -> str:
        runs.append(context.attempt)
        if context.attempt == 0:
            go.wait(WAIT)
        return "second"

    class UnboundedRetry:
        """A busy machine may take longer than any short bound to begin a thread."""

        @hookimpl
        def worker_run_task_before(
            self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema
        ) -> dict[str, TaskExecSchema] | None:
            return {"task_func": replace(task_func, max_time=None)} if task_broker.attempt else None

    app.add_plugin(UnboundedRetry())
    async with alive(app):
        try:
            record = await ended(app, (await app.add_task("work")).uuid)
            if idempotent:
                assert (record.status, record.returning) == (SUCCESS, "second")
            else:
                assert (record.status, record.attempt, record.dead) == (ERROR, 1, True)
                assert "max_time" in (record.traceback or "")
            assert app.worker.status()["running"] == 1, "the slot is not occupied"
        finally:
            go.set()
        await run_canary(app)
    assert sorted(runs) == [0, 1][: 1 + idempotent]


async def test_threads_that_never_return_do_not_hold_up_a_task_that_must_run_alone(app: QueueTasks) -> None:
    """The last deliveries of a task run alone, but not behind a thread that is past its time."""
    go = threading.Event()

    @app.task(name="hangs", max_time=0.02)
    def hangs() -> None:
        go.wait(WAIT)

    @app.task(name="work")
    async def work() -> str:
        return "done"

    async with app:
        poison = await app.add_task("work")
        for _ in range(app.config.max_deliveries - 2):
            assert await app.delivery.claim(1, ("default",), "f" * 16, 1e-6)
            await app.broker.sweep(10, app.config.max_deliveries)
    try:
        async with alive(app):
            hung = await app.add_task("hangs", priority=-1)
            assert (await ended(app, hung.uuid)).status is ERROR
            assert (await ended(app, poison.uuid)).returning == "done"
            await run_canary(app)
            go.set()
    finally:
        go.set()


async def test_a_thread_that_never_returns_does_not_stay_alone(app: QueueTasks) -> None:
    """What ran alone is settled at `max_time`: from then on the worker runs others beside its thread."""
    go = threading.Event()

    @app.task(name="hangs", max_time=0.02)
    def hangs() -> None:
        go.wait(3 * WAIT)

    async with app:
        hung = await app.add_task("hangs")
        for _ in range(app.config.max_deliveries - 2):
            assert await app.delivery.claim(1, ("default",), "f" * 16, 1e-6)
            await app.broker.sweep(10, app.config.max_deliveries)
    try:
        async with alive(app):
            assert (await ended(app, hung.uuid)).status is ERROR
            assert app.worker.status()["running"] == 1, "the slot is not occupied"
            await run_canary(app)
            go.set()
    finally:
        go.set()


# --- Shutdown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hangs", "swallows"])
async def test_a_plugin_that_does_not_end_in_worker_stop_is_left_behind(
    app: QueueTasks, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing else bounds it: it has no `plugin_timeout`. What comes after it in the shutdown is done."""
    for name in ("STOPPING", "CANCELLED"):
        monkeypatch.setattr(f"qtasks.components.worker.ending.{name}", 0.05)
    release, stopped = asyncio.Event(), []

    class Plugin:
        @hookimpl
        async def worker_stop(self) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    if way == "hangs":
                        raise

        @hookimpl
        def starter_stop(self) -> None:
            stopped.append(1)

    app.add_plugin(Plugin(), name="holds up", plugin_timeout=0)
    try:
        async with asyncio.timeout(WAIT):
            await app.serve(until_idle=True)
    finally:
        release.set()
    assert stopped == [1]
    assert "worker_stop did not end in time: one of its plugins waits for too long (holds up)" in caplog.text
    assert ("swallows its cancellation" in caplog.text) is (way == "swallows")


# --- Odds ---------------------------------------------------------------------------------------


async def test_code_that_blocks_the_loop_is_reported(
    app: QueueTasks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The watchdog says where the loop is."""
    reported = threading.Event()
    monkeypatch.setattr("qtasks.components.worker.keeper.STALL", 0.05)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has been blocked" in (said := record.getMessage()) and "blocks_everything" in said:
                reported.set()

    handler = Told()
    logging.getLogger("qtasks.worker").addHandler(handler)
    try:

        @app.task(name="work")
        async def blocks_everything() -> bool:
            return reported.wait(WAIT)

        async with alive(app):
            assert (await ended(app, (await app.add_task("work")).uuid)).returning is True
    finally:
        logging.getLogger("qtasks.worker").removeHandler(handler)
    assert "blocks_everything" in caplog.text


async def test_the_context_ends_with_the_task(app: QueueTasks) -> None:
    """A plugin that asks for the current task before the run is not given the one before."""
    seen: list[object] = []

    class Plugin:
        @hookimpl
        def worker_add(self) -> None:
            try:
                seen.append(current_task().uuid)
            except LookupError:
                seen.append(None)

        @hookimpl
        def task_executor_decode(self) -> None:
            seen.append(current_task().uuid)

    @app.task(name="work")
    async def work() -> None: ...

    app.add_plugin(Plugin(), name="curious")
    async with alive(app):
        uuids = []
        for _ in range(app.config.concurrency + 1):
            task = await app.add_task("work")
            await ended(app, task.uuid)
            uuids += [None, task.uuid]
        assert seen == uuids
