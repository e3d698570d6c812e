"""Real distributions for tests: wheels are built, and installed into folders and virtual environments."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"

[tool.hatch.build.targets.wheel]
include = ["*.py"]
"""


def build(project: Path, into: Path) -> Path:
    """Builds the wheel of a project, offline: the build backend is part of the test extra."""
    before = set(into.glob("*.whl"))
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)], project)
    (wheel,) = set(into.glob("*.whl")) - before
    return wheel


def project(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
) -> Path:
    """Writes a small project.

    Parameters:
        folder: is made.
        files: texts by file name.
        entry_points: what they refer to, by group and name.
    """
    folder.mkdir(parents=True)
    points = "".join(
        f'\n[project.entry-points."{group}"]\n'
        + "".join(f'{key} = "{value}"\n' for key, value in named.items())
        for group, named in entry_points.items()
    )
    (folder / "pyproject.toml").write_text(
        PROJECT.format(name=name, version=version) + points, encoding="utf-8"
    )
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def install_into(target: Path, *wheels: Path) -> None:
    """Installs wheels into a folder, as `pip install --target` does; nothing else is fetched."""
    _run(
        [*_PIP, "install", "--no-deps", "--no-index", "--target", str(target), *map(str, wheels)],
        target.parent,
    )


def environment(folder: Path, *wheels: Path) -> Path:
    """Makes a virtual environment with these wheels; gives its Python.

    What they depend on is borrowed from the environment of the tests, behind its own packages, so that nothing is
    fetched. What is installed there as editable is not: only its folder of packages is looked into.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    _run([*_PIP, "--python", str(python), "install", "--no-deps", "--no-index", *map(str, wheels)], folder)
    return python


_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
