"""The default plugins, `retry` and `validation`: ordinary plugins that can be taken away."""

from __future__ import annotations

from typing import Any

import pytest

from qtasks.app import QueueTasks
from qtasks.errors import TaskRejected
from qtasks.markers import hookimpl
from qtasks.schemas import TaskStatusEnum
from tests.app.conftest import working


@pytest.mark.parametrize(("retry", "runs"), [(0, 1), (2, 3)])
async def test_retry_runs_a_failing_task_again(app: QueueTasks, retry: int, runs: int) -> None:
    ran: list[int] = []

    @app.task(retry=retry, retry_delay=0)
    async def failing() -> None:
        ran.append(1)
        raise ValueError("no")

    async with working(app):
        task = await (await failing.add_task()).wait_result(10)
    assert (task.status, task.attempt, len(ran)) == (TaskStatusEnum.ERROR, runs, runs)
    assert "ValueError: no" in (task.traceback or "")


async def test_only_the_named_exceptions_are_retried_subclasses_too(app: QueueTasks) -> None:
    ran: list[str] = []

    @app.task(retry=1, retry_delay=0, retry_on_exc=(LookupError,))
    async def failing(kind: str) -> None:
        ran.append(kind)
        raise {"key": KeyError, "value": ValueError}[kind]("no")

    async with working(app):
        for kind in ("key", "value"):
            await (await failing.add_task(kind)).wait_result(10)
    assert ran == ["key", "key", "value"]


async def test_without_the_retry_plugin_nothing_is_retried(app: QueueTasks) -> None:
    ran: list[int] = []

    @app.task(retry=5, retry_delay=0)
    async def failing() -> None:
        ran.append(1)
        raise ValueError("no")

    app.pm.unregister("retry")
    async with working(app):
        task = await (await failing.add_task()).wait_result(10)
    assert task.status is TaskStatusEnum.ERROR
    assert ran == [1]


async def test_validation_turns_arguments_into_the_annotated_types(app: QueueTasks) -> None:
    @app.task
    async def typed(a: int, *, b: list[float]) -> Any:
        return [a, b]

    async with working(app):
        task = await app.add_task(typed.name, args=("5",), kwargs={"b": ["1.5"]}, timeout=10)
    assert task.returning == [5, [1.5]]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("x",), {}, "a: Input should be a valid integer"),
        ((1, 2), {}, "takes 1 positional arguments, got 2"),
        ((1,), {"c": 1}, "unknown argument 'c'"),
        ((1,), {"a": 1}, "a: given twice"),
    ],
)
async def test_a_bad_argument_is_rejected_and_never_retried(
    app: QueueTasks, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    ran: list[int] = []

    @app.task(retry=3, retry_delay=0)
    async def typed(a: int) -> None:
        ran.append(a)

    async with working(app):
        task = await app.add_task(typed.name, args=args, kwargs=kwargs, timeout=10)
    assert task.status is TaskStatusEnum.ERROR
    assert TaskRejected.__name__ in (task.traceback or "")
    assert message in (task.traceback or "")
    assert ran == []


async def test_parameters_that_were_not_given_are_left_to_later_plugins(app: QueueTasks) -> None:
    class Session: ...

    class Inject:
        @hookimpl
        def task_executor_args_replace(self, kw: dict[str, Any]) -> dict[str, Any]:
            return {"kw": {**kw, "session": Session()}}

    app.add_plugin(Inject())

    @app.task
    async def job(a: int, session: Session) -> str:
        return f"{a} {type(session).__name__}"

    async with working(app):
        assert (await app.add_task(job.name, args=(1,), timeout=10)).returning == "1 Session"
        stored = (await app.get_all())[0][0]
    assert stored.kwargs == {}  # what was injected for the run is not written back
