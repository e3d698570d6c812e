"""compat: plugins written for QTasks 1.x run unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qtasks import PluginError, QueueTasks, Task, TaskStatusEnum
from qtasks.plugins.compat import CompatPlugin, install_imports
from qtasks.plugins.compat.table import INSIDE, PASSED
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins import compat_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import count, kill, said, workers_up


class Recorder:
    """A global plugin in the style of 1.x: it gets every trigger."""

    def __init__(self) -> None:
        self.name = "recorder"
        self.calls: list[tuple[str, list[str]]] = []

    async def start(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append(("start", []))

    async def stop(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append(("stop", []))

    async def trigger(self, name: str, **kwargs: Any) -> dict[str, Any] | None:
        self.calls.append((name, sorted(kwargs)))
        return None

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls if name != "global_config_set_status"]


class Handlers:
    """A plain (not async) plugin in the style of 1.x, with a handler for each of its triggers."""

    def __init__(self, **handlers: Callable[..., Any]) -> None:
        self.name = None
        self.handlers = handlers

    def start(self, *args: Any, **kwargs: Any) -> None: ...

    def stop(self, *args: Any, **kwargs: Any) -> None: ...

    def trigger(self, name: str, **kwargs: Any) -> Any:
        handler = self.handlers.get(name)
        return handler(**kwargs) if handler else None


def make(**handlers: Callable[..., Any]) -> QueueTasks:
    """An application with one 1.x plugin, registered for the triggers of its handlers."""
    app = QueueTasks(url="memory://")
    app.pm.block("validation")
    app.add_plugin(CompatPlugin(Handlers(**handlers), trigger_names=list(handlers)))

    @app.task(name="echo")
    async def echo(*args: Any, **kw: Any) -> Any:
        return [*args, kw]

    @app.task(name="numbers")
    def numbers(upto: int) -> Iterator[int]:
        yield from range(upto)

    @app.task(name="fails")
    async def fails() -> None:
        raise ValueError("no")

    return app


async def run(app: QueueTasks, name: str = "echo", *args: Any, **kw: Any) -> Task:
    async with working(app):
        return await (await app.add_task(name, args=args, kwargs=kw)).wait_result(10)


# --- What is called, and with what ----------------------------------------------------------------


async def test_a_global_plugin_gets_every_trigger_with_the_arguments_of_1x() -> None:
    recorder = Recorder()
    app = QueueTasks(url="memory://")
    app.add_plugin(CompatPlugin(recorder))

    @app.task(name="echo")
    async def echo(word: str) -> str:
        return word

    await run(app, "echo", "a")
    kwargs = dict(recorder.calls)
    for trigger in recorder.names:
        if trigger in PASSED and trigger != "task_executor_middlewares_execute":
            assert kwargs[trigger] == sorted(word.partition("=")[0] for word in PASSED[trigger].split()), (
                trigger
            )
    start, stop = recorder.names.index("start"), recorder.names.index("stop")
    assert (start, stop) == (0, len(recorder.names) - 1)
    executed = [name for name in recorder.names if name.startswith("task_executor")]
    assert executed == [
        "task_executor_middlewares_execute", "task_executor_args_replace", "task_executor_before_execute",
        "task_executor_run_task", "task_executor_middlewares_execute", "task_executor_after_execute",
        "task_executor_after_execute_result_replace", "task_executor_decode", "task_executor_task_close",
    ]  # fmt: skip


async def test_a_global_plugin_of_one_component_gets_its_triggers_only() -> None:
    recorder = Recorder()
    app = make()
    app.add_plugin(CompatPlugin(recorder, component="broker"))
    await run(app)
    assert {name.partition("_")[0] for name in recorder.names} == {"broker", "start", "stop"}


def test_every_trigger_of_the_table_is_one() -> None:
    triggers = QueueTasks(url="memory://").pm.triggers
    assert PASSED.keys() == triggers.keys()
    assert set(INSIDE.values()) <= PASSED.keys()
    for trigger, words in PASSED.items():
        if trigger != "task_executor_middlewares_execute":
            new_names = {word.partition("=")[2] or word for word in words.split()}
            assert new_names <= set(triggers[trigger].params), trigger


@pytest.mark.parametrize(
    ("options", "words"),
    [({"trigger_names": ["broker_ad_before"]}, "broker_ad_before"), ({"component": "boker"}, "boker")],
)
def test_a_wrong_name_is_an_error(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CompatPlugin(Recorder(), **options)


# --- What it may change ---------------------------------------------------------------------------


async def test_args_and_kw_of_a_call() -> None:
    def replace_args(task_executor: Any, args: list[Any], kw: dict[str, Any], args_info: list[Any]) -> Any:
        assert task_executor.task_func.name == task_executor.task_broker.name == "echo"
        args.append(2)  # in place
        return {"kw": {**kw, "b": 3}}

    done = await run(make(task_executor_args_replace=replace_args), "echo", 1, a=1)
    assert done.returning == [1, 2, {"a": 1, "b": 3}]
    assert (done.args, done.kwargs) == ((1,), {"a": 1})


async def test_the_parameters_of_a_function() -> None:
    seen: list[Any] = []

    def look(task_executor: Any, args: Any, kw: Any, args_info: list[Any]) -> None:
        seen.extend(
            (meta.name, meta.annotation, meta.raw_type, meta.is_kwarg, meta.index, meta.key, meta.value)
            for meta in args_info
        )

    app = make(task_executor_args_replace=look)

    @app.task(name="typed")
    async def typed(a: int, b: list[int], c=3, *rest: Any, d: str = "d") -> None: ...  # type: ignore[no-untyped-def]

    await run(app, "typed", 1, [2])
    assert seen == [
        ("a", int, int, False, 0, None, None), ("b", list[int], list, False, 1, None, None),
        ("c", None, None, True, None, "c", 3), ("d", str, str, True, None, "d", "d"),
    ]  # fmt: skip


async def test_the_components_have_the_calls_of_1x() -> None:
    seen: list[Any] = []

    class Asks(Recorder):
        async def trigger(self, name: str, **kwargs: Any) -> dict[str, Any] | None:
            if name == "storage_add":
                storage = kwargs["storage"]
                seen.append(
                    (name, len(await storage.get_all()), await storage.get(kwargs["uuid"]), storage.app_name)
                )
            elif kwargs["task_name"] == "echo":
                broker = kwargs["broker"]
                found = await broker.get(uuid=str(kwargs["uuid"]))
                new = await broker.add(task_name="numbers", priority=1, extra={"source": "ada"}, args=(1,))
                seen.append((name, found.task_name, new.source, new.priority, broker.app_name))
            return None

    app = make()
    app.add_plugin(CompatPlugin(Asks(), ["broker_add_worker", "storage_add"]))
    await run(app)
    assert seen == [  # the call returns after the task that it added has passed the triggers
        ("storage_add", 0, None, "qtasks"), ("storage_add", 1, None, "qtasks"),
        ("broker_add_worker", "echo", "ada", 1, "qtasks"),
    ]  # fmt: skip


async def test_the_producer_and_what_extra_becomes() -> None:
    seen: list[Any] = []

    def before(qtasks: Any, broker: Any, task_name: str, priority: int, args: Any, kw: Any) -> Any:
        return {"args": (*args, "added"), "priority": 5, "extra": {"tenant": "ada"}}

    def add_before(broker: Any, storage: Any, model: Any) -> Any:
        assert json.loads(model.args) == ["a", "added"]
        assert model.tenant == "ada"
        model.stamp = 7  # an attribute that the schema does not have, set in place
        return None

    def execute_before(worker: Any, task_func: Any, task_broker: Any, model: Any) -> Any:
        seen.append((model.tenant, model.stamp, model.status, json.loads(model.args), task_broker.args))
        return None

    app = make(
        qtasks_add_task_before_broker=before,
        broker_add_before=add_before,
        worker_execute_before=execute_before,
    )
    done = await run(app, "echo", "a")
    assert (done.args, done.priority, done.extra) == (("a", "added"), 5, {"tenant": "ada", "stamp": 7})
    assert seen == [("ada", 7, "process", ["a", "added"], ["a", "added"])]


async def test_models_of_results() -> None:
    def finished(worker: Any, broker: Any, task_func: Any, task_broker: Any, model: Any) -> Any:
        assert json.loads(model.returning) == [1, {}]
        model.returning = json.dumps({"was": json.loads(model.returning)})
        return {"model": model}

    done = await run(make(worker_remove_finished_task=finished), "echo", 1)
    assert (done.returning, done.status) == ({"was": [1, {}]}, TaskStatusEnum.SUCCESS)
    assert done.args == (1,)


async def test_a_model_that_the_plugin_made_itself() -> None:
    install_imports()
    from qtasks.schemas.task_status import TaskStatusErrorSchema  # type: ignore[import-not-found]

    def finished(broker: Any, storage: Any, model: Any) -> Any:
        made = TaskStatusErrorSchema(
            task_name=model.task_name,
            priority=3,
            traceback="made up",
            created_at=model.created_at,
            updated_at=1.0,
        )
        made.retry_child_uuid = "x"
        return {"model": made}

    done = await run(make(broker_remove_finished_task=finished), "echo", 1, a=2)
    assert (done.status, done.traceback, done.priority) == (TaskStatusEnum.ERROR, "made up", 3)
    assert (done.args, done.kwargs, done.extra) == ((1,), {"a": 2}, {"retry_child_uuid": "x"})


async def test_results_on_their_way() -> None:
    def run_task(task_executor: Any, result: Any) -> Any:
        return {"result": [*result, "run"]}

    def replaced(task_executor: Any, result: Any) -> Any:
        return {"result": [*result, "replaced"]}

    def decoded(task_executor: Any, result: str) -> Any:
        return {"result": json.dumps([*json.loads(result), "decoded"])}

    app = make(
        task_executor_run_task=run_task, task_executor_after_execute_result_replace=replaced,
        task_executor_decode=decoded,
    )  # fmt: skip
    assert (await run(app)).returning == [{}, "run", "replaced", "decoded"]


async def test_a_result_of_none_is_one() -> None:
    done = await run(make(task_executor_run_task=lambda task_executor, result: {"result": None}))
    assert (done.status, done.returning) == (TaskStatusEnum.SUCCESS, None)


async def test_generators() -> None:
    def run_gen(task_executor: Any, results: list[Any]) -> Any:
        results.append("last")  # in place

    done = await run(make(task_executor_run_task_gen=run_gen), "numbers", 2)
    assert done.returning == [0, 1, "last"]


async def test_reading() -> None:
    def read(storage: Any, result: Any) -> Any:
        result.returning = "read"
        result.seen = True
        return {"result": result}

    def read_all(storage: Any, results: list[Any]) -> Any:
        return {"results": [each for each in results if each.task_name != "fails"]}

    app = make(storage_get=read, storage_get_all=read_all)
    async with working(app):
        done = await (await app.add_task("echo")).wait_result(10)
        await (await app.add_task("fails")).wait_result(10)
        assert (done.returning, done.extra) == ("read", {"seen": True})
        assert [task.task_name for task in (await app.get_all())[0]] == ["echo"]


async def test_handing_over_and_updates() -> None:
    updates: list[dict[str, Any]] = []

    def handed(args: list[Any], kw: dict[str, Any], **_rest: Any) -> Any:
        return {"args": [*args, "handed"], "uuid": "is not replaced", "priority": None}

    def added(args: list[Any], **rest: Any) -> Any:
        return {"name": "numbers", "args": [3]} if args == [1, "handed"] else None

    def update(broker: Any, kw: dict[str, Any]) -> Any:
        updates.append(kw)
        return {"kw": {**kw, "mapping": {**kw["mapping"], "extra": {"host": "h"}}}}

    app = make(broker_add_worker=handed, worker_add=added, broker_update=update)
    done = await run(app, "echo", 1)
    assert (done.returning, done.extra) == ([0, 1, 2], {"host": "h"})
    assert updates[0]["name"] == f"qtasks:{done.uuid}"


async def test_the_cache_of_a_plugin() -> None:
    seen: list[Any] = []

    def cached(args: Any, plugin_cache: Any = None, **_rest: Any) -> Any:
        seen.append(plugin_cache)
        return {"plugin_cache": (plugin_cache or 0) + 1}

    app = make(task_executor_args_replace=cached)
    async with working(app):
        for _ in range(3):
            await (await app.add_task("echo")).wait_result(10)
    assert seen == [None, 1, 2]


async def test_named_plugins_come_before_global_ones() -> None:
    order: list[str] = []

    def note(who: str) -> Callable[..., Any]:
        def handler(**_kwargs: Any) -> None:
            order.append(who)

        return handler

    app = make()
    app.add_plugin(CompatPlugin(Handlers(worker_add=note("global")), name="global"))
    app.add_plugin(CompatPlugin(Handlers(worker_add=note("named")), ["worker_add"], name="named"))
    await run(app)
    assert order == ["named", "global"]


# --- Failures -------------------------------------------------------------------------------------


async def test_a_plugin_that_raises_follows_the_rules_of_qtasks_unless_it_is_isolated_as_in_1x() -> None:
    def raising(**_kwargs: Any) -> None:
        raise RuntimeError("broken")

    app = make(broker_add_before=raising)
    async with app:
        with pytest.raises(PluginError, match="broken"):
            await app.add_task("echo")
    app = make()
    plugin = CompatPlugin(Handlers(broker_add_before=raising), ["broker_add_before"], name="old")
    app.add_plugin(plugin, on_error="isolate")
    assert (await run(app)).status is TaskStatusEnum.SUCCESS
    assert app.pm.errors["old", "broker_add_before"] == 1


async def test_a_return_that_is_no_dict_is_named() -> None:
    app = make(broker_add_before=lambda **_kwargs: "text")
    async with app:
        with pytest.raises(PluginError, match="a dict or None from 'broker_add_before', not 'text'"):
            await app.add_task("echo")


def test_the_plugin_holds_what_a_plugin_has_to() -> None:
    names = ["broker_add_before", "task_executor_args_replace", "worker_remove_finished_task"]
    check_plugin(lambda: CompatPlugin(Recorder(), names))


@pytest.mark.nightly
def test_a_global_plugin_holds_it_at_every_trigger() -> None:
    check_plugin(lambda: CompatPlugin(Recorder()))


# --- Two workers, one of which is killed ----------------------------------------------------------


async def test_two_workers_one_of_which_is_killed(redis_url: str, start_workers: StartWorkers) -> None:
    """A 1.x plugin rewrites arguments and results in whichever worker runs the task; each starts and stops it."""
    app = compat_site.make(redis_url)
    async with app:
        workers = start_workers(compat_site)
        await workers_up(app, 2)
        task = await app.add_task("greet", args=("ada",), kwargs={"fatal": True})
        killed = await said(workers, "greet began")
        await kill(killed)
        done = await task.wait_result(20)
        (other,) = (worker for worker in workers if worker is not killed)
        assert done.returning == {"text": "hello ADA", "pid": other.process.pid, "by": "shout"}
        assert done.extra == {"shouted": True}
    other.process.terminate()
    assert await said([other], "shout stopped")
    assert count(workers, "shout started") == 2
