"""Checks of the executor's triggers: each fires once, when it should, and what plugins replace is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

from qtasks.context import TaskContext
from qtasks.errors import TaskPluginTriggerError
from qtasks.schemas import TaskPrioritySchema, TaskStatusEnum
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage

SUCCESS, ERROR = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR
PREPARE = ["task_executor_middlewares_execute", "task_executor_args_replace"]


def own(stage: Stage) -> list[str]:
    """The executor's triggers that were fired, in order."""
    return [name for name in stage.take() if name.startswith("task_executor_")]


def numbers() -> Iterator[int]:
    """A generator task."""
    yield from (1, 2, 3)


async def async_numbers() -> AsyncIterator[int]:
    """An asynchronous generator task."""
    for number in (1, 2, 3):
        yield number


class Triggers(AppSuite):
    """What fires, when, with what."""

    @check("EXECUTOR-01")
    async def test_prepare(self, bench: AppBench) -> None:
        """`prepare` fires `task_executor_middlewares_execute`, then `task_executor_args_replace`, each once, with the
        declaration, the task, its middlewares and arguments, and gives the arguments as plugins left them.

        If this fails, check that `prepare` fires both, in this order, and gives back what the second one gave.
        """
        stage = await bench.stage()

        def before(*_: Any) -> None: ...

        def listed(number: int, x: int = 0) -> int:
            return number + x

        stage.declare({"middlewares_before": [before]}, listed=listed)
        app = stage.app
        func = app.tasks["listed"]
        task = TaskPrioritySchema(priority=0, uuid=uuid4(), name="listed", args=(1,), kwargs={"x": 2})
        async with app:
            stage.take()
            assert await app.task_executor.prepare(func, task) == ((1,), {"x": 2})
            middlewares, replaced = stage.heard.fired
            assert stage.take() == PREPARE
            known = {"task_executor": app.task_executor, "task_func": func, "task_broker": task}
            assert middlewares.values == {
                **known,
                "middlewares": func.middlewares_before + func.middlewares_after,
            }
            assert [info.name for info in func.args_info] == ["number", "x"]
            assert replaced.values == {**known, "args": (1,), "kw": {"x": 2}, "args_info": func.args_info}
            for answer, expected in (
                (((5,), None), ((5,), {"x": 2})),
                ((None, {"y": 1}), ((1,), {"y": 1})),
                ({"args": (7,)}, ((7,), {"x": 2})),
            ):
                stage.heard.returns["task_executor_args_replace"] = answer
                assert await app.task_executor.prepare(func, task) == expected

    @check("EXECUTOR-02")
    async def test_a_result(self, bench: AppBench) -> None:
        """A function fires `task_executor_run_task`, then `task_executor_decode`, each once, with the result as those
        before left it; what they return is stored.

        If this fails, check that `finish` fires both, passes the replaced result on, and returns the last.
        """
        stage = await bench.stage()

        async def one() -> str:
            return "raw"

        stage.declare(one=one)
        async with stage.app as app:
            assert (await stage.run("one")).returning == "raw"
            assert own(stage) == [*PREPARE, "task_executor_run_task", "task_executor_decode"]
            stage.heard.returns["task_executor_run_task"] = lambda values: values["result"] + ", replaced"
            stage.heard.returns["task_executor_decode"] = lambda values: values["result"] + ", decoded"
            assert (await stage.run("one")).returning == "raw, replaced, decoded"
            for trigger, expected in (
                ("task_executor_run_task", "raw"), ("task_executor_decode", "raw, replaced"),
            ):  # fmt: skip
                (values,) = stage.heard.of(trigger)
                assert (values["task_executor"], values["task_func"]) == (app.task_executor, app.tasks["one"])
                assert (values["task_broker"].name, values["result"]) == ("one", expected)

    @check("EXECUTOR-03")
    async def test_a_generator(self, bench: AppBench) -> None:
        """A generator of either kind fires `task_executor_run_task_gen` once, with the list of all items, in the
        place of `task_executor_run_task`; what a plugin returns is stored.

        If this fails, check what `finish` does for the kinds `generator` and `async_generator`.
        """
        stage = await bench.stage()
        stage.declare(plain=numbers, waiting=async_numbers)
        async with stage.app:
            for name in ("plain", "waiting"):
                assert (await stage.run(name)).returning == [1, 2, 3]
                (values,) = stage.heard.of("task_executor_run_task_gen")
                assert values["results"] == [1, 2, 3]
                assert own(stage) == [*PREPARE, "task_executor_run_task_gen", "task_executor_decode"]
            stage.heard.returns["task_executor_run_task_gen"] = [9]
            assert (await stage.run("plain")).returning == [9]

    @check("EXECUTOR-04")
    async def test_arguments(self, bench: AppBench) -> None:
        """The function is called with the arguments that plugins left in `task_executor_args_replace`.

        If this fails, check that `execute` uses the arguments that it is given, not those of the task.
        """
        stage = await bench.stage()
        stage.heard.returns["task_executor_args_replace"] = ((5,), {"y": 6})
        async with stage.app:
            assert (await stage.run("work", 1)).returning == ["work", [5], {"y": 6}]

    @check("EXECUTOR-05")
    async def test_a_plugin_error(self, bench: AppBench) -> None:
        """`TaskPluginTriggerError` of the code fires `task_executor_run_task_trigger_error` once, with the error; a
        plugin's result, also `False` or an empty list, is the task's, else the error stands.

        If this fails, check that `trigger_error` raises the error only where no plugin gave a result.
        """
        stage = await bench.stage()

        async def asks(context: TaskContext) -> None:
            context.plugin_error("help", about=1)

        stage.declare({"echo": True}, asks=asks)
        async with stage.app:
            answers: tuple[Any, ...] = (7, False, [])
            for answer in answers:
                stage.heard.returns["task_executor_run_task_trigger_error"] = answer
                record = await stage.run("asks")
                assert (record.status, record.returning) == (SUCCESS, answer)
                (values,) = stage.heard.of("task_executor_run_task_trigger_error")
                assert isinstance(values["e"], TaskPluginTriggerError)
            stage.heard.returns.clear()
            record = await stage.run("asks")
            assert record.status is ERROR
            assert "TaskPluginTriggerError" in (record.traceback or "")

    @check("EXECUTOR-06")
    async def test_a_plugin_that_fails(self, bench: AppBench) -> None:
        """Where a plugin fails on a result, the task ends in ERROR, which names plugin and trigger, and the result as
        it was before is not stored.

        If this fails, check that `finish` lets `PluginError` pass.
        """
        for trigger, name in (
            ("task_executor_run_task", "work"), ("task_executor_run_task_gen", "plain"),
            ("task_executor_decode", "work"),
        ):  # fmt: skip
            stage = await bench.stage()
            stage.declare(plain=numbers)
            stage.heard.returns[trigger] = ValueError("broken")
            async with stage.app:
                record = await stage.run(name)
            assert (record.status, record.returning) == (ERROR, None), trigger
            assert trigger in (record.traceback or "")
            assert "'recorder'" in (record.traceback or "")

    @check("EXECUTOR-07")
    async def test_decode_of_the_task(self, bench: AppBench) -> None:
        """The task's own `decode` gets the result after `task_executor_run_task`, and its value goes on to
        `task_executor_decode`.

        If this fails, check the order in `finish`.
        """
        stage = await bench.stage()

        async def one() -> str:
            return "raw"

        stage.declare({"decode": lambda result: result + ", decoded"}, one=one)
        stage.heard.returns["task_executor_run_task"] = lambda values: values["result"] + ", replaced"
        async with stage.app:
            assert (await stage.run("one")).returning == "raw, replaced, decoded"
            (values,) = stage.heard.of("task_executor_decode")
            assert values["result"] == "raw, replaced, decoded"

    @check("EXECUTOR-08")
    async def test_a_stream(self, bench: AppBench) -> None:
        """A generator with `stream=True` fires `task_executor_run_task_gen` for its items before they are stored, and
        not again at the end; what plugins return is what a reader and the result get.

        If this fails, check that each batch goes through the trigger, then to `append_items`.
        """
        for function in (numbers, async_numbers):
            stage = await bench.stage()
            stage.declare({"stream": True}, streamed=function)
            stage.heard.returns["task_executor_run_task_gen"] = lambda values: [
                n * 10 for n in values["results"]
            ]
            async with stage.app as app:
                record = await stage.run("streamed")
                items = [
                    n for values in stage.heard.of("task_executor_run_task_gen") for n in values["results"]
                ]
                assert items == [1, 2, 3]
                assert "task_executor_run_task" not in own(stage)
                assert record.returning == [10, 20, 30]
                assert [item async for item in app.stream(record.uuid)] == [10, 20, 30]
