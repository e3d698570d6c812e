"""`qtasks run` as real processes: signals, several processes, reload."""

from __future__ import annotations

import json
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import WAIT, Running, run, running
from tests.support.redis_server import RedisServer

SHOP = ("-A", "shop:app")


def add(shop: Path, *args: str) -> str:
    done = run(shop, *SHOP, "add", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def result(shop: Path, uuid: str) -> dict[str, object]:
    done = run(shop, *SHOP, "get", uuid, "--wait", "20", "--json")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def result_of(folder: Path, app: str, uuid: str) -> list[str]:
    done = run(folder, "-A", app, "get", uuid, "--json")
    found: list[str] = json.loads(done.stdout)["returning"]
    return found


def pids(command: Running) -> list[int]:
    return [int(pid) for pid in re.findall(r"is pid (\d+)", command.output)]


def gone(pid: int) -> bool:
    """Whether a process ends in time; it closes its output a little earlier."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], WAIT)[0])
    finally:
        os.close(descriptor)


def test_until_idle_runs_what_there_is_and_logs_a_line_per_task(shop: Path) -> None:
    uuid = add(shop, "add", "777001", "777002")
    done = run(shop, *SHOP, "run", "--until-idle")
    assert (done.returncode, done.stdout) == (0, "")
    lines = [line for line in done.stderr.splitlines() if "qtasks.task" in line]
    assert len(lines) == 1
    assert f"INFO qtasks.task add {uuid} success in " in lines[0]
    assert "777001" not in done.stderr  # arguments are never logged
    assert result(shop, uuid)["returning"] == 1554003


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_finish(shop: Path, number: signal.Signals) -> None:
    uuid = add(shop, "long", "0.5")
    with running(shop, *SHOP, "run") as worker:
        worker.wait_for(lambda line: line == "long began")
        assert run(shop, *SHOP, "ping").stdout == "pong\n"
        worker.signal(number)
        assert worker.wait() == 0
        assert "Traceback" not in worker.output
    assert result(shop, uuid)["returning"] == "slept"
    assert run(shop, *SHOP, "ping").returncode == 1


def test_a_second_signal_ends_it_at_once(shop: Path) -> None:
    add(shop, "long", "60")
    with running(shop, *SHOP, "run") as worker:
        worker.wait_for(lambda line: line == "long began")
        worker.signal(signal.SIGINT)
        worker.wait_for(lambda line: "shutting down" in line)
        worker.signal(signal.SIGINT)
        assert worker.wait() == 130
        assert "Traceback" not in worker.output


def test_several_processes_end_together(shop: Path) -> None:
    uuid = add(shop, "long", "0.3")
    with running(shop, *SHOP, "run", "--processes", "2") as family:
        family.wait_for(lambda line: line == "long began")
        family.signal(signal.SIGTERM)
        assert family.wait() == 0
        assert "Traceback" not in family.output
        assert len(pids(family)) == 2
        assert all(map(gone, pids(family))), family.output
    assert result(shop, uuid)["returning"] == "slept"


def test_a_lost_process_is_replaced(shop: Path) -> None:
    uuid = add(shop, "crash")
    with running(shop, *SHOP, "run", "--processes", "2", QTASKS_LEASE="1") as family:
        family.wait_for(lambda line: "was ended by SIGKILL; another one starts" in line)
        family.wait_for(lambda line: "is pid" in line, 3)
        assert result(shop, uuid)["returning"] in pids(family)
        family.signal(signal.SIGINT)
        assert family.wait() == 0


def test_processes_end_with_a_parent_that_is_killed(shop: Path) -> None:
    with running(shop, *SHOP, "run", "--processes", "2") as family:
        family.wait_for(lambda line: "is pid" in line, 2)
        add(shop, "long", "0.1")
        family.wait_for(lambda line: line == "long began")
        family.signal(signal.SIGKILL)
        family.wait()  # its output ends when the last of them has ended
        assert all(map(gone, pids(family))), family.output


def test_processes_end_when_all_is_idle(shop: Path) -> None:
    uuid = add(shop, "add", "1")
    assert run(shop, *SHOP, "run", "--processes", "2", "--until-idle").returncode == 0
    assert result(shop, uuid)["returning"] == 2


def test_a_client_that_waits_is_told_by_another_process(shop: Path) -> None:
    uuid = add(shop, "long", "0.3")
    with running(shop, *SHOP, "get", uuid, "--wait", "1000") as client, running(shop, *SHOP, "run"):
        assert client.wait() == 0
        assert "slept" in client.output


def test_processes_do_not_begin_without_an_application(shop: Path) -> None:
    done = run(shop, "-A", "absent:app", "run", "--processes", "2")
    assert done.returncode == 2
    assert done.stderr.count("cannot import") == 1


def test_reload_starts_again_when_a_file_changes(shop: Path) -> None:
    source = (shop / "shop.py").read_text()
    with running(shop, *SHOP, "run", "--reload") as family:
        add(shop, "long", "0")
        family.wait_for(lambda line: line == "long began")
        (shop / "shop.py").write_text("broken =\n")
        family.wait_for(lambda line: "waiting for a change" in line)
        (shop / "shop.py").write_text(source.replace("long began", "long began anew"))
        add(shop, "long", "0")
        family.wait_for(lambda line: line == "long began anew")
        family.signal(signal.SIGINT)
        assert family.wait() == 0
        assert "Traceback" not in family.output


# --- How a worker comes to know what is asked of it -----------------------------------------------

LEAN = """
import sys
from qtasks import QueueTasks

app = QueueTasks("lean", "{url}")


@app.task(name="run")
async def modules() -> list[str]:
    return sorted(sys.modules)
"""
HEAVY = (
    {"typer", "click", "rich", "argparse", "qtasks.cli.commands"}  # reads the command line, and draws
    | {"multiprocessing", "concurrent.futures.process", "http", "unittest", "xml", "pickle", "difflib"}
    | {"anyio", "pydantic_settings", "pydantic.networks", "pydantic.v1", "logging.config"}
    | {"qtasks.testing", "qtasks.demo", "qtasks.sync", "qtasks.inmemory", "qtasks.components.memory"}
)
"""What a worker has no use for."""


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes", appendfsync="no") as server:
        yield server


@pytest.mark.parametrize(
    ("backend", "its_own", "others"),
    [("sqlite", {"aiosqlite"}, {"redis", "hiredis"}), ("redis", {"hiredis"}, {"aiosqlite", "sqlite3"})],
)
def test_a_worker_imports_what_it_uses_and_no_more(
    tmp_path: Path, redis_server: RedisServer, backend: str, its_own: set[str], others: set[str]
) -> None:
    url = redis_server.url(0) if backend == "redis" else "sqlite:///lean.db"
    (tmp_path / "lean.py").write_text(LEAN.replace("{url}", url))
    # A task that is called like the command: the word alone makes no worker.
    added = run(tmp_path, "-A", "lean:app", "add", "run")
    assert (added.returncode, added.stderr) == (0, "")
    done = run(tmp_path, "-A", "lean:app", "run", "--until-idle", "--concurrency", "2")
    assert done.returncode == 0, done.stderr
    loaded = result_of(tmp_path, "lean:app", added.stdout.strip())
    assert its_own <= {*loaded}
    assert (HEAVY | others) & {*loaded} == set()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "--until-lunch"], 2, "--until-lunch"),
        (["run", "--log-level", "loud"], 2, "--log-level"),
        (["run", "--help"], 0, "--until-idle"),
    ],
)
def test_what_is_said_instead_of_running_is_said_once(
    shop: Path, words: list[str], code: int, said: str
) -> None:
    done = run(shop, *SHOP, *words)
    assert done.returncode == code
    assert (done.stdout + done.stderr).count(said) == 1
