"""The triggers of component `task_executor`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from qtasks.chain import NULL
from qtasks.schemas import TaskStatusEnum
from tests.hookspecs.firing import replaces, signal

KW = {"status": TaskStatusEnum.PROCESS, "extra": {"a": 1}}
"""The sample that `firing.given` has for `kw`."""


async def test_task_executor_args_replace() -> None:
    await replaces(
        "task_executor_args_replace",
        good=[
            (((2,), None), ((2,), KW)),
            ((None, {"now": 1}), ((1,), {"now": 1})),
            ({"args": [3, 4], "kw": None}, ((3, 4), KW)),
            ((None, None), ((1,), KW)),
        ],
        wrong=[((2,),), [(2,), {}], {"arguments": ()}, (NULL, None), (5, {})],
        control=True,
    )


async def test_task_executor_middlewares_execute() -> None:
    await signal("task_executor_middlewares_execute")


async def test_task_executor_run_task() -> None:
    await replaces(
        "task_executor_run_task",
        good=[("done", "done"), (NULL, None), ({"result": 1}, {"result": 1})],
        wrong=[],
    )


async def test_task_executor_run_task_gen() -> None:
    await replaces(
        "task_executor_run_task_gen",
        good=[([1], [1]), ((1, 2), [1, 2])],
        wrong=[7, NULL],
    )


async def test_task_executor_run_task_trigger_error() -> None:
    await replaces(
        "task_executor_run_task_trigger_error",
        good=[("done", "done"), (NULL, None), ({"result": 1}, {"result": 1})],
        wrong=[],
    )


async def test_task_executor_decode() -> None:
    await replaces(
        "task_executor_decode",
        good=[("done", "done"), (NULL, None), ({"result": 1}, {"result": 1})],
        wrong=[],
    )
