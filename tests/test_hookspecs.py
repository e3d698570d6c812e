"""The hookspecs are the trigger table, documented, tested, and what `pm.hook` is typed with."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mypy import api as mypy

from qtasks.hookspecs import MODULES
from qtasks.hookspecs.fields import PROTECTED, task_fields
from qtasks.manager import PluginManager
from qtasks.markers import trigger_of
from tools.relay import TARGET, declared, source

TABLE: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "data" / "triggers.toml").read_text(encoding="utf-8")
)
SPECS: dict[str, Callable[..., Any]] = {function.__name__: function for _, function in declared()}
SECTIONS = ("Fires:", "Parameters:", "Replaces:", "On failure:", "Example:")


def section(trigger: str, name: str) -> str:
    """One section of the documentation of a trigger."""
    text = inspect.getdoc(SPECS[trigger]) or ""
    found = re.search(rf"^{name}\n((?:    .*\n|\n)+)", text + "\n", re.MULTILINE)
    return found.group(1) if found else ""


def test_there_are_52_triggers_in_the_order_of_the_table() -> None:
    assert len(TABLE) == 52
    assert list(SPECS) == list(TABLE)
    assert sorted(PluginManager().triggers) == sorted(TABLE)


@pytest.mark.parametrize("trigger", TABLE)
def test_a_hookspec_is_what_the_table_says(trigger: str) -> None:
    row, declaration = TABLE[trigger], trigger_of(SPECS[trigger])
    assert declaration is not None
    assert list(declaration.params) == row["params"]
    assert list(declaration.replaces) == row["replaces"]
    assert declaration.shape == row.get("returns")
    assert SPECS[trigger].__module__ == f"qtasks.hookspecs.{row['component']}"
    assert "uuid" not in declaration.replaces
    assert set(SPECS[trigger].__annotations__) == {*row["params"], "return"}


@pytest.mark.parametrize("trigger", TABLE)
def test_a_trigger_is_documented(trigger: str) -> None:
    text = inspect.getdoc(SPECS[trigger]) or ""
    assert text.startswith(TABLE[trigger]["purpose"])
    for name in SECTIONS:
        assert len(section(trigger, name).split()) >= 2, f"{trigger} has no section {name!r}"
    for param in TABLE[trigger]["params"]:
        assert re.search(rf"^    {param}: \S", section(trigger, "Parameters:"), re.MULTILINE), param
    for param in TABLE[trigger]["replaces"]:
        assert f"`{param}`" in section(trigger, "Replaces:")


@pytest.mark.parametrize("trigger", TABLE)
def test_the_example_of_a_trigger_can_be_registered(trigger: str) -> None:
    """It compiles, implements the trigger, and passes the checks of registration."""
    example = inspect.cleandoc(section(trigger, "Example:"))
    pm = PluginManager()
    from qtasks.markers import hookimpl

    namespace: dict[str, Any] = {"hookimpl": hookimpl}
    exec(compile(example, f"<example of {trigger}>", "exec"), namespace)
    plugin = type("Example", (), {trigger: staticmethod(namespace[trigger])})()
    assert pm.plugins() == []
    pm.register(plugin, name="example")
    assert [info.triggers for info in pm.plugins()] == [(trigger,)]


def test_each_trigger_has_a_test_named_after_it() -> None:
    found = {
        name
        for path in (Path(__file__).parent / "hookspecs").glob("test_*.py")
        for name in re.findall(r"^async def test_(\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == set(TABLE)


def test_control_flow_is_allowed_in_replacements_before_the_run_only() -> None:
    allowed = {name for name, function in SPECS.items() if (it := trigger_of(function)) and it.control_flow}
    producers = {"qtasks_add_task_before_broker", "broker_add_before", "storage_add"}
    worker = {
        "storage_get",
        "broker_get",
        "storage_running_older_tasks",
        "storage_add_process",
        "broker_add_worker",
        "worker_add",
        "worker_execute_before",
        "broker_update",
        "storage_update",
        "worker_run_task_before",
        "task_executor_args_replace",
    }
    assert allowed == producers | worker
    defers = {name for name, function in SPECS.items() if (it := trigger_of(function)) and it.defers}
    assert defers == producers


def test_work_goes_on_at_stops_and_after_the_fact() -> None:
    goes_on = {name for name, function in SPECS.items() if (it := trigger_of(function)) and it.must_go_on}
    assert goes_on == {name for name in TABLE if name.endswith("_stop")} | {
        "qtasks_add_task_after_broker",
        "broker_add_after",
        "worker_execute_after",
        "storage_remove_finished_task",
    }


def test_the_fields_that_may_be_updated_are_those_of_a_task() -> None:
    fields = task_fields()
    assert set(PROTECTED) < set(fields)
    assert {"priority", "extra", "progress", "available_at"} < set(fields)


def test_every_module_has_a_purpose() -> None:
    assert all((module.__doc__ or "").startswith("The triggers of") for module in MODULES)


# --- The typed relay ----------------------------------------------------------------------------


def test_the_relay_is_what_the_hookspecs_say() -> None:
    # Compared as syntax, so that the test does not need the formatter.
    written = ast.dump(ast.parse(TARGET.read_text(encoding="utf-8")))
    assert written == ast.dump(ast.parse(source())), "run `python -m tools.relay`"


GOOD = """
from uuid import UUID
from qtasks.components.broker import Broker
from qtasks.components.storage import Storage
from qtasks.manager import PluginManager
from qtasks.schemas import TaskStatusNewSchema

async def fire(pm: PluginManager, broker: Broker, storage: Storage, uuid: UUID, model: TaskStatusNewSchema) -> None:
    new: TaskStatusNewSchema = await pm.hook.broker_add_before(
        broker=broker, storage=storage, uuid=uuid, model=model
    )
    await pm.hook.broker_add_after(broker=broker, storage=storage, uuid=uuid, model=new)
"""
WRONG = {
    "trigger": ("pm.hook.broker_add_before", "pm.hook.broker_ad_before", "attr-defined"),
    "argument": ("uuid=uuid, model=model", "uid=uuid, model=model", "call-arg"),
    "type of an argument": ("uuid=uuid, model=model", "uuid=str(uuid), model=model", "arg-type"),
    "result": ("new: TaskStatusNewSchema", "new: int", "assignment"),
}


def test_mypy_catches_a_wrong_trigger_argument_and_result(tmp_path: Path) -> None:
    files = {"good": GOOD}
    for name, (old, new, _) in WRONG.items():
        assert GOOD.count(old) == 1
        files[name.replace(" ", "_")] = GOOD.replace(old, new)
    for name, text in files.items():
        (tmp_path / f"snippet_{name}.py").write_text(text, encoding="utf-8")
    paths = [str(tmp_path / f"snippet_{name}.py") for name in files]
    out, err, _ = mypy.run(["--strict", "--follow-imports=silent", "--no-error-summary", *paths])
    assert err == ""
    # Relative or absolute, as mypy likes.
    errors = [line.rpartition("snippet_")[2] for line in out.splitlines() if ": error:" in line]
    assert not [line for line in errors if line.startswith("good")]
    for name, (_, _, code) in WRONG.items():
        assert any(line.startswith(name.replace(" ", "_")) and f"[{code}]" in line for line in errors), (
            name,
            out,
        )
