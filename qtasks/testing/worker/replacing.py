"""Checks that a worker takes what plugins put in the place of values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from qtasks.schemas import TaskRequest, TaskStatusEnum
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage


async def result_with(bench: AppBench, trigger: str, answer: Any) -> tuple[Stage, Any]:
    """The result of `work(1)` where a plugin answers in one trigger."""
    stage = await bench.stage()
    stage.heard.returns[trigger] = answer
    async with stage.app:
        record = await stage.run("work", 1)
        assert record.status is TaskStatusEnum.SUCCESS, record.traceback
        return stage, record.returning


class Replacing(AppSuite):
    """What plugins replace is what counts."""

    @check("WORKER-20")
    async def test_worker_add(self, bench: AppBench) -> None:
        """What a plugin replaces in `worker_add` goes on: name, priority, arguments and time of creation.

        If this fails, check the order of the values that the trigger gives back, and what is made of them.
        """
        answer = {"task_name": "other", "priority": 9, "args": (5,), "kw": {"y": 6}, "created_at": 7.0}
        stage, result = await result_with(bench, "worker_add", answer)
        assert result == ["other", [5], {"y": 6}]
        (before,) = stage.heard.of("worker_execute_before")
        assert before["task_func"] is stage.app.tasks["other"]
        assert (before["model"].priority, before["model"].created_at) == (9, 7.0)

    @check("WORKER-21")
    async def test_execute_before(self, bench: AppBench) -> None:
        """The model that a plugin returns in `worker_execute_before` decides what is run, with which arguments.

        If this fails, check that the run takes its values from the replaced model.
        """
        _, result = await result_with(
            bench,
            "worker_execute_before",
            lambda values: replace(values["model"], task_name="other", args=(5,)),
        )
        assert result == ["other", [5], {}]

    @check("WORKER-22")
    async def test_run_task_before(self, bench: AppBench) -> None:
        """What a plugin returns for `task_func` and `task_broker` in `worker_run_task_before` is what is run; each
        alone, too.

        If this fails, check that both values of the trigger are used.
        """
        _, result = await result_with(
            bench, "worker_run_task_before",
            lambda values: {"task_func": values["worker"].app.tasks["other"]},
        )  # fmt: skip
        assert result == ["other", [1], {}]
        _, result = await result_with(
            bench, "worker_run_task_before",
            lambda values: {"task_broker": replace(values["task_broker"], args=(8,))},
        )  # fmt: skip
        assert result == ["work", [8], {}]

    @check("WORKER-23")
    async def test_what_broker_and_storage_say(self, bench: AppBench) -> None:
        """What plugins replace in the triggers of broker and storage before the run is what is run:
        `storage_add_process`, `storage_get`, `broker_get`, `broker_add_worker`.

        If this fails, check that the worker goes on with what the methods of broker and storage give back.
        """
        named = {"task_name": "other"}
        for trigger, answer, expected in (
            ("storage_add_process", named, ["other", [1], {}]),
            ("storage_get", lambda values: replace(values["result"], args=(5,)), ["work", [5], {}]),
            ("broker_get", lambda values: replace(values["task"], kwargs={"z": 1}), ["work", [1], {"z": 1}]),
            ("broker_add_worker", {**named, "args": (4,)}, ["other", [4], {}]),
        ):
            _, result = await result_with(bench, trigger, answer)
            assert result == expected, f"what a plugin returned in {trigger} was not taken"

    @check("WORKER-24")
    async def test_the_start_patch(self, bench: AppBench) -> None:
        """What plugins change in the fields of the start (`broker_update`, `storage_update`) is written before the
        run; `worker_execute_before` sees and passes on `extra`.

        If this fails, check that a changed patch is written with `update_many`, before the code runs.
        """
        stage = await bench.stage()
        seen: list[Any] = []

        async def looks() -> None:
            (task,) = stage.heard.of("worker_add")
            seen.append((await stage.stored(task["uuid"])).extra)

        stage.declare(looks=looks)
        stage.heard.returns["storage_update"] = {"extra": {"by": "plugin"}}
        async with stage.app:
            record = await stage.run("looks")
        assert seen == [{"by": "plugin"}]
        assert (record.status, record.extra) == (TaskStatusEnum.SUCCESS, {"by": "plugin"})

    @check("WORKER-25")
    async def test_the_finish(self, bench: AppBench) -> None:
        """The model that plugins leave in `worker_remove_finished_task` and `broker_remove_finished_task` is what is
        stored, and what the triggers after the settle get.

        If this fails, check that the settle is made of the model as it is after both triggers.
        """
        for trigger in ("worker_remove_finished_task", "broker_remove_finished_task"):

            def answer(values: dict[str, Any]) -> Any:
                model = replace(values["model"], returning="replaced")
                return {"model": model} if "worker" in values else model

            stage, result = await result_with(bench, trigger, answer)
            assert result == "replaced", f"what a plugin returned in {trigger} was not stored"
            (after,) = stage.heard.of("worker_execute_after")
            assert after["model"].returning == "replaced"

    @check("WORKER-26")
    async def test_the_retry(self, bench: AppBench) -> None:
        """A plugin decides on a retry by `retry_in`; the worker caps it at the task's `retry`, and counts the
        attempts itself.

        If this fails, check who decides (the model that comes back), and the cap.
        """
        stage = await bench.stage()
        runs: list[int] = []

        async def fails() -> None:
            runs.append(1)
            raise ValueError("always")

        stage.declare({"retry": 2, "retry_on_exc": (KeyError,)}, fails=fails)
        stage.heard.returns["worker_task_error_retry"] = lambda values: replace(
            values["model"], retry_in=0.001, attempt=0
        )
        async with stage.app as app:
            task = await app.add_task("fails")
            async with stage.serving():
                record = await stage.ended(task)
        assert (len(runs), record.attempt, record.status, record.dead) == (3, 3, TaskStatusEnum.ERROR, True)

    @check("WORKER-27")
    async def test_follow_ups(self, bench: AppBench) -> None:
        """Tasks that a plugin puts into `then` go through the producer triggers, are stored with the result, and
        run.

        If this fails, check that `then` of the success model goes into the settle.
        """
        stage = await bench.stage()

        def answer(values: dict[str, Any]) -> Any:
            if values["model"].task_name != "work":
                return None
            follow = TaskRequest(task_name="other", args=(7,))
            return {"model": replace(values["model"], then=(follow,))}

        stage.heard.returns["worker_remove_finished_task"] = answer
        async with stage.app as app:
            await app.add_task("work")
            stage.take()
            async with stage.serving():
                await stage.heard.until("worker_execute_after", 2)
            assert stage.take().count("qtasks_add_task_before_broker") == 1
            await stage.quiet()
        assert stage.ran == [("work", (), {}), ("other", (7,), {})]

    @check("WORKER-28")
    async def test_the_delivery_is_out_of_reach(self, bench: AppBench) -> None:
        """No plugin swaps a task for another: a replaced `task_broker` or `task` with another uuid is an error that
        names the plugin, and the delivery that was claimed is the one that ends (R9).

        If this fails, check that the handle of the claim is what is settled, whatever the triggers say.
        """
        another = uuid4()
        for trigger, answer in (
            ("worker_run_task_before", lambda v: {"task_broker": replace(v["task_broker"], uuid=another)}),
            ("storage_get", lambda v: replace(v["result"], uuid=another)),
            (
                "worker_remove_finished_task",
                lambda v: {"task_broker": replace(v["task_broker"], uuid=another)},
            ),
        ):
            stage = await bench.stage(max_deliveries=1)
            stage.heard.returns[trigger] = answer
            async with stage.app:
                record = await stage.run()
                assert record.status is TaskStatusEnum.ERROR, trigger
                assert "'recorder'" in (record.traceback or ""), trigger
                await stage.quiet()
