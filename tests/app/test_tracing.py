"""The trace of a task: what it has, where it is kept, when it is gone, and what it keeps out."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from qtasks import QueueTasks, TaskCancelError, TaskDefer, TaskRequest, hookimpl
from qtasks.inmemory import memory_app, run_until_idle, set_clock
from qtasks.plugins.encryption import EncryptionPlugin
from qtasks.testing import VirtualClock
from qtasks.trace import LONGEST, MOST, REDACTED, Change, Trace, TraceRecorder
from qtasks.tracing import PUT_BACK
from tests.app.conftest import MakeApp


class Marks:
    qtasks_name = "marks"
    __version__ = "1.2"

    @hookimpl
    def broker_add_before(self, model):
        return dataclasses.replace(model, priority=3)

    @hookimpl
    async def task_executor_args_replace(self, args, kw):
        return tuple(arg.title() for arg in args), None

    @hookimpl
    def worker_execute_after(self):
        raise RuntimeError("no\x1b[31m luck")


def declared(app: QueueTasks) -> QueueTasks:
    @app.task(name="greet")
    async def greet(name: str) -> str:
        return f"Hello, {name}!"

    @app.task(name="flaky", retry=1, retry_delay=0.001, retry_jitter=0)
    async def flaky() -> str:
        if not app.tasks["flaky"].extra.pop("ran", None):
            app.tasks["flaky"].extra["ran"] = True
            raise ValueError("the first time")
        return "the second time"

    return app


async def traced(
    app: QueueTasks, name: str = "greet", args: tuple[Any, ...] = ("ada",), **options: Any
) -> Trace:
    """The trace of a task that was added and run here."""
    async with app:
        task = await app.add_task(name, args=args, trace=True, **options)
        await app.serve(until_idle=True)
        found = await task.trace()
    assert found is not None
    return found


async def test_it_has_every_call_on_both_sides_also_after_the_settle(make_app: MakeApp) -> None:
    app = declared(make_app(plugins=[Marks()]))
    recorder = TraceRecorder()
    app.pm.add_observer(recorder, idle=True)
    found = await traced(app)
    assert [part.side for part in found.parts] == ["producer", "worker"]
    assert found.parts[1].outcome == "success"
    recorded = [(call.trigger, call.plugin, call.changes) for call in recorder.calls(found.uuid)]
    assert [(call.trigger, call.plugin, call.changes) for call in found.calls] == recorded
    assert [call.trigger for call in found.calls][-2:] == [
        "storage_remove_finished_task",
        "worker_execute_after",
    ]
    by_plugin = {(call.trigger, call.plugin): call for call in found.calls}
    added = by_plugin["broker_add_before", "marks"]
    assert (added.version, added.changes) == ("1.2", (Change("model.priority", "0", "3"),))
    assert by_plugin["task_executor_args_replace", "marks"].changes == (Change("args[0]", "'ada'", "'Ada'"),)
    assert by_plugin["task_executor_args_replace", "validation"].version is not None
    failed = by_plugin["worker_execute_after", "marks"]
    assert "no\\x1b[31m luck" in str(failed.error)
    assert failed.seconds > 0


async def test_another_process_reads_it_and_it_is_json(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    found = await traced(declared(QueueTasks(url=url)))
    async with QueueTasks(url=url) as other:
        assert await other.trace(found.uuid) == found
    data = json.loads(json.dumps(found.to_dict()))
    assert data["uuid"] == str(found.uuid)
    assert data["parts"][0]["calls"][0]["trigger"] == "qtasks_add_task_before_broker"


async def test_each_delivery_is_a_part() -> None:
    found = await traced(declared(QueueTasks(url="memory://")), "flaky", ())
    assert [(part.attempt, part.outcome) for part in found.parts] == [(0, ""), (0, "retry"), (1, "success")]
    assert "worker_task_error_retry" in [call.trigger for call in found.parts[1].calls]


async def test_control_flow_is_traced() -> None:
    class Gate:
        steps: list[Exception] = [TaskDefer(0.001), TaskCancelError("closed")]  # noqa: RUF012

        @hookimpl
        def worker_execute_before(self):
            raise self.steps.pop(0)

    found = await traced(declared(QueueTasks(url="memory://", plugins=[Gate()])))
    assert [part.outcome for part in found.parts] == ["", "release", "cancel"]
    errors = [call.error for call in found.calls if call.plugin == "Gate"]
    assert [str(error).partition(":")[0] for error in errors] == ["TaskDefer", "TaskCancelError"]


async def test_of_a_task_that_is_put_back_again_and_again_a_few_parts_are_kept(make_app: MakeApp) -> None:
    class Gate:
        waits = 50

        @hookimpl
        def worker_execute_before(self):
            self.waits -= 1
            if self.waits >= 0:
                raise TaskDefer(0.001)

    found = await traced(declared(make_app(plugins=[Gate()])))
    began = [part.began for part in found.parts]
    assert [part.outcome for part in found.parts] == ["", *["release"] * PUT_BACK, "success"]
    assert began == sorted(began)


async def test_only_what_is_asked_for_is_traced(make_app: MakeApp) -> None:
    app = declared(make_app())
    async with app:
        plain = await app.add_task("greet", args=("ada",))
        traced, untraced = await app.add_tasks(
            [
                TaskRequest(task_name="greet", args=("b",), extra={"qtasks.trace": flag})
                for flag in (True, False)
            ]
        )
        await app.serve(until_idle=True)
        assert await plain.trace() is None
        assert await untraced.trace() is None
        assert await traced.trace() is not None


@pytest.mark.parametrize("by_setting", [True, False])
async def test_all_tasks_but_those_that_say_no(monkeypatch: pytest.MonkeyPatch, by_setting: bool) -> None:
    if by_setting:
        monkeypatch.setenv("QTASKS_TRACE", "1")
    app = declared(QueueTasks(url="memory://", trace=None if by_setting else True))
    async with app:
        every = await app.add_task("greet", args=("ada",))
        no = await app.add_task("greet", args=("bob",), trace=False)
        await app.serve(until_idle=True)
        assert len((await every.trace() or Trace(every.uuid, ())).parts) == 2
        assert await no.trace() is None


async def test_a_client_that_reads_the_task_is_not_in_it() -> None:
    class Looks:
        @hookimpl
        async def worker_execute_before(self, worker, task_broker):
            await asyncio.create_task(worker.app.get(task_broker.uuid), context=outside)

    import contextvars

    outside = contextvars.copy_context()
    found = await traced(declared(QueueTasks(url="memory://", plugins=[Looks()])))
    assert [call.trigger for call in found.calls].count("storage_get") == 1


# --- How long it is kept --------------------------------------------------------------------------


async def test_it_is_gone_with_its_task(make_app: MakeApp) -> None:
    app = declared(make_app())
    async with app:
        task = await app.add_task("greet", args=("ada",), trace=True)
        other = await app.add_task("greet", args=("bob",), trace=True)
        await app.serve(until_idle=True)
        assert await app.delete([task.uuid]) == [True]
        assert await task.trace() is None
        assert await other.trace() is not None
        await app.flush_all()
        assert await other.trace() is None
        assert await app.global_config.match("qtasks.trace:*") == {}


async def test_it_expires_with_its_task() -> None:
    clock = VirtualClock()
    app = declared(memory_app(clock=clock))
    async with app:
        task = await app.add_task("greet", args=("ada",), trace=True, delay=30 * 86_400)
        clock.advance(20 * 86_400)
        assert await task.trace() is not None, "it is gone before its task has run"
        await run_until_idle(app, clock)
        clock.advance(app.config.result_ttl - 1)
        assert len((await task.trace() or Trace(task.uuid, ())).parts) == 2
        clock.advance(2)
        assert await task.trace() is None
        assert await app.global_config.match("qtasks.trace:*") == {}


async def test_a_refused_task_leaves_nothing() -> None:
    class Refuses:
        @hookimpl
        def broker_add_before(self):
            raise TaskCancelError("no")

    app = declared(QueueTasks(url="memory://", plugins=[Refuses()]))
    uuid = UUID(int=7)
    async with app:
        with pytest.raises(TaskCancelError):
            await app.add_task("greet", uuid=uuid, trace=True)
        assert await app.trace(uuid) is None


async def test_a_trace_that_cannot_be_kept_costs_the_task_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        @hookimpl
        def global_config_set(self):
            raise OSError("full")

    app = declared(QueueTasks(url="memory://", plugins=[Full()]))
    async with app:
        task = await app.add_task("greet", args=("ada",), trace=True)
        await app.serve(until_idle=True)
        assert (await task.wait_result()).returning == "Hello, ada!"
        assert await task.trace() is None
    assert f"a part of the trace of task {task.uuid} is not kept" in caplog.text


# --- What it keeps out ----------------------------------------------------------------------------


async def test_with_encryption_it_has_no_values(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    app = declared(
        QueueTasks(url=f"sqlite:///{path}", plugins=[Marks(), EncryptionPlugin([EncryptionPlugin.new_key()])])
    )
    found = await traced(app, args=("topsecret",))
    assert "opsecret" not in json.dumps(found.to_dict())
    for file in tmp_path.iterdir():
        assert b"opsecret" not in file.read_bytes()
    changes = [change for call in found.calls for change in call.changes]
    assert Change("model.priority", "0", "3") in changes
    assert {change.after for change in changes if "args" in change.path} == {REDACTED}
    assert {call.error for call in found.calls if call.error} == {f"PluginError: {REDACTED}"}


@dataclasses.dataclass
class Patient:
    name: str
    notes: dict[str, int]


class Renames:
    """Changes fields and keys that belong to values, and look like those of a task."""

    qtasks_name = "renames"

    @hookimpl
    def qtasks_add_task_before_broker(self, kw):
        return {"kw": {**kw, "topsecret": 1}}

    @hookimpl
    def task_executor_run_task(self, result):
        return dataclasses.replace(result, name="topsecret", notes={"topsecret": 1, **result.notes})


async def test_values_that_look_like_a_task_and_keys_of_dicts_are_kept_out_too(make_app: MakeApp) -> None:
    app = make_app(plugins=[Renames()], trace_values="none")

    @app.task(name="admit")
    async def admit(**patient: Any) -> Patient:
        return Patient("topsecret already", {})

    found = await traced(app, "admit", args=())
    assert "topsecret" not in json.dumps(found.to_dict())
    paths = {change.path for call in found.calls for change in call.changes}
    assert {"kw[…]", "result.name", "result.notes[…]"} <= paths


async def test_what_is_kept_of_one_call_is_bounded(make_app: MakeApp) -> None:
    class Doubles:
        qtasks_name = "doubles"

        @hookimpl
        def task_executor_run_task(self, result):
            return {key: value + 1 for key, value in result.items()}

    app = make_app(plugins=[Doubles()])

    @app.task(name="many")
    async def many() -> dict[str, int]:
        return {"key" * 1000 + str(number): number for number in range(5000)}

    found = await traced(app, "many", args=())
    (changes,) = (call.changes for call in found.calls if call.changes)
    assert len(changes) == MOST + 1
    assert changes[-1].path == "(more changes)"
    assert max(len(change.path) for change in changes) <= LONGEST


@pytest.mark.parametrize(("values", "shown"), [("all", True), ("none", False)])
async def test_whether_values_are_kept_can_be_said(make_app: MakeApp, values: str, shown: bool) -> None:
    found = await traced(declared(make_app(plugins=[Marks()], trace_values=values)))
    assert ("'Ada'" in json.dumps(found.to_dict())) is shown


async def test_an_application_may_say_what_is_kept_out() -> None:
    app = declared(QueueTasks(url="memory://", plugins=[Marks()]))
    app.tracer.redact = lambda trigger, path: path.startswith("args")
    found = await traced(app)
    assert "'Ada'" not in json.dumps(found.to_dict())
    assert any(call.error and "luck" in call.error for call in found.calls)


# --- What it costs --------------------------------------------------------------------------------


async def test_untraced_tasks_are_not_told_of_while_another_is_traced() -> None:
    app = declared(QueueTasks(url="memory://"))
    told: list[UUID | None] = []
    asked = [False]
    app.pm.add_observer(lambda call: told.append(call.uuid), idle=True, when=lambda: asked[0])
    async with app:
        await app.add_task("greet", args=("ada",))
        assert told == []
        asked[0] = True
        task = await app.add_task("greet", args=("bob",))
        assert set(told) == {task.uuid}
        asked[0] = False
        count = len(told)
        await app.serve(until_idle=True)
        assert len(told) == count


async def test_observers_everywhere_and_now_and_then_are_each_told_once() -> None:
    app = declared(QueueTasks(url="memory://", plugins=[Marks()]))
    everywhere, now = TraceRecorder(), TraceRecorder()
    app.pm.add_observer(everywhere)
    app.pm.add_observer(now, idle=True, when=lambda: True)
    async with app:
        task = await app.add_task("greet", args=("ada",))
    seen = [call.trigger for call in now.calls(task.uuid)]
    assert seen == [
        "qtasks_add_task_before_broker", "broker_add_before", "storage_add", "broker_add_after",
        "qtasks_add_task_after_broker",
    ]  # fmt: skip
    assert [call.trigger for call in everywhere.calls(task.uuid)] == ["broker_add_before"]
    app.pm.remove_observer(now)


def test_the_clock_of_the_parts_is_the_applications() -> None:
    clock = VirtualClock(5.0)
    app = declared(QueueTasks(url="memory://"))
    set_clock(app, clock)
    found = asyncio.run(traced(app))
    assert {(part.began, part.ended) for part in found.parts} == {(5.0, 5.0)}
