"""A stranger's distribution works where only wheels are: plugin, backend by URL, the kit, two processes."""

from __future__ import annotations

import json
import subprocess
import venv

import pytest

APP = """
from pathlib import Path

from qtasks import QueueTasks

app = QueueTasks("shop"{plugins})


@app.task(name="ship")
async def ship(number: int) -> str:
    return f"shipped {{number}}"
"""

PRODUCER = """
import asyncio

from shop import app, ship


async def main():
    async with app:
        tasks = [await ship.add_task(number) for number in range(20)]
        print("added", flush=True)
        print([(await task.wait_result(60)).returning for task in tasks])


asyncio.run(main())
"""

CLAIMS_AND_SETTLES = "Pair and (settle or claim)"
"""The part of the kit that runs each time: the co-located steps, and a crash at each of their seams."""


def write_app(stranger, plugins: str = "") -> None:
    (stranger.folder / "shop.py").write_text(APP.format(plugins=plugins), encoding="utf-8")


def listed(stranger, *words: str, **variables: str):
    """What `qtasks plugins --json` says, and whether the plugin's module was imported."""
    probe = (
        "import sys; from qtasks.cli import main\n"
        "try: main()\n"
        "finally: print('qtasks_postgres.slow_tasks' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [str(stranger.python), "-c", probe, "-A", "shop", *words, "plugins", "--json"], cwd=stranger.folder,
        env=stranger.environment(QTASKS_URL="memory://", **variables), capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout), done.stderr.split()[-1] == "True"


def names(told) -> list[str]:
    return [plugin["name"] for plugin in told["plugins"] if plugin["origin"] != "direct"]


def test_it_is_installed_and_not_borrowed(stranger) -> None:
    where = stranger.run(
        "python", "-c", "import qtasks, qtasks_postgres as p; print(qtasks.__file__, p.__file__)"
    )
    assert all(path.startswith(str(stranger.python.parents[1])) for path in where.split())


def test_an_application_that_does_not_opt_in_gets_no_plugin(stranger) -> None:
    write_app(stranger)
    told, imported = listed(stranger)
    assert names(told) == []
    assert not imported


@pytest.mark.parametrize("plugins", [', plugins="auto"', ', plugins=["slow_tasks"]'])
def test_the_plugin_is_discovered_and_allow_listed(stranger, plugins) -> None:
    write_app(stranger, plugins)
    told, imported = listed(stranger)
    assert imported
    (plugin,) = [plugin for plugin in told["plugins"] if plugin["name"] == "slow_tasks"]
    assert plugin == {
        "name": "slow_tasks", "distribution": "qtasks-postgres", "version": "0.1.0",
        "origin": "qtasks_postgres.slow_tasks:SlowTasks", "triggers": ["worker_execute_after"],
    }  # fmt: skip
    shown = stranger.run("qtasks", "-A", "shop", "plugins", QTASKS_URL="memory://", COLUMNS="200")
    (line,) = [line for line in shown.splitlines() if "slow_tasks" in line]
    assert all(word in line for word in ("qtasks-postgres", "0.1.0", "qtasks_postgres.slow_tasks:SlowTasks"))


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["-p", "no:slow_tasks"], {}),
        ([], {"QTASKS_PLUGIN_BLOCK": "slow_tasks"}),
        ([], {"QTASKS_PLUGIN_AUTOLOAD": "0"}),
    ],
)
def test_a_blocked_plugin_is_not_imported(stranger, words, variables) -> None:
    write_app(stranger, ', plugins="auto"')
    told, imported = listed(stranger, *words, **variables)
    assert names(told) == []
    assert not imported
    assert told["quarantined"] == []


@pytest.mark.parametrize("variables", [{}, {"QTASKS_PLUGIN_AUTOLOAD": "0"}])
def test_the_command_line_asks_for_it_by_name(stranger, variables) -> None:
    write_app(stranger)
    told, imported = listed(stranger, "-p", "slow_tasks", **variables)
    assert names(told) == ["slow_tasks"]
    assert imported


def test_a_worker_runs_what_another_process_has_added(stranger, server) -> None:
    write_app(stranger, ', plugins=["slow_tasks"]')
    (stranger.folder / "producer.py").write_text(PRODUCER, encoding="utf-8")
    variables = stranger.environment(QTASKS_URL=server.url(), SLOW_TASKS_SECONDS="0")
    producer = subprocess.Popen(
        stranger.words("python", "producer.py"),
        cwd=stranger.folder,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = subprocess.Popen(
        stranger.words("qtasks", "-A", "shop", "run"), cwd=stranger.folder, env=variables, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        told, _ = producer.communicate(timeout=60)
        assert told.splitlines() == ["added", str([f"shipped {number}" for number in range(20)])]
        worker.terminate()
        _, log = worker.communicate(timeout=60)
        assert worker.returncode == 0
        assert log.count("task ship (") == 20, log
    finally:
        for process in (producer, worker):
            process.kill()
            process.communicate()


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_backend_is_chosen_by_its_url_and_keeps_the_kit(stranger, server) -> None:
    written = stranger.run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CLAIMS_AND_SETTLES, "tests"
    )
    passed = int(written.split(" passed")[0].split()[-1])
    assert passed >= 13, written
    report = stranger.run("qtasks", "conformance", "--check", "CONFIG-01", "--json", server.url())
    assert [each["conforms"] for each in json.loads(report)] == [True]


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_all_its_tests(stranger) -> None:
    """The whole kit among them."""
    stranger.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", timeout=1400)


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_the_report_of_the_kit_by_url(stranger, server) -> None:
    report = json.loads(stranger.run("qtasks", "conformance", "--json", server.url(), timeout=1400))
    assert len(report) == 4
    assert all(each["conforms"] for each in report)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_its_dependencies_are_declared(built, tmp_path) -> None:
    """With nothing borrowed: pip fetches what the wheels say they need."""
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *map(str, built)], check=True, timeout=600)
    code = (
        "from qtasks import QueueTasks\n"
        "print(QueueTasks(url='postgresql://h/d', plugins='auto').pm.has('slow_tasks'))"
    )
    done = subprocess.run(
        [python, "-c", code], check=True, timeout=60, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "True"
