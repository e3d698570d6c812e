"""The commands in one process: what they write, and how they end."""

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
from qtasks.cli.exits import clean
from qtasks.hookspecs import MODULES
from qtasks.markers import trigger_of

Call = Callable[..., Any]
NO_SUCH = str(uuid4())


@pytest.fixture
def call(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Calls a command in the folder of the application."""
    monkeypatch.chdir(shop)
    monkeypatch.delenv("QTASKS_APP", raising=False)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield lambda *args, **more: CliRunner().invoke(cli, list(args), **more)
    sys.modules.pop("shop", None)


@pytest.fixture
def on_shop(call: Call) -> Call:
    """Calls a command with `-A shop:app`."""
    return lambda *args, **more: call("-A", "shop:app", *args, **more)


def test_a_task_that_is_not_declared_is_added_with_a_warning(on_shop: Call) -> None:
    added = on_shop("add", "ad", "1")
    assert added.exit_code == 0
    assert "no task is declared as 'ad' in this application (did you mean 'add'?)" in added.stderr
    assert on_shop("get", added.stdout.strip()).exit_code == 0
    assert on_shop("add", "add", "1").stderr == ""


def test_a_dry_run_of_a_task_that_is_not_declared_names_those_that_are(on_shop: Call) -> None:
    tried = on_shop("try", "ad", "1")
    assert tried.exit_code == 2
    assert "no task 'ad' (did you mean 'add'?)" in tried.stderr
    assert "it declares add, " in on_shop("try", "nothing-like-it").stderr


# --- Finding the application ----------------------------------------------------------------------


def test_the_application_is_named_by_option_environment_or_pyproject(
    call: Call, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = call("stats")
    assert nothing.exit_code == 2
    for way in ("qtasks -A module:app", "QTASKS_APP=module:app", '[tool.qtasks] app = "module:app"'):
        assert way in nothing.stderr
    (shop / "pyproject.toml").write_text('[tool.qtasks]\napp = "shop:app"\n')
    assert json.loads(call("stats", "--json").stdout)["app"]["name"] == "shop"
    monkeypatch.setenv("QTASKS_APP", "absent:app")
    assert "cannot import 'absent'" in call("stats").stderr
    assert call("-A", "shop", "stats").exit_code == 0


def test_a_blocking_application_will_do_too(call: Call, shop: Path) -> None:
    (shop / "blocking.py").write_text(
        'from qtasks.sync import QueueTasks\napp = QueueTasks("b", "memory://")\n'
    )
    assert json.loads(call("-A", "blocking:app", "stats", "--json").stdout)["app"]["name"] == "b"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-A", "shop:app", "add", "a"], ["add"]),
        (["-A", "absent:app", "add", "a"], []),
        (["triggers", "stats_"], ["stats_inspect"]),
        (["-A", "shop:app", "plugins", "explain", "qtasks_p"], ["qtasks_ping"]),
    ],
)
def test_the_shell_completes_names_of_tasks_and_triggers(
    call: Call, words: list[str], expected: list[str]
) -> None:
    line = {
        "_QTASKS_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["qtasks", *words]), "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    completed = call(env=line, prog_name="qtasks")
    assert completed.stdout.split() == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "absent:app",
            "cannot import 'absent' for -A absent:app: ModuleNotFoundError: No module named 'absent'",
        ),
        ("shop:absent", "'shop' has no 'absent'"),
        ("shop:not_an_app", "shop:not_an_app is a int, not a QueueTasks"),
        ("broken:app", "ZeroDivisionError: division by zero"),
        ("leaves:app", "SystemExit: 7"),
    ],
)
def test_a_wrong_application_is_one_line(call: Call, shop: Path, spec: str, message: str) -> None:
    (shop / "broken.py").write_text("app = 1 / 0\n")
    (shop / "leaves.py").write_text("raise SystemExit(7)\n")
    failed = call("-A", spec, "stats")
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_traceback_shows_where(call: Call, shop: Path) -> None:
    (shop / "broken.py").write_text("app = 1 / 0\n")
    failed = call("--traceback", "-A", "broken:app", "stats")
    assert failed.exit_code == 2
    assert "Traceback" in failed.stderr


@pytest.mark.parametrize("text", ["[tool.qtasks]\napp = 3", "not toml"])
def test_a_wrong_pyproject_is_named(call: Call, shop: Path, text: str) -> None:
    (shop / "pyproject.toml").write_text(text)
    failed = call("stats")
    assert failed.exit_code == 2
    assert "pyproject.toml" in failed.stderr


# --- Tasks ----------------------------------------------------------------------------------------


def test_add_run_get(on_shop: Call) -> None:
    added = on_shop("add", "add", "2", "-k", "b=40")
    assert added.exit_code == 0
    uuid = added.stdout.strip()
    waiting = json.loads(on_shop("get", uuid, "--json").stdout)
    assert (waiting["status"], waiting["args"], waiting["kwargs"]) == ("new", [2], {"b": 40})
    assert on_shop("run", "--until-idle").exit_code == 0
    assert json.loads(on_shop("get", uuid, "--json").stdout)["returning"] == 42
    shown = on_shop("get", uuid).stdout
    assert "returning     42" in shown


def test_arguments_are_json_or_else_text(on_shop: Call) -> None:
    added = on_shop(
        "add", "add", "[1, null]", "text", '"5"', "true", "--json", "--queue", "mail", "--priority", "3"
    )
    task = json.loads(added.stdout)
    assert task["args"] == [[1, None], "text", "5", True]
    assert (task["queue"], task["priority"]) == ("mail", 3)


def test_the_same_uuid_twice_is_harmless_and_another_task_a_conflict(on_shop: Call) -> None:
    assert (
        on_shop("add", "add", "1", "--uuid", NO_SUCH).stdout
        == on_shop("add", "add", "1", "--uuid", NO_SUCH).stdout
    )
    conflict = on_shop("add", "add", "2", "--uuid", NO_SUCH)
    assert conflict.exit_code == 1
    assert "another name, args or kwargs" in conflict.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["add", "no such name!", "1"], 1, "task name"),
        (["add", "add", "-k", "novalue"], 2, "NAME=VALUE"),
        (["add", "add", "--priority", "1000"], 1, "priority 1000 is no whole number"),
        (["add", "add", "--delay", "-1"], 1, "delay"),
        (["add", "add", "1", "--wait", "0.01"], 1, "did not finish"),
        (["get", NO_SUCH], 1, "no task has the uuid"),
        (["get", NO_SUCH, "--wait", "1"], 1, "no task has the uuid"),
        (["get", "junk"], 2, "UUID"),
        (["cancel", NO_SUCH], 1, "no task has the uuid"),
        (["dead", "replay", NO_SUCH], 1, "no finished task"),
        (["dead", "purge", NO_SUCH], 1, "not a dead letter"),
        (["dead", "purge"], 2, "give uuids, or --all"),
        (["plugins", "explain", "worker_ad"], 1, "did you mean 'worker_add'?"),
        (["run", "--queues", "a b"], 1, "queue name"),
        (["run", "--log-level", "loud"], 2, "--log-level"),
        (["run", "-p", "absent"], 1, "absent"),
        (["stars"], 2, "stars"),
    ],
)
def test_mistakes_are_told_in_a_line_and_an_exit_code(
    on_shop: Call, args: list[str], code: int, message: str
) -> None:
    failed = on_shop(*args)
    assert failed.exit_code == code, failed.output
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_store_that_cannot_be_opened_is_exit_code_3(call: Call, shop: Path) -> None:
    (shop / "shop.db").write_bytes(b"this is no database" * 1000)
    failed = call("-A", "shop:app", "stats")
    assert failed.exit_code == 3
    assert failed.stderr.startswith("error: ")


def test_cancel(on_shop: Call) -> None:
    uuid = on_shop("add", "add", "1").stdout.strip()
    assert on_shop("cancel", uuid, "--reason", "not needed").exit_code == 0
    assert json.loads(on_shop("get", uuid, "--json").stdout)["cancel_reason"] == "not needed"
    again = on_shop("cancel", uuid)
    assert (again.exit_code, again.stdout) == (1, "it had finished already\n")


def test_dead_letters_are_listed_replayed_and_purged(on_shop: Call) -> None:
    uuid = on_shop("add", "fail").stdout.strip()
    assert on_shop("run", "--until-idle", "--queues", "default,mail").exit_code == 0
    assert [task["uuid"] for task in json.loads(on_shop("dead", "list", "--json").stdout)] == [uuid]
    listed = on_shop("dead", "list").stdout
    assert "RuntimeError: no such \\x1b[31mluck" in listed
    replayed = json.loads(on_shop("dead", "replay", "--all", "--json").stdout)
    assert json.loads(on_shop("get", replayed[uuid], "--json").stdout)["replay_of"] == uuid
    assert on_shop("dead", "purge", "--all").stdout == "1 dead letters are gone\n"
    assert json.loads(on_shop("dead", "list", "--json").stdout) == []


def test_waiting_for_a_task_that_failed_is_exit_code_1(on_shop: Call) -> None:
    uuid = on_shop("add", "fail").stdout.strip()
    on_shop("run", "--until-idle", "--queues", "mail")
    assert on_shop("get", uuid).exit_code == 0
    waited = on_shop("get", uuid, "--wait", "5")
    assert waited.exit_code == 1
    assert "\x1b" not in waited.stdout


def test_flush_asks_first(on_shop: Call) -> None:
    on_shop("add", "add", "1")
    assert on_shop("flush", input="n\n").exit_code == 1
    assert json.loads(on_shop("stats", "--json").stdout)["records"]["new"] == 1
    assert on_shop("flush", "--yes").exit_code == 0
    assert json.loads(on_shop("stats", "--json").stdout)["records"]["new"] == 0


def test_nobody_answers_a_ping(on_shop: Call) -> None:
    silent = on_shop("ping", "--json")
    assert (silent.exit_code, json.loads(silent.stdout)) == (1, {"alive": False})


def test_stats_and_top_show_queues_and_tasks(on_shop: Call) -> None:
    on_shop("add", "add", "1")
    shown = on_shop("stats").stdout
    assert "Adds two numbers." in shown
    assert "The second line" not in shown
    top = on_shop("top", "--interval", "0.1")
    assert top.exit_code == 0
    assert "0.0 tasks/s  0.0 success/s, 0.0 error/s, 0.0 cancel/s\n1 new" in top.stdout
    assert "no worker is running: qtasks run" in top.stdout


# --- Plugins --------------------------------------------------------------------------------------


def test_triggers_need_no_application(call: Call) -> None:
    declared = {name for module in MODULES for name, value in vars(module).items() if trigger_of(value)}
    assert len(declared) == 52
    assert {trigger["name"] for trigger in json.loads(call("triggers", "--json").stdout)} == declared
    assert all(name in call("triggers").stdout for name in declared)
    one = call("triggers", "worker_add").stdout
    assert one.startswith("worker_add(worker, uuid, task_name, priority, args, kw, created_at)")
    assert "On failure:" in one
    assert "did you mean 'worker_add'?" in call("triggers", "worker_ad").stderr


def test_plugins_are_listed_and_explained(on_shop: Call) -> None:
    listed = json.loads(on_shop("plugins", "--json").stdout)
    assert [plugin["name"] for plugin in listed["plugins"]] == ["validation", "retry"]
    assert "validation" in on_shop("plugins").stdout
    (link,) = json.loads(on_shop("plugins", "explain", "task_executor_args_replace", "--json").stdout)
    assert (link["position"], link["plugin"]) == (1, "validation")
    assert "in the tryfirst group" in on_shop("plugins", "explain", "task_executor_args_replace").stdout
    assert on_shop("plugins", "explain", "worker_add").stdout == "no plugin implements worker_add\n"


def test_a_plugin_can_be_kept_out_of_a_run(on_shop: Call) -> None:
    uuid = on_shop("add", "add", "2", "3", "surplus").stdout.strip()
    on_shop("run", "--until-idle", "-p", "no:validation")
    assert "TypeError" in json.loads(on_shop("get", uuid, "--json").stdout)["traceback"]


# --- Help -----------------------------------------------------------------------------------------


def test_help_names_all_commands_and_exit_codes(call: Call) -> None:
    shown = call("--help").stdout
    for name in [
        "run",
        "add",
        "get",
        "cancel",
        "ping",
        "stats",
        "flush",
        "triggers",
        "top",
        "demo",
        "dead",
        "plugins",
    ]:
        assert f" {name} " in shown
    assert "130 interrupted" in shown


def test_version(call: Call) -> None:
    assert call("--version").stdout.startswith("qtasks ")


def test_clean_escapes_what_a_terminal_would_obey() -> None:
    assert clean("a\x1b[2J\x07\r\x9b\u202eé\n\t") == "a\\x1b[2J\\x07\\r\\x9b\\u202eé\n\t"
