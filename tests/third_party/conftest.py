"""The stranger's environment: wheels of qtasks and of a third party, installed where nothing else is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import wheels

ROOT = Path(__file__).parents[2]
DISTRIBUTION = ROOT / "examples" / "third_party"


class Stranger:
    """A virtual environment with both wheels.

    Attributes:
        python: its interpreter.
        folder: where commands run; it has the third party's tests, and not its sources.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        self.folder = folder

    def words(self, *words: str) -> list[str]:
        """A command of this environment: `qtasks …`, or `python …`."""
        return [str(self.python.parent / words[0]), *words[1:]]

    def environment(self, **more: str) -> dict[str, str]:
        """The variables of its commands: nothing of ours leads to the sources."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("QTASKS_", "PYTHON"))
        }
        return kept | more

    def run(self, *words: str, timeout: float = 120, code: int = 0, **variables: str) -> str:
        """What a command writes; it must end with this exit code."""
        done = subprocess.run(
            self.words(*words), cwd=self.folder, env=self.environment(**variables), capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == code, (
            f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The two wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    return [wheels.build(ROOT, folder), wheels.build(DISTRIBUTION, folder)]


@pytest.fixture(scope="package")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the third party's tests and their settings."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(DISTRIBUTION / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(DISTRIBUTION / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="package")
def stranger(built: list[Path], workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """The environment."""
    return Stranger(wheels.environment(tmp_path_factory.mktemp("environment") / "venv", *built), workshop)


@pytest.fixture(scope="package")
def server() -> Iterator[Any]:
    """A PostgreSQL server, as the third party's tests start it."""
    spec = importlib.util.spec_from_file_location("third_party_server", DISTRIBUTION / "tests" / "server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.PostgresServer() as started:
        yield started
