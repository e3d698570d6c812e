"""The suite of a plugin: plugins pass it, broken ones do not, and what is told of them helps."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtasks import PluginManager, QueueTasks, TaskRejected, current_task, hookimpl, hookspec
from qtasks.plugins.retry import RetryPlugin
from qtasks.plugins.validation import ValidationPlugin
from qtasks.testing import KitFailure, PluginSuite, check_plugin, recorder, run_check, trigger_values
from tests.conformance.plugin_mutants import MUTANTS


class TestRetry(PluginSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return RetryPlugin


@pytest.mark.parametrize(
    "plugin", [ValidationPlugin, partial(recorder, "worker", "storage")], ids=["validation", "a listener"]
)
def test_a_sound_plugin_passes(plugin):
    check_plugin(plugin)


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_broken_plugin_is_seen(name):
    check, broken = MUTANTS[name]
    with pytest.raises(AssertionError, match=f"^{check}: ") as caught:
        await run_check(PluginSuite, check, broken)
    assert any(
        note.startswith(f"{check}: ") and "If this fails, check" in note for note in caught.value.__notes__
    )


def test_every_check_sees_something():
    assert {check for check, _ in MUTANTS.values()} == {each.id for each in PluginSuite.checks()}


class Shouts:
    @hookimpl
    def task_executor_args_replace(self, args, kw):
        return tuple(arg.upper() for arg in args), None


def test_check_plugin_tells_everything_with_the_smallest_example():
    with pytest.raises(KitFailure) as caught:
        check_plugin(Shouts())
    told = str(caught.value)
    assert "falls short of 1 checks" in told
    assert "PLUGIN-21: plugin 'Shouts' failed in trigger 'task_executor_args_replace'" in told
    assert "args=(None,), kw={}" in told
    assert "If this fails, check that it takes arguments and results of any JSON" in told


async def test_check_plugin_may_be_called_from_a_coroutine():
    check_plugin(RetryPlugin())


def test_what_falls_short_on_purpose():
    check_plugin(Shouts, expected_failures={"PLUGIN-21": "made for text"})
    with pytest.raises(KitFailure, match=r"PLUGIN-24: .*holds now"):
        check_plugin(Shouts, expected_failures={"PLUGIN-21": "made for text", "PLUGIN-24": "they think"})


def test_control_flow_is_no_failure():
    class Vetoes:
        @hookimpl
        def qtasks_add_task_before_broker(self, args):
            if len(args) > 1:
                raise TaskRejected("one argument, no more")

    check_plugin(Vetoes)


def test_a_plugin_with_its_own_name_and_tasks():
    app = QueueTasks(url="memory://")

    @app.task(name="measure")
    async def measure(path: str) -> dict[str, int]:
        return {"size": 1}

    class Only:
        seen: ClassVar[set[str]] = set()

        @hookimpl
        def worker_run_task_before(self, task_func):
            self.seen.add(task_func.name)

    check_plugin(Only, name="only", tasks=[measure])
    assert Only.seen >= {"measure"}


# --- The strategies -------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", PluginManager().triggers)
def test_every_trigger_can_be_fired_with_examples(trigger):
    app = QueueTasks(url="memory://")
    app.task(name="t")(lambda: None)
    specs = app.pm.triggers[trigger]

    @settings(max_examples=5)
    @given(trigger_values(trigger, app))
    def look(values: dict[str, Any]) -> None:
        assert tuple(values) == specs.params
        uuids = {
            value.uuid if hasattr(value, "uuid") else value
            for name, value in values.items()
            if name in ("uuid", "task", "task_broker")
        }
        assert len(uuids) <= 1

    look()


def test_a_third_partys_trigger_needs_a_strategy():
    class Own:
        @hookspec(replaces=("amount",), returns="value")
        def invoice_before(self, customer: str, amount: int) -> int | None:
            """Replaces the amount of an invoice."""

    app = QueueTasks(url="memory://")
    app.pm.add_hookspecs(Own)
    with pytest.raises(LookupError, match="'customer'"):
        trigger_values("invoice_before", app)
    strategy = trigger_values("invoice_before", app, more={"customer": st.just("ada"), "amount": st.just(3)})
    assert str(strategy)


def test_the_values_of_one_example_belong_together():
    app = QueueTasks(url="memory://")
    app.task(name="t")(lambda: None)

    @settings(max_examples=10)
    @given(trigger_values("worker_execute_before", app))
    def look(values: dict[str, Any]) -> None:
        assert values["task_broker"].args == values["model"].args
        assert values["task_func"].name == values["model"].task_name == "t"
        assert dataclasses.is_dataclass(values["model"])

    look()


def test_the_kit_is_not_imported_by_the_core():
    code = (
        "import sys, qtasks, qtasks.cli.commands; qtasks.QueueTasks; "
        "print({'pytest', 'hypothesis'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_plugin_has_the_running_task_where_the_worker_has_it():
    class Opens:
        closed: ClassVar[list[Any]] = []

        @hookimpl
        def task_executor_run_task(self, task_broker):
            context = current_task()
            assert context.uuid == task_broker.uuid
            context.resources.callback(self.closed.append, context.uuid)

    check_plugin(Opens)
    assert Opens.closed
