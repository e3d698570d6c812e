"""The recipes of docs/recipes.md: each example runs with the real library, the worker in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SITE = EXAMPLES / "django_site"
TIMEOUT = 60


def run(*command: str, cwd: Path, env: dict[str, str] | None = None, check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True,
        timeout=TIMEOUT,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def process(*command: str, cwd: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end by SIGTERM."""
    started = subprocess.Popen([sys.executable, *command], cwd=cwd, env={**os.environ, **env})
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        assert started.wait(TIMEOUT) == 0


def test_script() -> None:
    assert run("script.py", cwd=EXAMPLES).strip() == "[4, 9, 16]"


def test_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    monkeypatch.setenv("QTASKS_URL", url)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    testclient = pytest.importorskip("fastapi.testclient")
    import fastapi_app  # type: ignore[import-not-found]

    worker = process("-m", "qtasks", "-A", "fastapi_app:queue", "run", cwd=EXAMPLES, env={"QTASKS_URL": url})
    with worker, testclient.TestClient(fastapi_app.api) as client:
        added = client.post("/thumbnails", params={"image": "a.png", "width": 20})
        assert added.status_code == 202
        read: dict[str, Any] = client.get(
            f"/thumbnails/{added.json()['uuid']}", params={"wait": TIMEOUT}
        ).json()
        assert read == {"status": "success", "result": {"image": "a.png", "width": 20}}
        assert client.get(f"/thumbnails/{uuid4()}").status_code == 404


def test_django(tmp_path: Path) -> None:
    pytest.importorskip("django")
    env = {"SITE_DATA": str(tmp_path)}
    run("manage.py", "migrate", "--run-syncdb", "-v0", cwd=SITE, env=env)
    assert "order 1" in run("manage.py", "order", "a lamp", cwd=SITE, env=env)
    assert "an order of nothing" in run("manage.py", "order", "nothing", cwd=SITE, env=env, check=False)
    run("manage.py", "runqtasks", "--until-idle", cwd=SITE, env=env)
    shown = run(
        "manage.py", "shell", "-v0", "-c",
        "from shop.models import Order; from shop.tasks import queue\n"
        "print(list(Order.objects.values_list('item', 'mailed')), queue.inspect().records['success'])\nqueue.close()",
        cwd=SITE, env=env,
    )  # fmt: skip
    assert "[('a lamp', True)] 1" in shown


@pytest.mark.filterwarnings("ignore")
def test_notebook(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert notebook.cells[2].outputs[0]["data"]["text/plain"] == "144"
