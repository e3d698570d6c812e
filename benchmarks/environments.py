"""An environment per contender: a virtual environment with its current release, made once and kept in a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).with_name("requirements")


def cache() -> Path:
    """Where the environments are: `BENCH_CACHE`, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BENCH_CACHE") or Path(base) / "qtasks-benchmarks")


def python_of(peer: str, *, renew: bool = False) -> str:
    """The interpreter of a contender's environment, which is made if it is not there.

    Parameters:
        peer: the name of its file in `requirements/`.
        renew: make it anew, so that it has the release of today.
    """
    wanted = (REQUIREMENTS / f"{peer}.txt").read_text()
    own = "-e ." in wanted.splitlines()
    if own:  # this very project: an environment for each place it is in
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted += f"{ROOT} {project['dependencies']}"
    mark = hashlib.sha256(f"{wanted}{sys.version}".encode()).hexdigest()[:12]
    folder = cache() / f"{peer}-{mark}"
    python = folder / "bin" / "python"
    if renew or not (folder / "ready").exists():
        print(f"installing {peer} in {folder} …", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r",
             str(REQUIREMENTS / f"{peer}.txt")],
            cwd=ROOT, check=True, timeout=600,
        )  # fmt: skip
        (folder / "ready").touch()
    if own:
        _compile(str(python))
    return str(python)


@functools.cache
def _compile(python: str) -> None:
    """pip compiles what it installs, and not what is editable; a worker would do so at each start, and keep the memory
    that it took."""
    subprocess.run(
        [python, "-m", "compileall", "-q", "qtasks", "benchmarks"], cwd=ROOT, check=True, timeout=120
    )
