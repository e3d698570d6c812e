"""The screens in docs/seeing.md are what real processes write.

`QTASKS_WRITE_SCREENS=1 python -m pytest -n 0 tests/docs/test_screens.py` writes them anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.support.commands import run

PAGE = ROOT / "docs" / "seeing.md"
APP = ("-A", "shop:app")
UUID = "3f2b0c1e-8a57-4c1f-9d55-0a6b7c8d9e01"
_SCREEN = r"(<!-- screen: {name} -->\n```text\n)(.*?)(^```$)"

Screen = tuple[str, ...]

SCREENS: dict[str, Screen] = {
    "trace": (*APP, "trace", UUID),
    "try": (*APP, "try", "greet", "ada", "--result", '"Hello, Ada!"', "--without", "shouts"),
    "explain": (*APP, "plugins", "explain", "task_executor_run_task"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the application of the page, and one traced task that was added and run by two processes."""
    folder = tmp_path_factory.mktemp("screens")
    (site,) = [block for block in blocks(PAGE, "python") if block.saved_as == "shop.py"]
    (folder / "shop.py").write_text(site.code)
    added = run(folder, *APP, "add", "greet", "ada", "--trace", "--uuid", UUID)
    assert added.returncode == 0, added.stderr
    ran = run(folder, *APP, "run", "--until-idle")
    assert ran.returncode == 0, ran.stderr
    return folder


def screen(folder: Path, command: Screen) -> str:
    """What a command writes, without what is another one each time."""
    done = run(folder, *command, COLUMNS="110")
    assert done.returncode == 0, done.stderr
    text = re.sub(r"\b\d+\.\d\d ms", "… ms", done.stdout)
    text = re.sub(r"worker [0-9a-f]{16}", "worker 5d0c9a1be7f24386", text)
    text = re.sub(r"(validation|retry) \d+\.\d+\.\d+\S*", r"\1 0.1.0", text)
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    words = " ".join(f"'{word}'" if '"' in word else word for word in command)
    return "\n".join([f"$ qtasks {words}", *lines]) + "\n"


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_what_a_real_run_writes(folder: Path, name: str) -> None:
    page = PAGE.read_text()
    pattern = re.compile(_SCREEN.format(name=name), re.DOTALL | re.MULTILINE)
    shown = pattern.search(page)
    assert shown is not None, f"docs/seeing.md has no screen {name!r}"
    seen = screen(folder, SCREENS[name])
    if os.environ.get("QTASKS_WRITE_SCREENS"):
        PAGE.write_text(pattern.sub(lambda found: found[1] + seen + found[3], page))
    else:
        assert shown[2] == seen, "write it anew with QTASKS_WRITE_SCREENS=1"
