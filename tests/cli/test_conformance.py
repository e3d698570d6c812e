"""`qtasks conformance`: a report without test files, exit codes, and nothing left behind."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qtasks.cli.commands import cli
from qtasks.testing.explain import explain
from tests.support.redis_server import RedisServer

MINE = """
from qtasks import hookimpl
from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.components.primitives import SettleVerdict

class Mine(MemoryStorage):
    async def settle_many(self, settles):
        await super().settle_many(settles)
        return [SettleVerdict.ACCEPTED for _ in settles]

def make_storage(like=None):
    return Mine(like.space if like else MemorySpace())

def make_good(like=None):
    return MemoryStorage(like.space if like else MemorySpace())

def make_broker(like=None):
    return MemoryBroker(like.space if like else MemorySpace())

def make_worker():
    from qtasks import Worker
    return Worker()

class Plug:
    @hookimpl
    def worker_start(self):
        return

plug = Plug()

class Forgets(MemoryGlobalConfig):
    async def fetch_all(self, name):
        return {key: item for key, item in (await super().fetch_all(name)).items() if key}

def make_config(like=None):
    return Forgets(like.space if like else MemorySpace())

def make_alone():
    return MemoryStorage()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def call(*args: str) -> Any:
    return CliRunner().invoke(cli, ["conformance", *args])


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"mine.py"}


def test_what_falls_short_is_told_with_id_and_advice(folder: Path) -> None:
    done = call(
        "storage",
        "mine:make_storage",
        "--check",
        "STORAGE-29",
        "--check",
        "STORAGE-30",
        "--check",
        "STORAGE-01",
    )
    assert done.exit_code == 1
    assert "Mine: StorageSuite, kit version 1" in done.stdout
    assert "STORAGE-30 falls short: " in done.stdout
    assert "What came: " in done.stdout
    assert "Check " in done.stdout
    assert "hold: STORAGE-01" in done.stdout
    assert left_in(folder) == set()


@pytest.mark.nightly
def test_a_state_machine_tells_its_shrunk_program(folder: Path) -> None:
    done = call("config", "mine:make_config", "--check", "CONFIG-70")
    assert done.exit_code == 1
    program = done.stdout.partition("CONFIG-70 falls short: ")[2]
    assert "state = " in program
    assert "state.teardown()" in program
    assert left_in(folder) == set()


def test_what_holds_ends_well_and_a_skip_names_the_capability(folder: Path) -> None:
    done = call(
        "storage", "mine:make_good", "--check", "STORAGE-01", "--check", "STORAGE-84", "--check", "STORAGE-74"
    )
    assert done.exit_code == 0, done.output
    assert "declares notifications, streams, colocated, virtual_clock" in done.stdout
    assert "skipped, needs durable: STORAGE-84" in done.stdout
    assert "skipped, only without streams: STORAGE-74" in done.stdout


def test_settings_of_the_environment_do_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DURABILITY", "fsync"), ("MAX_QUEUE", "1"), ("QUEUES", '["x"]')):
        monkeypatch.setenv(f"QTASKS_{name}", value)
    done = call("memory://", "--check", "STORAGE-100", "--check", "PAIRING-04", "--check", "PAIRING-18")
    assert done.exit_code == 0, done.output


def test_the_report_as_json(folder: Path) -> None:
    done = call("storage", "mine:make_storage", "--json", "--check", "STORAGE-30", "--check", "STORAGE-84")
    assert done.exit_code == 1
    (report,) = json.loads(done.stdout)
    assert (report["component"], report["conforms"], report["kit_version"]) == ("Mine", False, 1)
    assert report["counts"] == {"holds": 0, "falls short": 1, "skipped": 1, "expected": 0}
    short, skipped = report["checks"]
    assert (short["id"], short["verdict"]) == ("STORAGE-30", "falls short")
    assert short["told"]
    assert short["advice"].startswith("check ")
    assert skipped["capability"] == "durable"


def test_a_bare_assertion_is_told_with_its_values(folder: Path) -> None:
    (folder / "bare.py").write_text(
        "def check(given):\n    wanted = 7\n    assert (\n        given == wanted\n    )\n"
    )
    check = runpy.run_path(str(folder / "bare.py"))["check"]
    with pytest.raises(AssertionError) as caught:
        check(5)
    assert explain(caught.value) == "not so: given == wanted, with given = 5, wanted = 7"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nothing", "mine:make_good"), "there is no suite for 'nothing'"),
        (("storage",), "make_storage"),
        (("storage", "absent:make"), "cannot import 'absent'"),
        (("storage", "mine:absent"), "'mine' has no 'absent'"),
        (("storage", "mine"), "not a function"),
        (("storage", "mine:make_alone"), "like=None"),
        (("storage", "mine:make_broker"), "MemoryBroker, not a qtasks.Storage"),
        (("storage", "mine:make_good", "--check", "STORAGE-999"), "no check STORAGE-999"),
        (("app", "mine:make_worker"), "must take config"),
        (("worker", "memory://"), "a URL names no worker"),
        (("memory://", "more"), "one argument too many"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(folder: Path, args: tuple[str, ...], message: str) -> None:
    done = call(*args)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_component_without_a_store(folder: Path) -> None:
    done = call("worker", "mine:make_worker", "--check", "WORKER-01", "--check", "WORKER-90")
    assert done.exit_code == 0, done.output
    assert "Worker: WorkerSuite, kit version 1" in done.stdout
    assert "declares" not in done.stdout


@pytest.mark.parametrize("named", ["Plug", "plug"])
def test_a_plugin_by_its_class_or_itself(folder: Path, named: str) -> None:
    done = call("plugin", f"mine:{named}", "--check", "PLUGIN-01")
    assert done.exit_code == 0, done.output
    assert "hold: PLUGIN-01" in done.stdout


def test_a_server_that_is_away_is_no_failure_of_the_component(folder: Path) -> None:
    done = call("broker", "redis://127.0.0.1:1/0")
    assert done.exit_code == 3
    assert "127.0.0.1:1" in done.stderr


def test_a_file_that_is_named_is_neither_made_nor_touched(folder: Path) -> None:
    one_each = (
        "--check",
        "BROKER-01",
        "--check",
        "STORAGE-01",
        "--check",
        "CONFIG-01",
        "--check",
        "PAIRING-41",
    )
    assert call("sqlite:///new.db", *one_each).exit_code == 0
    assert left_in(folder) == set()
    (folder / "mine.db").write_bytes(b"not even a database")
    done = call("storage", "sqlite:///mine.db", "--check", "STORAGE-01")
    assert done.exit_code == 0, done.output
    assert (folder / "mine.db").read_bytes() == b"not even a database"
    assert left_in(folder) == {"mine.db"}


def test_interrupted_it_leaves_nothing(folder: Path) -> None:
    command = [sys.executable, "-B", "-m", "qtasks", "conformance", "storage", "sqlite:///new.db"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        while process.poll() is None and not list(folder.glob(".qtasks-conformance-*/*.db")):
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert left_in(folder) == set()


def test_interrupted_it_leaves_nothing_on_a_server(folder: Path) -> None:
    with RedisServer() as server, server.client(db=3) as client:
        command = [sys.executable, "-B", "-m", "qtasks", "conformance", "storage", server.url(3)]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            while process.poll() is None and not client.dbsize():
                os.sched_yield()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
        assert client.keys() == []


def test_a_server_keeps_all_it_had_and_nothing_more(folder: Path) -> None:
    with RedisServer() as server, server.client(db=3) as client:
        for app in ("kit", "kit-2", "a", "app"):
            client.hset(f"qtasks:{{{app}}}:rec", "uuid", "record")
            client.set(f"qtasks:{{{app}}}:epoch", 7)
        client.set("another program's", "data")
        before = {key: client.dump(key) for key in client.scan_iter()}
        checks = (
            "BROKER-40",
            "BROKER-57",
            "STORAGE-91",
            "STORAGE-92",
            "CONFIG-33",
            "PAIRING-19",
        )
        done = call(server.url(3), *(word for check in checks for word in ("--check", check)))
        assert done.exit_code == 0, done.output
        assert {key: client.dump(key) for key in client.scan_iter()} == before
