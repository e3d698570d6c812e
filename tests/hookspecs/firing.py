"""Fires one trigger with sample values, with plugins that each do one thing, and says what must come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from qtasks.errors import (
    PluginError,
    PluginResultError,
    TaskCancelError,
    TaskDefer,
    TaskPluginTriggerError,
    TaskRejected,
)
from qtasks.manager import PluginManager
from qtasks.markers import hookimpl
from qtasks.schemas import (
    Task,
    TaskExecSchema,
    TaskPrioritySchema,
    TaskStatusEnum,
    TaskStatusErrorSchema,
    TaskStatusNewSchema,
    TaskStatusProcessSchema,
    TaskStatusSuccessSchema,
)

UUID_1, UUID_2 = UUID(int=1), UUID(int=2)
NOW = 1_700_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)

NEW = TaskStatusNewSchema(task_name="mail", args=(1,), kwargs={"to": "a"}, created_at=NOW)
PROCESS = TaskStatusProcessSchema(task_name="mail", args=(1,), started_at=NOW)
SUCCESS = TaskStatusSuccessSchema(task_name="mail", returning=[1], finished_at=NOW)
ERROR = TaskStatusErrorSchema(task_name="mail", traceback="Traceback …", finished_at=NOW)
TASK_BROKER = TaskPrioritySchema(priority=0, uuid=UUID_1, name="mail", args=(1,))
TASK_FUNC = TaskExecSchema(name="mail", func=print)
TASK = Task(
    uuid=UUID_1,
    task_name="mail",
    status=TaskStatusEnum.NEW,
    created_at=MOMENT,
    updated_at=MOMENT,
    available_at=MOMENT,
)

# By the text of the annotation, where that says all; else by the name of the parameter.
BY_TYPE: dict[str, Any] = {
    "ArgInfo": (),
    "UUID": UUID_1,
    "TaskName": "mail",
    "Priority": 0,
    "QueueName": "default",
    "Seconds": NOW,
    "Task": TASK,
    "TaskExecSchema": TASK_FUNC,
    "TaskPrioritySchema": TASK_BROKER,
    "TaskStatusNewSchema": NEW,
    "TaskStatusProcessSchema": PROCESS,
    "TaskStatusErrorSchema": ERROR,
    "TaskStatusTerminalSchema": SUCCESS,
    "TaskPluginTriggerError": TaskPluginTriggerError("asked"),
    "BaseException": ValueError("broken"),
    "list[Task]": [TASK],
    "tuple[Any, ...]": (1,),
    "str": "text",
}
BY_NAME: dict[str, Any] = {
    "kw": {"status": TaskStatusEnum.PROCESS, "extra": {"a": 1}},
    "extra": {"a": 1},
    "result": {"k": {"a": 1}},
    "results": [1, 2],
    "value": 1,
    "middlewares": (print,),
    "args_info": (),
}


def given(trigger: str) -> dict[str, Any]:
    """Sample values for all parameters; a component is a plain object, which the chain passes through."""
    pm = PluginManager()
    annotations = pm.pluggy.specs[trigger].__annotations__
    return {
        param: BY_TYPE[annotations[param]]
        if annotations[param] in BY_TYPE
        else BY_NAME.get(param, f"the {param}")
        for param in pm.triggers[trigger].params
    }


def plugin(trigger: str, act: Callable[[dict[str, Any]], Any], asynchronous: bool = False) -> object:
    """A plugin with one implementation, which takes every parameter."""
    params = PluginManager().triggers[trigger].params
    names = ", ".join(params)
    values = "{" + ", ".join(f"{name!r}: {name}" for name in params) + "}"
    word = "async def" if asynchronous else "def"
    namespace: dict[str, Any] = {"act": act}
    exec(f"{word} {trigger}(self, {names}):\n    return act({values})", namespace)
    return type("Plugin", (), {trigger: hookimpl(namespace[trigger])})()


async def fire(
    trigger: str,
    act: Callable[[dict[str, Any]], Any],
    values: dict[str, Any],
    asynchronous: bool = False,
    **options: Any,
) -> tuple[Any, PluginManager]:
    """What the caller gets when one plugin does this, and the manager."""
    pm = PluginManager()
    pm.register(plugin(trigger, act, asynchronous), name="acme", **options)
    return await getattr(pm.hook, trigger)(**values), pm


async def signal(trigger: str, goes_on: bool = False) -> None:
    """A signal: hands its parameters over, ignores what comes back, isolates, unless told to raise."""
    values = given(trigger)
    for asynchronous in (False, True):
        seen: list[dict[str, Any]] = []

        def note(got: dict[str, Any], seen: list[dict[str, Any]] = seen) -> object:
            seen.append(got)
            return object()

        result, _ = await fire(trigger, note, values, asynchronous)
        assert result is None
        assert seen == [values]
        assert all(seen[0][param] is value for param, value in values.items())
        for error in (ValueError("broken"), TaskCancelError("not here")):
            result, pm = await fire(trigger, raiser(error), values, asynchronous)
            assert result is None
            assert pm.errors == {("acme", trigger): 1}
            if goes_on:
                await fire(trigger, raiser(error), values, asynchronous, on_error="raise")
                continue
            with pytest.raises(PluginError) as caught:
                await fire(trigger, raiser(error), values, asynchronous, on_error="raise")
            assert caught.value.__cause__ is error


async def replaces(
    trigger: str,
    good: Sequence[tuple[Any, Any]],
    wrong: Sequence[Any],
    control: bool = False,
    defers: bool = False,
) -> None:
    """A replacement trigger.

    Parameters:
        good: pairs of a return, and what the caller must get for it.
        wrong: returns that must be refused.
        control: whether a plugin may steer the task here.
        defers: whether a `TaskDefer` comes with the values.
    """
    values = given(trigger)
    keys = PluginManager().triggers[trigger].replaces
    unchanged = values[keys[0]] if len(keys) == 1 else tuple(values[key] for key in keys)
    for asynchronous in (False, True):
        assert (await fire(trigger, lambda _: None, values, asynchronous))[0] == unchanged
        for returned, expected in good:
            result, pm = await fire(trigger, lambda _, it=returned: it, values, asynchronous)
            assert result == expected
            assert type(result) is type(expected)
            assert not pm.errors
        for returned in wrong:
            with pytest.raises(PluginResultError) as refused:
                await fire(trigger, lambda _, it=returned: it, values, asynchronous)
            assert (refused.value.plugin, refused.value.trigger) == ("acme", trigger)
            result, pm = await fire(
                trigger, lambda _, it=returned: it, values, asynchronous, on_error="isolate"
            )
            assert result == unchanged
            assert pm.errors == {("acme", trigger): 1}
        await _raises(trigger, values, asynchronous, control, unchanged if defers else None)


async def _raises(
    trigger: str, values: dict[str, Any], asynchronous: bool, control: bool, deferred: Any
) -> None:
    broken = ValueError("broken")
    with pytest.raises(PluginError) as caught:
        await fire(trigger, raiser(broken), values, asynchronous)
    assert (caught.value.plugin, caught.value.trigger) == ("acme", trigger)
    assert caught.value.__cause__ is broken
    for steer in (TaskCancelError("no"), TaskDefer(5), TaskRejected("bad")):
        with pytest.raises(type(steer) if control else PluginError) as steered:
            await fire(trigger, raiser(steer), values, asynchronous)
        assert (steered.value if control else steered.value.__cause__) is steer
        if control and isinstance(steer, TaskDefer):
            assert steer.values == deferred
        if control:
            with pytest.raises(type(steer)):
                await fire(trigger, raiser(steer), values, asynchronous, on_error="isolate")


def raiser(error: Exception) -> Callable[[dict[str, Any]], Any]:
    """An act that raises."""

    def act(_: dict[str, Any]) -> Any:
        raise error

    return act


def but(value: Any, **changes: Any) -> Any:
    """The same with some fields changed."""
    return dataclasses.replace(value, **changes)
