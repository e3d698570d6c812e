"""Checks of which triggers a worker fires, in which order, with which values."""

from __future__ import annotations

from typing import Any

from qtasks.context import TaskContext
from qtasks.errors import TaskCancelError, TaskDefer, TaskRejected
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage

BEFORE = [
    "storage_add_process", "storage_get", "broker_get", "broker_add_worker", "worker_add", "worker_execute_before",
    "broker_update", "storage_update", "worker_run_task_before", "task_executor_middlewares_execute",
    "task_executor_args_replace",
]  # fmt: skip
RESULT = ["task_executor_run_task", "task_executor_decode"]
FINISH = ["worker_remove_finished_task", "broker_remove_finished_task"]
AFTER = ["storage_remove_finished_task", "worker_execute_after"]
SUCCESS = [*BEFORE, *RESULT, *FINISH, *AFTER]


async def fired_by(stage: Stage, name: str, *args: Any) -> list[str]:
    """What one task fires from its claim until its worker is asked to stop."""
    async with stage.app:
        await stage.run(name, *args)
        return stage.take()


class Triggers(AppSuite):
    """What fires, when, with what."""

    @check("WORKER-01")
    async def test_the_sequence_of_a_success(self, bench: AppBench) -> None:
        """A task that succeeds fires every trigger from `storage_add_process` to `worker_execute_after` once,
        in the order of docs/flow.md.

        If this fails, check that what the worker overrides calls the methods of broker and storage, and fires
        its own triggers, each once and in its place.
        """
        assert await fired_by(await bench.stage(), "work") == SUCCESS

    @check("WORKER-02")
    async def test_the_sequence_of_an_error(self, bench: AppBench) -> None:
        """A task that fails fires `worker_task_error_retry` once in the place of the result's triggers, then
        the finish triggers.

        If this fails, check what follows an exception of the task's code.
        """
        stage = await bench.stage()

        async def fails() -> None:
            raise ValueError("always")

        stage.declare(fails=fails)
        assert await fired_by(stage, "fails") == [*BEFORE, "worker_task_error_retry", *FINISH, *AFTER]

    @check("WORKER-03")
    async def test_the_sequence_of_a_retry(self, bench: AppBench) -> None:
        """A task that is run again fires `broker_update` and `storage_update` for what is written and
        `worker_execute_after`; the `…_remove_finished_task` triggers fire at its end only.

        If this fails, check that a retry is no end.
        """
        stage, failures = await bench.stage(), [ValueError("once")]

        async def fails_once() -> None:
            if failures:
                raise failures.pop()

        stage.declare({"retry": 1, "retry_delay": 0.01}, fails_once=fails_once)
        async with stage.app:
            task = await stage.app.add_task("fails_once")
            stage.take()
            async with stage.serving():
                await stage.ended(task)
                await stage.heard.until("worker_execute_after", 2)
                fired = stage.take()[2:]
        again = ["worker_task_error_retry", "broker_update", "storage_update", "worker_execute_after"]
        assert fired == [*BEFORE, *again, *SUCCESS]

    @check("WORKER-04")
    async def test_the_sequence_of_a_plugin_error(self, bench: AppBench) -> None:
        """A task that asks plugins for its result fires `task_executor_run_task_trigger_error` once, and goes on
        as a success if a plugin gave one, else as an error.

        If this fails, check what follows `TaskPluginTriggerError`.
        """
        for answer, rest in ((7, RESULT), (None, ["worker_task_error_retry"])):
            stage = await bench.stage()

            async def asks(context: TaskContext) -> None:
                context.plugin_error("help")

            stage.declare({"echo": True}, asks=asks)
            stage.heard.returns["task_executor_run_task_trigger_error"] = answer
            fired = await fired_by(stage, "asks")
            assert fired == [*BEFORE, "task_executor_run_task_trigger_error", *rest, *FINISH, *AFTER]

    @check("WORKER-05")
    async def test_the_sequence_of_a_veto(self, bench: AppBench) -> None:
        """A veto or a rejection in a trigger before the run ends the task at once: CANCEL or ERROR without a
        retry; the code is not run, and the finish triggers fire.

        If this fails, check what follows `TaskCancelError` and `TaskRejected` before the run.
        """
        for control, status in (
            (TaskCancelError("no"), TaskStatusEnum.CANCEL), (TaskRejected("no"), TaskStatusEnum.ERROR),
        ):  # fmt: skip
            stage = await bench.stage()
            stage.declare({"retry": 3}, retried=stage.app.tasks["work"].func)
            stage.heard.returns["worker_execute_before"] = control
            async with stage.app:
                record = await stage.run("retried")
                fired = stage.take()
            assert fired == [*BEFORE[: BEFORE.index("worker_execute_before") + 1], *FINISH, *AFTER]
            assert (record.status, stage.ran) == (status, [])

    @check("WORKER-06")
    async def test_a_defer(self, bench: AppBench) -> None:
        """`TaskDefer` in a trigger before the run puts the task back with its delivery returned; none of the finish
        triggers fires until it has run.

        If this fails, check what follows `TaskDefer`, and that the delivery is given back.
        """
        stage = await bench.stage(max_deliveries=2)
        defers = [TaskDefer(0.01)] * 4

        def once(_values: dict[str, Any]) -> None:
            if defers:
                raise defers.pop()

        stage.heard.returns["worker_add"] = once
        async with stage.app:
            record = await stage.run()
            fired = stage.take()
        put_back = BEFORE[: BEFORE.index("worker_add") + 1]
        assert fired == [*put_back * 4, *SUCCESS]
        assert (record.status, record.attempt, record.deliveries) == (TaskStatusEnum.SUCCESS, 0, 1)

    @check("WORKER-07")
    async def test_the_values_of_a_success(self, bench: AppBench) -> None:
        """The worker's triggers get this worker, the task's uuid, name, priority, arguments and time, its
        declaration, and the model of its status.

        If this fails, check the values that each trigger is fired with.
        """
        stage = await bench.stage()
        async with stage.app as app:
            record = await stage.run("work", 1, x=2)
            (added,) = stage.heard.of("worker_add")
            assert added == {
                "worker": app.worker, "uuid": record.uuid, "task_name": "work", "priority": 0, "args": (1,),
                "kw": {"x": 2}, "created_at": record.created_at,
            }  # fmt: skip
            for trigger in ("worker_execute_before", "worker_run_task_before", *FINISH[:1], AFTER[1]):
                (values,) = stage.heard.of(trigger)
                assert values["worker"] is app.worker, trigger
                assert values["task_func"] is app.tasks["work"], trigger
                task = values["task_broker"]
                assert (task.uuid, task.name, task.args, task.kwargs) == (
                    record.uuid,
                    "work",
                    (1,),
                    {"x": 2},
                ), trigger
                model = values.get("model")
                if model is not None:
                    at_start = trigger == "worker_execute_before"
                    assert model.status == ("process" if at_start else "success"), trigger
                    assert (model.task_name, model.args, model.kwargs) == ("work", (1,), {"x": 2}), trigger
                    assert at_start or model.returning == ["work", [1], {"x": 2}], trigger

    @check("WORKER-08")
    async def test_the_values_of_an_error(self, bench: AppBench) -> None:
        """`worker_task_error_retry` gets the very exception, its traceback as text, and a model in ERROR that counts
        the attempt; the finish triggers get that model.

        If this fails, check what is made of an exception of the task's code.
        """
        stage, error = await bench.stage(), ValueError("always")

        async def fails() -> None:
            raise error

        stage.declare(fails=fails)
        async with stage.app as app:
            record = await stage.run("fails")
            (values,) = stage.heard.of("worker_task_error_retry")
            (finished,) = stage.heard.of("worker_remove_finished_task")
        assert (values["worker"], values["broker"], values["e"]) == (app.worker, app.broker, error)
        assert "ValueError: always" in values["trace"]
        for model in (values["model"], finished["model"]):
            assert (model.status, model.attempt, model.traceback) == ("error", 1, values["trace"])
        assert (record.status, record.attempt, record.traceback) == ("error", 1, values["trace"])

    @check("WORKER-09")
    async def test_start_and_stop(self, bench: AppBench) -> None:
        """`worker_start` fires once, before the worker claims; `worker_stop` fires once, when every result is
        written.

        If this fails, check that `start` and `stop` fire what those of the base class fire, and `stop` waits for
        the results first.
        """
        stage = await bench.stage()
        seen: list[Any] = []
        async with stage.app as app:
            task = await app.add_task("work")

            async def status_at_stop(_values: dict[str, Any]) -> None:
                seen.append((await stage.stored(task.uuid)).status)

            stage.heard.returns["worker_stop"] = status_at_stop
            stage.take()
            async with stage.serving():
                await stage.heard.until("worker_add")
            names = stage.heard.names()
            assert names.count("worker_start") == names.count("worker_stop") == 1, names
            assert stage.heard.of("worker_start") == [{"worker": app.worker}]
            assert stage.heard.of("worker_stop") == [{"worker": app.worker}]
            assert names.index("worker_start") < names.index("storage_add_process")
            assert names.index("worker_execute_after") < names.index("worker_stop")
        assert seen == [TaskStatusEnum.SUCCESS]

    @check("WORKER-10")
    async def test_after_an_accepted_settle(self, bench: AppBench) -> None:
        """`storage_remove_finished_task` and `worker_execute_after` fire when the result is in the storage.

        If this fails, check that success is announced after the settle was accepted, not before it.
        """
        stage = await bench.stage()
        seen: list[Any] = []

        async def look(values: dict[str, Any]) -> None:
            seen.append((await stage.stored(values["task_broker"].uuid)).status)

        for trigger in AFTER:
            stage.heard.returns[trigger] = look
        async with stage.app:
            await stage.run()
        assert seen == [TaskStatusEnum.SUCCESS] * 2

    @check("WORKER-11")
    async def test_a_restored_task(self, bench: AppBench) -> None:
        """A task of a lost worker fires `broker_running_older_tasks` once per pass, and when it is claimed again
        `storage_running_older_tasks`, before `broker_add_worker`, with its own values.

        If this fails, check that the worker sweeps, and what it does with a handle that says `restored`.
        """
        stage = await bench.stage()
        async with stage.app as app:
            tasks = [await app.add_task("work", args=(n,)) for n in range(3)]
            lost = await app.delivery.claim(3, ("default",), "f" * 16, 1e-6)
            assert len(lost) == 3
            stage.take()
            async with stage.serving():
                for task in tasks:
                    await stage.ended(task)
                await stage.heard.until("worker_execute_after", 3)
            assert stage.heard.of("broker_running_older_tasks") == [
                {"broker": app.broker, "worker": app.worker}
            ]
            older = {values["uuid"]: values for values in stage.heard.of("storage_running_older_tasks")}
            assert older.keys() == {task.uuid for task in tasks}
            for n, task in enumerate(tasks):
                values = older[task.uuid]
                assert (values["worker"], values["task_name"], values["args"]) == (app.worker, "work", (n,))
            names = stage.heard.names()
            assert names.index("storage_running_older_tasks") < names.index("broker_add_worker")
