"""Declaring tasks: options, kinds, names, routers; a wrong option is an error at import."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from mypy import api as mypy

from qtasks.app import QueueTasks
from qtasks.errors import DuplicateTaskError, TaskDeclarationError, TaskNotRegisteredError
from qtasks.registry import Router, TaskOptions
from qtasks.schemas import TaskExecSchema
from tests.app.conftest import MakeApp


async def test_a_declared_task_can_still_be_called(app: QueueTasks) -> None:
    @app.task
    def double(x: int) -> int:
        """Doubles."""
        return 2 * x

    assert double(4) == 8
    assert double.__doc__ == "Doubles."
    assert double.name.endswith("test_a_declared_task_can_still_be_called.double")
    assert app.tasks[double.name].description == "Doubles."


def test_the_kind_of_a_function_is_found(app: QueueTasks) -> None:
    @app.task(name="function")
    def function() -> None: ...

    @app.task(name="coroutine")
    async def coroutine() -> None: ...

    @app.task(name="generator")
    def generator() -> Any:
        yield 1

    @app.task(name="async_generator")
    async def async_generator() -> Any:
        yield 1

    assert {name: task.kind for name, task in app.tasks.items()} == {
        name: name for name in ("function", "coroutine", "generator", "async_generator")
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": 3}, "unknown option retries; the options are"),
        ({"retry": -1}, "retry: Input should be greater than or equal to 0"),
        ({"retry": "many"}, "retry: Input should be a valid integer"),
        ({"priority": 200}, "priority: Input should be less than or equal to 127"),
        ({"queue": "no spaces"}, "queue: String should match pattern"),
        ({"max_time": 0}, "max_time: Input should be greater than 0"),
        ({"executor": "gpu"}, "executor: Input should be 'thread' or 'process'"),
        ({"retry_on_exc": (int,)}, "retry_on_exc"),
        ({"name": "with space"}, "task name 'with space' is not valid"),
        ({"stream": True}, "stream=True is for generators"),
        ({"executor": "process", "echo": True}, "echo=True has no meaning in another process"),
    ],
)
def test_a_wrong_option_is_an_error_at_import(app: QueueTasks, options: dict[str, Any], message: str) -> None:
    def wrong() -> None: ...

    with pytest.raises(TaskDeclarationError) as caught:
        app.task(**options)(wrong)
    assert message in str(caught.value)
    assert len(app.tasks) == 0


def test_two_tasks_of_one_name_are_an_error(app: QueueTasks) -> None:
    @app.task(name="same")
    def first() -> None: ...

    with pytest.raises(DuplicateTaskError, match=r"'same' is declared twice: by .*first and by .*second"):

        @app.task(name="same")
        def second() -> None: ...

    assert app.tasks["same"].func is first.func


async def test_a_router_needs_no_app_until_it_is_included(app: QueueTasks) -> None:
    router = Router(prefix="mail.")

    @router.task(name="send", queue="mail")
    async def send(to: str) -> str:
        return f"to {to}"

    with pytest.raises(TaskNotRegisteredError, match="include_router"):
        await send.add_task("a")
    app.include_router(router)
    assert send.name == "mail.send"
    async with app:
        task = await send.add_task("a")
        assert (task.task_name, task.queue) == ("mail.send", "mail")


def test_a_router_is_taken_in_whole_or_not_at_all(app: QueueTasks) -> None:
    @app.task(name="b")
    def existing() -> None: ...

    router = Router()

    @router.task(name="a")
    def a() -> None: ...

    @router.task(name="b")
    def b() -> None: ...

    with pytest.raises(DuplicateTaskError, match="names that are taken: b"):
        app.include_router(router)
    assert list(app.tasks) == ["b"]


async def test_a_router_may_be_included_in_several_applications(make_app: MakeApp) -> None:
    router = Router(prefix="mail.")

    @router.task(name="send")
    async def send(to: str) -> str:
        return f"to {to}"

    for _ in range(2):
        app = make_app()
        app.include_router(router)
        assert list(app.tasks) == ["mail.send"]
        async with app:
            assert (await send.add_task("a")).task_name == "mail.send"


def test_the_typed_options_are_those_of_the_schema() -> None:
    found = {"name", "echo", *TaskOptions.__annotations__}
    assert found == {field.name for field in fields(TaskExecSchema)} - {"func", "kind", "args_info"}


TYPED = """
from qtasks import QueueTasks, TaskContext
app = QueueTasks("typed", "memory://")

@app.task(retry=3)
async def plain(x: int) -> str:
    return str(x)

@app.task(echo=True)
async def echoing(ctx: TaskContext, x: int) -> str:
    return str(x)

async def caller(ctx: TaskContext) -> None:
    await plain.add_task(1)
    await plain.options(delay=1).add_task(x=1)
    await echoing.add_task(1)
    text: str = await plain(1)
    text = await echoing(ctx, 1)
"""
MISTYPED = {
    "option": ("retry=3", "retries=3", "call-overload"),
    "value": ("retry=3", "retry='3'", "call-overload"),
    "argument": ("plain.add_task(1)", "plain.add_task('1')", "arg-type"),
    "context": ("echoing.add_task(1)", "echoing.add_task(ctx, 1)", "call-arg"),
}


def test_mypy_knows_options_and_arguments(tmp_path: Path) -> None:
    texts = {"good": TYPED} | {name: TYPED.replace(old, new) for name, (old, new, _) in MISTYPED.items()}
    assert len(set(texts.values())) == len(texts)
    for name, text in texts.items():
        (tmp_path / f"snippet_{name}.py").write_text(text, encoding="utf-8")
    paths = [str(tmp_path / f"snippet_{name}.py") for name in texts]
    out, err, _ = mypy.run(["--strict", "--follow-imports=silent", "--no-error-summary", *paths])
    assert err == ""
    found = [line.rpartition("snippet_")[2] for line in out.splitlines() if ": error:" in line]
    assert not [line for line in found if line.startswith("good")], out
    for name, (_, _, code) in MISTYPED.items():
        assert any(line.startswith(name) and f"[{code}]" in line for line in found), (name, out)


def test_args_info_tells_the_parameters_without_the_context(app: QueueTasks) -> None:
    @app.task(name="t", echo=True)
    async def task(context: Any, x: int, *, y: str = "a") -> None: ...

    (x, y) = app.tasks["t"].args_info
    assert (x.name, x.annotation, x.kind) == ("x", int, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert (y.name, y.annotation, y.default) == ("y", str, "a")
