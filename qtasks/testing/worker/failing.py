"""Checks of what a worker does where a plugin, the task's code or the store fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from qtasks.errors import FatalError, TransientError
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import KitFailure
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite
from qtasks.testing.worker.triggers import AFTER, BEFORE

SUCCESS, ERROR = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR


class Rude(BaseException):
    """No `Exception`, as some libraries raise it."""


def failing(times: int, error: Exception, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises so often, and then does what it should."""
    left = [error] * times

    async def call(*args: Any, **kw: Any) -> Any:
        if left:
            raise left.pop()
        return await then(*args, **kw)

    return call


class Failing(AppSuite):
    """The table "When a plugin fails", and errors of the code and of the store."""

    @check("WORKER-30")
    async def test_a_plugin_fails_before_the_run(self, bench: AppBench) -> None:
        """Where a plugin fails before the run, the task is put back, the delivery counts, and no attempt does; when
        the deliveries are used up it is dead, and its error names plugin and trigger.

        If this fails, check what follows `PluginError` in each trigger before the run.
        """
        for trigger in BEFORE:
            if trigger == "task_executor_middlewares_execute":
                continue  # a signal
            stage = await bench.stage(max_deliveries=2)
            stage.heard.returns[trigger] = ValueError("broken")
            async with stage.app:
                record = await stage.run()
            assert (record.status, record.dead, record.attempt) == (ERROR, True, 0), trigger
            assert len(stage.heard.of(trigger)) == 2, f"{trigger}: the task was not delivered twice"
            for told in ("'recorder'", trigger):
                assert told in (record.traceback or ""), f"{trigger}: the error does not name {told}"
            assert stage.ran == [], trigger

    @check("WORKER-31")
    async def test_a_plugin_fails_in_a_signal(self, bench: AppBench) -> None:
        """A plugin that fails in a signal costs nothing: the worker starts, the task succeeds, the worker stops, and
        the error is counted.

        If this fails, check that signals are fired through `self.pm.hook`, which isolates them.
        """
        stage = await bench.stage()
        signals = (
            "worker_start", "broker_listen_start", "task_executor_middlewares_execute", *AFTER, "worker_stop",
        )  # fmt: skip
        for trigger in signals:
            stage.heard.returns[trigger] = ValueError("broken")
        async with stage.app as app:
            record = await stage.run()
            assert record.status is SUCCESS
        for trigger in signals:
            assert app.pm.errors["recorder", trigger] == 1, f"{trigger}: {app.pm.errors}"

    @check("WORKER-32")
    async def test_a_plugin_fails_at_the_finish(self, bench: AppBench) -> None:
        """Where a plugin fails in `worker_remove_finished_task` or `broker_remove_finished_task`, the task ends in
        ERROR, without the result as it was before.

        If this fails, check that no result is written that a plugin should have replaced (encrypted, say).
        """
        for trigger in ("worker_remove_finished_task", "broker_remove_finished_task"):
            stage = await bench.stage()
            stage.heard.returns[trigger] = ValueError("broken")
            async with stage.app:
                record = await stage.run("work", "secret")
            assert (record.status, record.returning) == (ERROR, None), trigger
            assert trigger in (record.traceback or "")

    @check("WORKER-33")
    async def test_a_plugin_fails_in_the_retry(self, bench: AppBench) -> None:
        """Where a plugin fails in `worker_task_error_retry`, the original error stands, and names the plugin's in a
        note.

        If this fails, check what follows `PluginError` there.
        """
        stage = await bench.stage()

        async def fails() -> None:
            raise ValueError("the task's own")

        stage.declare(fails=fails)
        stage.heard.returns["worker_task_error_retry"] = KeyError("broken")
        async with stage.app:
            record = await stage.run("fails")
        assert (record.status, record.attempt) == (ERROR, 1)
        for told in ("ValueError: the task's own", "worker_task_error_retry"):
            assert told in (record.traceback or "")

    @check("WORKER-34")
    async def test_whatever_the_code_raises(self, bench: AppBench) -> None:
        """Whatever the code raises is its error, also where it is no `Exception`; every slot goes on.

        If this fails, check that no error of the code ends a subworker.
        """
        stage = await bench.stage(concurrency=2)
        errors = [
            SystemExit(3),
            asyncio.CancelledError("own"),
            Rude("rude"),
            StopAsyncIteration(),
            ValueError("v"),
        ]

        async def raises(number: int) -> None:
            raise errors[number]

        stage.declare(raises=raises)
        async with stage.app as app:
            tasks = [await app.add_task("raises", args=(n,)) for n in range(len(errors))]
            async with stage.serving():
                for task, error in zip(tasks, errors, strict=True):
                    record = await stage.ended(task)
                    assert record.status is ERROR
                    assert type(error).__name__ in (record.traceback or "")
            await stage.works()

    @check("WORKER-35")
    async def test_a_result_that_cannot_be_stored(self, bench: AppBench) -> None:
        """A result that is no JSON, or larger than `max_payload`, ends the task in ERROR; it is not run again and
        again, and holds up nobody.

        If this fails, check that the result is encoded before the settle, and what becomes of a batch with one bad
        value.
        """
        stage = await bench.stage(max_payload=100)

        async def gives(what: str) -> Any:
            return object() if what == "object" else "x" * 2000

        stage.declare(gives=gives)
        async with stage.app as app:
            tasks = [await app.add_task("gives", args=(what,)) for what in ("object", "long")]
            good = await app.add_task("work")
            async with stage.serving():
                assert [(await stage.ended(task)).status for task in tasks] == [ERROR, ERROR]
                assert (await stage.ended(good)).status is SUCCESS

    @check("WORKER-36")
    async def test_the_store_is_away(self, bench: AppBench) -> None:
        """`TransientError` from the store, when tasks are claimed and when results are written, is waited out: the
        task runs once, and its end is told once.

        If this fails, check that a claim and a settle are repeated, and the code is not run again for it.
        """
        stage, away = await bench.stage(), TransientError("the store is away")
        async with stage.app as app:
            app.delivery.claim = failing(2, away, app.delivery.claim)  # type: ignore[method-assign]
            app.delivery.settle = failing(2, away, app.delivery.settle)  # type: ignore[method-assign]
            record = await stage.run()
            assert record.status is SUCCESS
            assert len(stage.heard.of("worker_execute_after")) == 1
        assert len(stage.ran) == 1

    @check("WORKER-37")
    async def test_the_store_is_broken(self, bench: AppBench) -> None:
        """`FatalError` from the store ends the worker: `serve` raises it, and the worker can be started again.

        If this fails, check that what ends in the background is told to `failure`, which `serve` waits for.
        """
        for step in ("claim", "settle"):
            stage = await bench.stage()
            async with stage.app as app:
                whole = getattr(app.delivery, step)
                setattr(app.delivery, step, failing(1, FatalError("broken"), whole))
                task = await app.add_task("work")
                try:
                    await stage.bounded(app.serve(), f"serve with a broken {step}")
                except FatalError:
                    pass
                else:
                    raise KitFailure(f"serve went on although {step} raised FatalError")
                await app.delivery.broker.sweep(10, 5)
                assert (await stage.stored(task.uuid)).status in ("new", "process")
                async with stage.serving():
                    await stage.ended(await app.add_task("work"))

    @check("WORKER-38")
    async def test_an_unknown_task(self, bench: AppBench) -> None:
        """A task that this worker does not know is put back with its delivery returned; `missing_grace` seconds
        after it was due it is dead. The others go on.

        If this fails, check what follows a name that is not declared.
        """
        stage = await bench.stage(max_deliveries=1)
        async with stage.app as app:
            unknown = await app.add_task("nobody_knows")
            async with stage.serving():
                await stage.heard.until("worker_add")
            record = await stage.stored(unknown.uuid)
            assert (record.status, record.deliveries) == (TaskStatusEnum.NEW, 0)
        stage = await bench.stage(missing_grace=0.05, max_deliveries=1)
        async with stage.app as app:
            unknown, known = await app.add_task("nobody_knows"), await app.add_task("work")
            async with stage.serving():
                assert (await stage.ended(known)).status is SUCCESS
                record = await stage.ended(unknown)
        assert (record.status, record.dead, record.attempt) == (ERROR, True, 0)
        assert "nobody_knows" in (record.traceback or "")
        assert "worker_execute_before" not in [
            each.trigger for each in stage.heard.fired if each.values.get("uuid") == unknown.uuid
        ]
