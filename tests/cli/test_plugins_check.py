"""`qtasks plugins check`: what the plugins of an application fall short of, and whose order matters."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qtasks.cli.commands import cli

SITE = """
from qtasks import QueueTasks, hookimpl

app = QueueTasks("site", "sqlite:///site.db")


@app.task(name="greet")
async def greet(name: str) -> str:
    return f"Hello, {name}!"


class Upper:
    @hookimpl
    def task_executor_run_task(self, result):
        return result.upper() if isinstance(result, str) else None


class Signs:
    @hookimpl
    def task_executor_run_task(self, result):
        return f"{result} (signed)" if isinstance(result, str) else None


class InPlace:
    @hookimpl
    def broker_add_before(self, model):
        model.extra["seen"] = True


class GreetsOnly:
    @hookimpl
    def task_executor_run_task(self, task_func, result):
        return result.strip() if task_func.name == "greet" else None


for name, plugin in {"upper": Upper(), "signs": Signs(), "in-place": InPlace(), "greets": GreetsOnly()}.items():
    app.add_plugin(plugin, name=name)
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "checked_site.py").write_text(SITE)
    yield lambda *args: CliRunner().invoke(cli, ["-A", "checked_site:app", "plugins", "check", *args])
    sys.modules.pop("checked_site", None)


def test_all_plugins_of_the_application(check: Callable[..., Any], tmp_path: Path) -> None:
    done = check()
    assert done.exit_code == 1
    assert "validation: all 17 checks hold" in done.stdout
    assert "PLUGIN-22 falls short: It changes nothing that it was given in place" in done.stdout
    assert (
        "upper and signs do not commute on task_executor_run_task: only registration orders them"
        in done.stdout
    )
    assert "upper, then signs: result=' (signed)'" in done.stdout
    assert "signs, then upper: result=' (SIGNED)'" in done.stdout
    assert not (tmp_path / "site.db").exists(), "the application's own queue was touched"


def test_some_plugins_as_json_and_strict(check: Callable[..., Any]) -> None:
    done = check("upper", "signs", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert {name: report["conforms"] for name, report in said["plugins"].items()} == {
        "upper": True,
        "signs": True,
    }
    (pair,) = said["order_matters"]
    assert (pair["first"], pair["second"], pair["declared"]) == ("upper", "signs", False)
    assert check("upper", "signs", "--strict").exit_code == 1
    assert check("upper", "--strict").exit_code == 0


def test_examples_may_be_about_a_task_of_the_application(check: Callable[..., Any]) -> None:
    assert check("greets").exit_code == 0
    done = check("greets", "--task", "greet")
    assert done.exit_code == 1
    assert "has no attribute 'strip'" in done.stdout


@pytest.mark.parametrize(
    ("args", "told"), [(["absent"], "no plugin absent"), (["--task", "absent"], "no task 'absent'")]
)
def test_what_is_not_there_is_named(check: Callable[..., Any], args: list[str], told: str) -> None:
    done = check(*args)
    assert done.exit_code == 2
    assert told in done.stderr
