"""`qtasks trace` and `qtasks try`: what was fired for a task, and what would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from qtasks.cli.commands import cli

SITE = """
from qtasks import QueueTasks, TaskRejected, TaskRequest, hookimpl
import dataclasses

app = QueueTasks("site", "sqlite:///site.db")


@app.task(name="greet", retry=1, retry_delay=3600.0)
async def greet(name: str) -> str:
    open("ran", "w").close()
    return f"Hello, {name}!"


class Polite:
    qtasks_name = "polite"

    @hookimpl
    def task_executor_args_replace(self, args, kw):
        return tuple(arg.title() for arg in args), None

    @hookimpl
    def task_executor_run_task(self, result):
        return f"{result} Please." if result else None


class Guard:
    qtasks_name = "guard"

    @hookimpl
    def broker_add_before(self, model):
        if model.args == ("mallory",):
            raise TaskRejected("not \\x1b[31mthis one")


app.add_plugin(Polite())
app.add_plugin(Guard())
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "seen_site.py").write_text(SITE)
    yield lambda *args: CliRunner().invoke(cli, ["-A", "seen_site:app", *args])
    sys.modules.pop("seen_site", None)


# --- trace ----------------------------------------------------------------------------------------


def test_the_trace_of_a_task(call: Callable[..., Any]) -> None:
    uuid = call("add", "greet", "ada", "--trace").stdout.strip()
    assert call("run", "--until-idle").exit_code == 0
    shown = call("trace", uuid)
    assert shown.exit_code == 0
    for words in (
        f"greet {uuid}: success", "producer", "attempt 1: success", "polite", "args[0]: 'ada' → 'Ada'",
        "result: 'Hello, Ada!' → 'Hello, Ada! Please.'", "(no plugin) storage_add_process",
    ):  # fmt: skip
        assert words in shown.stdout
    assert "(no plugin)" not in call("trace", uuid, "--plugins-only").stdout
    said = json.loads(call("trace", uuid, "--json").stdout)
    assert (said["uuid"], [part["side"] for part in said["parts"]]) == (uuid, ["producer", "worker"])
    assert said["parts"][1]["calls"][-1]["trigger"] == "worker_execute_after"


def test_a_task_without_a_trace(call: Callable[..., Any]) -> None:
    for uuid in (call("add", "greet", "ada").stdout.strip(), str(uuid4())):
        none = call("trace", uuid)
        assert (none.exit_code, none.stdout) == (1, "")
        assert "qtasks add --trace" in none.stderr


# --- try ------------------------------------------------------------------------------------------


def test_a_dry_run_does_not_run_the_code_nor_touch_the_queue(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    tried = call("try", "greet", "ada", "--result", '"Hello"')
    assert tried.exit_code == 0, tried.stderr
    for words in (
        "greet ends in success: returning 'Hello Please.'",
        "args[0]: 'ada' → 'Ada'",
        "was not run",
    ):
        assert words in tried.stdout
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "site.db").exists()


def test_the_code_is_run_if_asked_for(call: Callable[..., Any], tmp_path: Path) -> None:
    tried = call("try", "greet", "ada", "--run", "--json")
    assert tried.exit_code == 0
    assert json.loads(tried.stdout)["task"]["returning"] == "Hello, Ada! Please."
    assert (tmp_path / "ran").exists()
    assert not (tmp_path / "site.db").exists()


def test_what_is_different_without_a_plugin(call: Callable[..., Any]) -> None:
    tried = call("try", "greet", "ada", "--result", '"Hello"', "--without", "polite")
    assert "-greet ends in success: returning 'Hello Please.'" in tried.stdout
    assert "+greet ends in success: returning 'Hello'" in tried.stdout
    sys.modules.pop("seen_site")  # a process of its own has all plugins again
    both = json.loads(call("try", "greet", "ada", "--without", "polite", "--json", "--result", '"x"').stdout)
    assert (both["with"]["task"]["returning"], both["without"]["task"]["returning"]) == ("x Please.", "x")


def test_failures_and_refusals(call: Callable[..., Any]) -> None:
    failed = call("try", "greet", "ada", "--fail", "no luck")
    assert failed.exit_code == 1
    assert "greet ends in error: RuntimeError: no luck" in failed.stdout
    assert "attempt 2: error" in failed.stdout, "the retry an hour later is part of it"
    refused = call("try", "greet", "mallory")
    assert refused.exit_code == 1
    assert "refused: TaskRejected: not \\x1b[31mthis one" in refused.stdout
    assert "guard" in refused.stdout


def test_what_cannot_be_tried(call: Callable[..., Any]) -> None:
    for args in (["absent"], ["greet", "--without", "absent"], ["greet", "--run", "--fail", "x"]):
        assert call("try", *args).exit_code == 2
