"""What is written of a task: results, tracebacks, names and reasons, also hostile ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from qtasks.app import QueueTasks
from qtasks.context import TaskContext
from qtasks.errors import EncodeError, InvalidNameError, TaskCancelError
from qtasks.markers import hookimpl
from qtasks.schemas import TaskStatusEnum, TaskStatusSuccessSchema

from ..apps import alive, ended, make_app, stored

SUCCESS, ERROR, CANCEL = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL
HOSTILE = "nul\0 bell\a line\nbreak \x1b[31m \ud800 \u202e { } [ ] * ? ` ' \" \\ ﷽"


class Opaque:
    """Has no JSON form."""

    def __repr__(self) -> str:
        return "<opaque>"


@pytest.mark.parametrize("value", [Opaque(), [1, {"deep": Opaque()}], {"lone": "\ud800"}, float])
async def test_a_result_that_cannot_be_written(app: QueueTasks, value: Any) -> None:
    """ERROR at once, naming the culprit; the code is not run again, though it has retries left."""
    runs = []

    @app.task(name="work", retry=3, retry_delay=0.01)
    async def work() -> Any:
        runs.append(1)
        return value

    async with alive(app):
        record = await ended(app, (await app.add_task("work")).uuid)
        assert (record.status, record.returning, record.dead) == (ERROR, None, True)
        assert "EncodeError" in (record.traceback or "")
    assert runs == [1]


async def test_a_result_that_is_too_large(backend: str, tmp_path: Path) -> None:
    """The same, naming the limit; one that just fits is kept."""
    app = make_app(backend, tmp_path, max_payload=2000)
    runs = []

    @app.task(name="work", retry=3, retry_delay=0.01)
    async def work(size: int) -> str:
        runs.append(1)
        return "x" * size

    async with alive(app):
        record = await ended(app, (await app.add_task("work", args=(1999,))).uuid)
        assert (record.status, record.returning) == (ERROR, None)
        assert "max_payload (2000)" in (record.traceback or "")
        record = await ended(app, (await app.add_task("work", args=(1998,))).uuid)
        assert (record.status, record.returning) == (SUCCESS, "x" * 1998)
    assert runs == [1, 1]


class Taints:
    """Puts a value without a JSON form into a field of what is written."""

    def __init__(self, trigger: str, field: str) -> None:
        self.trigger = trigger
        self.field = field

    def _model(self, trigger: str, model: Any) -> Any:
        bad = {"args": (Opaque(),), "kwargs": {"x": Opaque()}, "extra": {"x": Opaque()}}
        return replace(model, **{self.field: bad[self.field]}) if trigger == self.trigger else None

    @hookimpl
    def worker_remove_finished_task(self, model: Any) -> Any:
        changed = self._model("worker_remove_finished_task", model)
        return None if changed is None else {"model": changed}

    @hookimpl
    def broker_remove_finished_task(self, model: Any) -> Any:
        return self._model("broker_remove_finished_task", model)

    @hookimpl
    def worker_task_error_retry(self, model: Any) -> Any:
        return self._model("worker_task_error_retry", model)

    @hookimpl
    def worker_execute_before(self, model: Any) -> Any:
        return self._model("worker_execute_before", model)


@pytest.mark.parametrize("field", ["args", "kwargs", "extra"])
@pytest.mark.parametrize("trigger", ["worker_remove_finished_task", "broker_remove_finished_task"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_plugin_that_leaves_what_cannot_be_written(
    app: QueueTasks, trigger: str, field: str, fails: bool
) -> None:
    """That task ends in ERROR, and the results of its neighbours in the same batch are written."""

    @app.task(name="work")
    async def work(value: int) -> int:
        if fails:
            raise ValueError("secret plaintext")
        return value

    @app.task(name="other")
    async def other(value: int) -> int:
        return value

    class OnlyWork(Taints):
        def _model(self, trigger: str, model: Any) -> Any:
            return super()._model(trigger, model) if model.task_name == "work" else None

    app.add_plugin(OnlyWork(trigger, field), name="taints")
    async with app:
        tasks = [await app.add_task(name, args=(n,)) for n in range(4) for name in ("work", "other")]
    async with alive(app):
        for number, task in enumerate(tasks):
            record = await ended(app, task.uuid)
            assert record.status is (SUCCESS if number % 2 else ERROR)
            assert record.returning == (number // 2 if number % 2 else None)


@pytest.mark.parametrize("trigger", ["worker_task_error_retry", "worker_execute_before"])
async def test_a_plugin_that_leaves_what_cannot_be_written_before_the_end(
    app: QueueTasks, trigger: str
) -> None:
    """In the fields of a retry, or of a start: the task comes to its end, and the worker lives."""

    @app.task(name="work", retry=1, retry_delay=0.01)
    async def work() -> None:
        raise ValueError("always")

    app.add_plugin(Taints(trigger, "extra"), name="taints")
    async with alive_without(app, "taints"):
        record = await ended(app, (await app.add_task("work")).uuid)
        assert record.status is ERROR


def alive_without(app: QueueTasks, plugin: str) -> Any:
    """As `alive`, for a plugin that would not let the canary live either."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def run() -> Any:
        async with alive(app):
            yield
            app.pm.unregister(plugin)

    return run()


async def test_a_long_traceback_is_cut_in_its_middle(backend: str, tmp_path: Path) -> None:
    """Both ends matter: where it began, and what was raised."""
    app = make_app(backend, tmp_path, max_traceback=1000)

    @app.task(name="work")
    async def work() -> None:
        raise ValueError("first " + "é" * 50_000 + " last")

    async with alive(app):
        record = await ended(app, (await app.add_task("work")).uuid)
        trace = record.traceback or ""
        assert len(trace.encode()) <= 1000
        assert trace.startswith("Traceback")
        assert " last" in trace[-10:]
        assert "(cut)" in trace


async def test_a_traceback_begins_with_the_code_of_the_task(app: QueueTasks) -> None:
    """The frames of the worker tell nobody anything; the chain of causes is kept."""

    @app.task(name="work")
    async def work() -> None:
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("effect") from error

    async with alive(app):
        trace = (await ended(app, (await app.add_task("work")).uuid)).traceback or ""
        assert "task_executor.py" not in trace
        assert trace.index("KeyError: 'cause'") < trace.index("ValueError: effect")


class BadStr(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


@pytest.mark.parametrize("error", [ValueError(HOSTILE), BadStr(), ExceptionGroup("g", [ValueError(HOSTILE)])])
async def test_hostile_errors(app: QueueTasks, error: Exception) -> None:
    """Whatever the message is made of, or if there is none."""

    @app.task(name="work")
    async def work() -> None:
        raise error

    async with alive(app):
        record = await ended(app, (await app.add_task("work")).uuid)
        assert record.status is ERROR
        assert type(error).__name__ in (record.traceback or "")


@pytest.mark.parametrize("way", ["a client, waiting", "a client, running", "the task", "a plugin"])
async def test_hostile_reasons(app: QueueTasks, way: str) -> None:
    """A reason for a cancel is any text."""
    import asyncio

    running = asyncio.Event()

    class Vetoes:
        @hookimpl
        def worker_add(self, task_name: str) -> None:
            if way == "a plugin" and task_name == "work":
                raise TaskCancelError(HOSTILE)

    @app.task(name="work", echo=True)
    async def work(context: TaskContext) -> None:
        if way == "the task":
            context.cancel(HOSTILE)
        running.set()
        await asyncio.Event().wait()

    app.add_plugin(Vetoes(), name="vetoes")
    async with alive(app):
        if way == "a client, waiting":
            task = await app.add_task("work", delay=600)
            await app.cancel(task.uuid, HOSTILE)
        else:
            task = await app.add_task("work")
            if way == "a client, running":
                await running.wait()
                await app.cancel(task.uuid, HOSTILE)
        record = await ended(app, task.uuid)
        assert record.status is CANCEL
        assert (record.cancel_reason or "").startswith("nul")


@pytest.mark.parametrize("value", ["nul\0", "line\nbreak", "\x1b[31m", "\u202e", "{tag}", "*?[a]\\`'\""])
async def test_hostile_values_are_only_values(app: QueueTasks, value: str) -> None:
    """In arguments, keys, extra, results and the unique key."""

    @app.task(name="work")
    async def work(*args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    async with alive(app):
        task = await app.add_task(
            "work", args=(value,), kwargs={value: value}, extra={value: value}, unique_key=value
        )
        record = await ended(app, task.uuid)
        assert record.returning == [[value], {value: value}]
        assert record.extra == {value: value, "unique_key": value}
        seen = await app.get(task.uuid)
        assert seen is not None
        assert (seen.args, seen.kwargs) == ((value,), {value: value})


@pytest.mark.parametrize("value", ["\ud800", {"k": "\udfff"}, {"\ud800": 1}])
async def test_a_lone_surrogate_is_refused(app: QueueTasks, value: Any) -> None:
    """It has no JSON form: the caller is told, nothing is stored."""
    async with alive(app):
        for options in ({"args": (value,)}, {"extra": {"x": value}}):
            with pytest.raises(EncodeError):
                await app.add_task("work", **options)
        with pytest.raises(EncodeError):
            await app.add_task("work", unique_key="\ud800")
        assert sum((await app.storage.counts()).values()) == 0


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a\0", "é", "a" * 201, "\x1b[31m", "a{b}"])
async def test_names_outside_their_grammar(app: QueueTasks, name: str) -> None:
    """They are refused where they come in, so no log line and no key ever has them."""
    async with alive(app):
        for call in ({"task_name": name}, {"task_name": "work", "queue": name}):
            with pytest.raises(InvalidNameError) as caught:
                await app.add_task(**call)
            assert "\n" not in str(caught.value)
            assert "\x1b" not in str(caught.value)


async def test_log_lines_stay_lines(app: QueueTasks, caplog: pytest.LogCaptureFixture) -> None:
    """A control character in what a task or a plugin says does not write a line of its own into the log."""

    class Fails:
        @hookimpl
        def worker_remove_finished_task(self, model: Any) -> None:
            if isinstance(model, TaskStatusSuccessSchema) and model.task_name == "work":
                raise ValueError("fine\nCRITICAL forged \x1b[31m")

    @app.task(name="work")
    async def work() -> None: ...

    app.add_plugin(Fails(), name="fails")
    caplog.set_level(logging.INFO)
    async with alive(app):
        await ended(app, (await app.add_task("work")).uuid)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("qtasks")]
    assert any("forged" in line for line in lines)
    assert not [line for line in lines if "\nCRITICAL" in line or "\x1b" in line]


# --- Identity (R9), and plugins that change what they were given ---------------------------------


@pytest.mark.parametrize(
    "trigger", ["storage_get", "broker_get", "worker_run_task_before", "worker_remove_finished_task"]
)
async def test_no_plugin_swaps_a_task_for_another(app: QueueTasks, trigger: str) -> None:
    """R9: another uuid is a wrong return, and the other task is untouched."""
    other = UUID(int=1)

    class Swaps:
        @hookimpl
        def storage_get(self, result: Any) -> Any:
            return replace(result, uuid=other) if trigger == "storage_get" else None

        @hookimpl
        def broker_get(self, task: Any) -> Any:
            return replace(task, uuid=other) if trigger == "broker_get" else None

        @hookimpl
        def worker_run_task_before(self, task_broker: Any) -> Any:
            return (
                {"task_broker": replace(task_broker, uuid=other)}
                if trigger == "worker_run_task_before"
                else None
            )

        @hookimpl
        def worker_remove_finished_task(self, task_broker: Any) -> Any:
            if trigger != "worker_remove_finished_task":
                return None
            return {"task_broker": replace(task_broker, uuid=other)}

    @app.task(name="work")
    async def work() -> None: ...

    app.add_plugin(Swaps(), name="swaps")
    async with app:
        await app.add_task("work", uuid=other, delay=600)
    async with alive_without(app, "swaps"):
        record = await ended(app, (await app.add_task("work")).uuid)
        assert (record.status, record.dead) == (ERROR, True)
        assert "plugin 'swaps'" in (record.traceback or "")
        assert trigger in (record.traceback or "")
        untouched = await stored(app, other)
        assert untouched is not None
        assert (untouched.status, untouched.deliveries) == (TaskStatusEnum.NEW, 0)
        await app.cancel(other)


async def test_a_plugin_that_changes_what_it_was_given(app: QueueTasks) -> None:
    """Rule 12: neither the caller's containers nor the stored record are reached by it."""

    class Mutates:
        @hookimpl
        def qtasks_add_task_before_broker(
            self, task_name: str, kw: dict[str, Any], extra: dict[str, Any]
        ) -> None:
            if task_name != "work":
                return
            kw["by"] = "plugin"
            extra["by"] = "plugin"

        @hookimpl
        def worker_add(self, task_name: str, kw: dict[str, Any]) -> None:
            if task_name == "work":
                kw["injected"] = True

        @hookimpl
        def broker_get(self, task: Any) -> None:
            if task.task_name == "work":
                task.kwargs["seen"] = True

    @app.task(name="work")
    async def work(**kwargs: Any) -> None: ...

    app.add_plugin(Mutates(), name="mutates")
    given: dict[str, Any] = {"a": [1]}
    extra: dict[str, Any] = {"b": [2]}
    async with alive(app):
        task = await app.add_task("work", kwargs=given, extra=extra, uuid=uuid4())
        assert (given, extra) == ({"a": [1]}, {"b": [2]})
        await ended(app, task.uuid)
        record = await stored(app, task.uuid)
        assert record is not None
        assert "injected" not in record.kwargs
