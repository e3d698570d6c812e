"""What each cell asserts, by the outcome that the protocol names for its trigger."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from qtasks.errors import PluginError, PluginTimeoutError, TaskCancelError, TaskRejected
from qtasks.schemas import TaskRecord, TaskStatusEnum

from ..apps import assert_quiet, ended, run_canary, serving
from .changes import EXTRA
from .effects import check_next, expected_run, stored_changes
from .probe import DEFER, NAME
from .scenario import Scenario
from .table import ANY_VALUE

CONTROLS = ("TaskCancelError", "TaskDefer", "TaskRejected")
SUCCESS, ERROR, CANCEL = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL


def fails(s: Scenario) -> bool:
    """Whether the plugin breaks the rules: it raises, exceeds its time as a coroutine, or returns junk."""
    cell = s.cell
    return (
        cell.behaviour in ("raises", "wrong shape")
        or (cell.behaviour == "exceeds plugin_timeout" and cell.kind == "async def")
    )  # fmt: skip


def changes(s: Scenario) -> str:
    """`"replaces"`, `"partial"`, or nothing. A plain function that is slow is waited for, and counts."""
    cell = s.cell
    if cell.behaviour in ("replaces", "partial"):
        return cell.behaviour
    return "replaces" if cell.behaviour == "exceeds plugin_timeout" and cell.kind == "def" else ""


def check_call(s: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    """The plugin was called; a slow one was cancelled, or warned about; failures were counted."""
    probe, cell = s.probe, s.cell
    if cell.behaviour == "no plugin":
        assert probe.calls == []
        return
    assert probe.calls, "the plugin was never called"
    if cell.behaviour == "exceeds plugin_timeout":
        if cell.kind == "async def":
            assert probe.cancelled == len(probe.calls)
        else:
            assert probe.finished == len(probe.calls)
            warned = [
                record.getMessage() for record in caplog.records if "plugin_timeout" in record.getMessage()
            ]
            assert any(NAME in text and cell.trigger in text for text in warned), warned


def check_counted(s: Scenario, caplog: pytest.LogCaptureFixture, *, isolated: bool) -> None:
    """Every failure was counted, and an isolated one logged, with plugin and trigger."""
    assert s.app.pm.errors[NAME, s.cell.trigger] == len(s.probe.calls)
    if isolated:
        logged = [
            record.getMessage()
            for record in caplog.records
            if record.levelno == logging.ERROR and NAME in record.getMessage()
        ]
        assert any(s.cell.trigger in text for text in logged), logged


async def finish(s: Scenario) -> None:
    """How every cell ends: the worker is alive, and nothing is left."""
    await run_canary(s.app)


def assert_ran_as_replaced(s: Scenario, record: TaskRecord) -> None:
    """The task ended well, with the replacement of the cell where there is one."""
    trigger, how = s.cell.trigger, changes(s)
    last_try = trigger == "worker_task_error_retry" and how == "partial"
    assert record.status is (ERROR if last_try else SUCCESS), record.traceback
    expected = expected_run(trigger, how) if how else ("work", (1,), {"x": 2})
    if s.task_name != "work":
        expected = (s.task_name, (1,), {"x": 2})
    runs = 2 if trigger == "worker_task_error_retry" and how == "replaces" else 1
    assert s.ran == [expected] * runs
    if how:
        for field, value in stored_changes(trigger, how).items():
            assert getattr(record, field) == value, field


# --- One function per outcome -------------------------------------------------------------------


async def producer(s: Scenario) -> None:
    """`add_task` raises, or the task runs as replaced."""
    app, behaviour = s.app, s.cell.behaviour
    async with app, serving(app):
        control = {"TaskCancelError": TaskCancelError, "TaskRejected": TaskRejected}.get(behaviour)
        if control is not None or fails(s):
            with pytest.raises(control or PluginError) as caught:
                await s.add()
            if control is None:
                assert (caught.value.plugin, caught.value.trigger) == (NAME, s.cell.trigger)
            else:
                assert caught.value.reason == "told so"
            assert sum((await app.storage.counts()).values()) == 0
            await assert_quiet(app)
            assert s.ran == []
        else:
            before = app.clock()
            task = await s.add()
            record = await ended(app, task.uuid)
            assert_ran_as_replaced(s, record)
            if behaviour == "TaskDefer":
                assert record.available_at >= before + DEFER
                assert (record.started_at or 0) >= record.available_at
            elif s.cell.trigger == "qtasks_add_task_before_broker" and changes(s) == "replaces":
                assert record.available_at < before - 50
        s.probe.armed = False
        await finish(s)


async def before_run(s: Scenario) -> None:
    """Released, dead in the end, steered, or run as replaced."""
    app, behaviour, trigger = s.app, s.cell.behaviour, s.cell.trigger
    async with app:
        task = await s.add()
        if trigger == "storage_running_older_tasks":
            await lose_a_worker(s)
        async with serving(app):
            record = await ended(app, task.uuid)
            if behaviour == "TaskCancelError":
                assert (record.status, record.cancel_reason) == (CANCEL, "told so")
                assert s.ran == []
                assert len(s.probe.calls) == 1
            elif behaviour == "TaskRejected":
                assert record.status is ERROR
                assert "told so" in (record.traceback or "")
                assert s.ran == []
                assert len(s.probe.calls) == 1
            elif fails(s):
                assert (record.status, record.dead, record.attempt) == (ERROR, True, 0)
                assert NAME in (record.traceback or "")
                assert trigger in (record.traceback or "")
                assert s.ran == []
                # The delivery is counted. The lost worker of a restored task used up one of the two.
                assert len(s.probe.calls) == (1 if trigger == "storage_running_older_tasks" else 2)
                assert record.deliveries == 2
            else:
                assert_ran_as_replaced(s, record)
                if behaviour == "TaskDefer":
                    first = 2 if trigger == "storage_running_older_tasks" else 1
                    assert record.deliveries == first, "the delivery was not returned"
            s.probe.armed = False
            await finish(s)


async def lose_a_worker(s: Scenario) -> None:
    """Another worker starts the task, and is not seen again."""
    claimed = await s.app.delivery.claim(1, ("default",), "f" * 16, 1e-6)
    assert len(claimed) == 1


async def result(s: Scenario) -> None:
    """ERROR naming plugin and trigger, or the replaced result."""
    app, behaviour, trigger = s.app, s.cell.behaviour, s.cell.trigger
    async with app, serving(app):
        task = await s.add()
        record = await ended(app, task.uuid)
        assert len(s.ran) == 1
        asks = trigger == "task_executor_run_task_trigger_error"
        if behaviour == "wrong shape" and trigger in ANY_VALUE:
            # Any value is legal here; one that no store can keep ends the task at once.
            assert (record.status, record.returning) == (ERROR, None)
            assert "JSON" in (record.traceback or "")
        elif fails(s) or behaviour in CONTROLS:
            assert (record.status, record.returning) == (ERROR, None)
            assert NAME in (record.traceback or "")
            assert trigger in (record.traceback or "")
            assert record.attempt == 1
        elif asks and not changes(s):
            assert record.status is ERROR
            assert "TaskPluginTriggerError: help" in (record.traceback or "")
        else:
            assert_ran_as_replaced(s, record)
            if trigger != "task_executor_decode" or changes(s):
                seen = (await app.get(task.uuid)).returning
                assert seen == record.returning
        s.probe.armed = False
        await finish(s)


async def retry(s: Scenario) -> None:
    """The original error stands, or the plugin decides."""
    app, behaviour = s.app, s.cell.behaviour
    async with app, serving(app):
        task = await s.add()
        record = await ended(app, task.uuid)
        if changes(s):
            assert_ran_as_replaced(s, record)
        else:
            assert (record.status, record.dead, record.attempt) == (ERROR, True, 1)
            assert "ValueError: the task's own error" in (record.traceback or "")
            assert len(s.ran) == 1
            noted = NAME in (record.traceback or "") and s.cell.trigger in (record.traceback or "")
            assert noted == (fails(s) or behaviour in CONTROLS)
        s.probe.armed = False
        await finish(s)


async def finishing(s: Scenario) -> None:
    """ERROR without the result, or the replaced one."""
    app, behaviour = s.app, s.cell.behaviour
    async with app, serving(app):
        task = await s.add()
        record = await ended(app, task.uuid)
        assert len(s.ran) == 1
        if fails(s) or behaviour in CONTROLS:
            assert (record.status, record.returning) == (ERROR, None)
            assert NAME in (record.traceback or "")
            assert s.cell.trigger in (record.traceback or "")
            assert "'ran'" not in (record.traceback or ""), "the unreplaced result leaked"
        else:
            assert_ran_as_replaced(s, record)
        s.probe.armed = False
        await finish(s)


async def client(s: Scenario) -> None:
    """Raised to the caller, or the replaced view; the record is untouched."""
    app, behaviour, trigger = s.app, s.cell.behaviour, s.cell.trigger
    s.probe.armed = False
    async with app, serving(app):
        task = await s.add()
        record = await ended(app, task.uuid)
        s.probe.armed = True

        async def ask() -> list[Any]:
            return (await app.get_all())[0] if trigger == "storage_get_all" else [await app.get(task.uuid)]

        if fails(s) or behaviour in CONTROLS:
            with pytest.raises(PluginError) as caught:
                await ask()
            assert (caught.value.plugin, caught.value.trigger) == (NAME, trigger)
            if behaviour == "exceeds plugin_timeout":
                assert isinstance(caught.value, PluginTimeoutError)
        else:
            (seen,) = await ask()
            how = changes(s)
            assert seen.uuid == task.uuid
            if how == "replaces":
                assert seen.returning == "new"
            elif how and trigger != "storage_get_all":
                assert seen.args == (7,)
            else:
                assert seen.returning == record.returning
        s.probe.armed = False
        assert (await app.get(task.uuid)).returning == record.returning
        await finish(s)


async def config(s: Scenario) -> None:
    """Raised to the caller, or the replaced value."""
    app, behaviour, trigger = s.app, s.cell.behaviour, s.cell.trigger
    shared = app.global_config
    async with app, serving(app):
        await shared.put("name", "key", "old")
        calls = {
            "global_config_set": lambda: shared.set("name", "key", "mine"),
            "global_config_get": lambda: shared.get("name", "key"),
            "global_config_get_all": lambda: shared.get_all("name"),
            "global_config_get_match": lambda: shared.get_match("name:*"),
        }
        if behaviour == "wrong shape" and trigger in ANY_VALUE:
            assert type(await calls[trigger]()).__name__ == "Unstorable"
        elif fails(s) or behaviour in CONTROLS:
            with pytest.raises(PluginError) as caught:
                await calls[trigger]()
            assert (caught.value.plugin, caught.value.trigger) == (NAME, trigger)
            assert (await shared.fetch("name", "key")).value == "old"
        else:
            got, how = await calls[trigger](), changes(s)
            if trigger == "global_config_set":
                name, key, value = {
                    "replaces": ("name2", "key2", "new"),
                    "partial": ("name", "key", "new"),
                }.get(how, ("name", "key", "mine"))
                assert (await shared.fetch(name, key)).value == value
                assert (await shared.fetch(name, key)).version == got
            else:
                assert got == CONFIG_VALUES[trigger][how]
        s.probe.armed = False
        await finish(s)


CONFIG_VALUES: dict[str, dict[str, Any]] = {
    "global_config_get": {"": "old", "replaces": "new", "partial": None},
    "global_config_get_all": {"": {"key": "old"}, "replaces": {"key": "new"}, "partial": {"key": "old", "more": 1}},
    "global_config_get_match": {
        "": {"name": {"key": "old"}}, "replaces": {"name": {"key": "new"}},
        "partial": {"name": {"key": "old"}, "more": {}},
    },
}  # fmt: skip


async def signal(s: Scenario) -> None:
    """Whatever the plugin does, the main logic goes on, with the plugin still in place."""
    app, trigger = s.app, s.cell.trigger
    lives = 2 if trigger.endswith(("_start", "_stop")) else 1  # what was stopped can be started again
    for _ in range(lives):
        async with app:
            task = await s.add()
            if trigger == "broker_running_older_tasks":
                await lose_a_worker(s)
            async with serving(app):
                record = await ended(app, task.uuid)
                assert (record.status, record.returning) == (
                    SUCCESS, {"ran": "work", "args": [1], "kw": {"x": 2}},
                )  # fmt: skip
                await finish(s)
                assert await app.ping() is True
                await app.storage.delete_finished_tasks()
                stats = await app.stats.inspect()
                assert stats.records["success"] >= 2
                await app.flush_all()
                assert sum((await app.storage.counts()).values()) == 0
                await finish(s)
                await s.probe.over.wait()
            await assert_quiet(app)
    assert s.ran == [("work", (1,), {"x": 2})] * lives


def check_following(s: Scenario) -> None:
    """The next trigger got what was replaced."""
    if s.cell.behaviour in ("replaces", "partial") and s.following:
        check_next(s.cell.trigger, s.cell.behaviour, s.following[0])


__all__ = ["EXTRA", "before_run", "client", "config", "finishing", "producer", "result", "retry", "signal"]
