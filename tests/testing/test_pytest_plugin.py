"""The fixtures for the tests of applications, in a run of pytest of their own, in a small project."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from qtasks import QueueTasks
from qtasks.inmemory import VirtualClock, in_memory, run_until_idle

PROJECT = """
import qtasks
from qtasks import QueueTasks, Router, TaskDefer, hookimpl

app = QueueTasks("site", "redis://127.0.0.1:1/0")  # nobody answers there


@app.task(name="add")
async def add(a, b):
    return a + b


@app.task(name="nightly")
def nightly():
    return "done"


class Audit:
    seen = []

    @hookimpl
    def worker_execute_after(self, task_func):
        self.seen.append(task_func.name)


app.add_plugin(Audit())
"""

TESTS = """
import asyncio
import pytest
import site_app


@pytest.fixture
def qtasks_source():
    return site_app.app


def test_a_task_runs_in_memory(qtasks_app, qtasks_worker):
    async def run():
        async with qtasks_app:
            task = await site_app.add.add_task(1, 2)
            await qtasks_worker()
            return (await task.wait_result()).returning

    assert asyncio.run(run()) == 3
    assert site_app.Audit.seen == ["add"]


def test_the_store_is_empty_again_and_the_clock_moves(qtasks_app, qtasks_worker, qtasks_clock):
    began = qtasks_clock()

    async def run():
        async with qtasks_app:
            assert (await qtasks_app.get_all())[0] == []
            await site_app.nightly.options(delay=86_400).add_task()
        await qtasks_worker()  # opens it

    asyncio.run(run())
    assert qtasks_clock() - began >= 86_400


def test_triggers(qtasks_app, qtasks_worker, qtasks_triggers):
    qtasks_triggers.returns["task_executor_args_replace"] = ((10, 20), None)

    async def run():
        async with qtasks_app:
            task = await site_app.add.add_task(1, 2)
            await qtasks_worker()
            return (await task.wait_result()).returning

    assert asyncio.run(run()) == 30
    names = qtasks_triggers.names()
    assert names.index("broker_add_before") < names.index("task_executor_run_task")
    (fired,) = [each for each in qtasks_triggers.fired if each.trigger == "storage_add"]
    assert fired.values["task_status"].args == (1, 2)


def test_it_is_as_before(qtasks_source):
    assert type(qtasks_source.broker).__name__ == "RedisBroker"
    assert not qtasks_source.pm.has("qtasks-triggers")
"""

BARE = """
def test_a_bare_application(qtasks_app):
    assert qtasks_app.name == "test"
"""

UNRELATED = """
import sys


def test_nothing_of_qtasks_is_loaded():
    loaded = {name for name in sys.modules if name.startswith("qtasks")}
    assert loaded <= {"qtasks", "qtasks.pytest_plugin"}
    assert not {"pydantic", "redis", "aiosqlite", "rich", "hypothesis.internal.conjecture"} & set(sys.modules)
"""


def run_pytest(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("QTASKS_", "PYTEST_"))
    }
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        *args,
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_pytest_finds_it() -> None:
    (point,) = [each for each in entry_points(group="pytest11") if each.name == "qtasks"]
    assert point.value == "qtasks.pytest_plugin"


def test_the_fixtures_in_a_project(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(PROJECT)
    (tmp_path / "test_site.py").write_text(TESTS)
    (tmp_path / "test_bare.py").write_text(BARE)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_another_project_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(UNRELATED)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_started_application_is_not_put_in_memory() -> None:
    app = QueueTasks(url="memory://")
    async with app:
        with pytest.raises(RuntimeError, match="started"), in_memory(app):
            pass


def test_a_task_that_is_put_off_for_ever_is_told() -> None:
    from qtasks import TaskDefer, hookimpl

    class Never:
        @hookimpl
        def worker_execute_before(self):
            raise TaskDefer(86_400)

    clock = VirtualClock()
    app = QueueTasks(url="sqlite:///absent/queue.db", plugins=[Never()])
    app.task(name="t")(lambda: None)

    async def run() -> None:
        async with app:
            await app.add_task("t")
            await run_until_idle(app, clock, longest=10 * 86_400)

    with in_memory(app, clock), pytest.raises(RuntimeError, match="still put off after 864000 s"):
        asyncio.run(run())
