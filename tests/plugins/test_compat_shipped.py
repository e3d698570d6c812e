"""compat with plugins that QTasks 1.x ships: their files, as they are in the distribution of 1.7.3, run here."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest
from pydantic import BaseModel

from qtasks import QueueConfig, QueueTasks, TaskStatusEnum
from qtasks.plugins.compat import CompatPlugin, install_imports
from tests.app.conftest import working

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution of QTasks 1.7.3, unpacked and not installed."""
    folder = tmp_path_factory.mktemp("qtasks-1")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "qtasks==1.7.3",
        "-d",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        pytest.skip(f"QTasks 1.7.3 cannot be downloaded: {done.stderr.strip()}")
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder / "qtasks"


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"old_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class User(BaseModel):
    name: str
    age: int


@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_pydantic_plugin(old: Path, kind: str) -> None:
    install_imports()
    module = load(old / "plugins" / "pydantic" / f"{kind}_pydantic.py")
    plugin = getattr(module, f"{kind.title()}PydanticWrapperPlugin")()
    app = QueueTasks(url="memory://", config=QueueConfig(release_delay=0.01))
    app.pm.block("validation")  # it would refuse arguments that are not those of the function
    names = ["task_executor_args_replace", "task_executor_after_execute_result_replace"]
    app.add_plugin(CompatPlugin(plugin, trigger_names=names))

    @app.task(name="birthday")
    async def birthday(user: User) -> User:
        assert isinstance(user, User)
        return User(name=user.name, age=user.age + 1)

    async with working(app):
        by_name = await (await app.add_task("birthday", kwargs={"name": "Ada", "age": 35})).wait_result(10)
        wrong = await (await app.add_task("birthday", kwargs={"name": "Ada", "age": "old"})).wait_result(30)
    assert (by_name.status, by_name.returning) == (TaskStatusEnum.SUCCESS, {"name": "Ada", "age": 36})
    assert by_name.kwargs == {"name": "Ada", "age": 35}
    assert wrong.status is TaskStatusEnum.ERROR
    assert "Error while building the model for 'user'" in (wrong.traceback or "")


async def test_the_retry_plugin(old: Path) -> None:
    """As in 1.x it queues a copy of the failed task, and names it in the failed one."""
    install_imports()
    module = load(old / "plugins" / "retries" / "async_retry.py")
    app = QueueTasks(url="memory://")
    app.pm.block("retry")
    app.add_plugin(CompatPlugin(module.AsyncRetryPlugin(), ["worker_task_error_retry"]))
    runs: list[int] = []

    @app.task(name="fails", retry=1)
    async def fails(number: int) -> int:
        runs.append(number)
        if len(runs) == 1:
            raise ValueError("the first time")
        return number

    async with working(app):
        failed = await (await fails.add_task(7)).wait_result(10)
        assert (failed.status, failed.attempt) == (TaskStatusEnum.ERROR, 1)
        assert "ValueError: the first time" in (failed.traceback or "")
        again = await app.wait_result(UUID(failed.extra["retry_child_uuid"]), 10)
    assert (again.status, again.returning, again.args) == (TaskStatusEnum.SUCCESS, 7, (7,))
    assert again.extra == {"retry": 0, "retry_parent_uuid": str(failed.uuid)}


async def test_the_retry_plugin_ends(old: Path) -> None:
    install_imports()
    module = load(old / "plugins" / "retries" / "async_retry.py")
    app = QueueTasks(url="memory://")
    app.pm.block("retry")
    app.add_plugin(CompatPlugin(module.AsyncRetryPlugin(), ["worker_task_error_retry"]))
    runs: list[int] = []

    @app.task(name="fails", retry=2)
    async def fails() -> None:
        runs.append(1)
        raise ValueError

    async with app:
        await fails.add_task()
        async with asyncio.timeout(10):
            await app.serve(until_idle=True)
    assert len(runs) == 3
