"""The page `docs/first-backend.md`, followed word by word: its files, its commands, and what they print."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.support import wheels

PAGE = ROOT / "docs" / "first-backend.md"
FILES = {"pyproject.toml": "toml", "acme_qtasks.py": "py", "shop.py": "py"}
SLIP = "version = present.version + 1 if present else 1"


class Reader:
    """Somebody who follows the page in a folder.

    Attributes:
        folder: the folder.
        python: the interpreter of the virtual environment.
    """

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Types a command."""
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, timeout=280, check=False,
            env={"PATH": f"{self.python.parent}:/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def reader(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The reader who has come as far as `pip install .`."""
    folder = tmp_path_factory.mktemp("reader") / "acme"
    folder.mkdir()
    for name, language in FILES.items():
        (text,) = [block.code for block in blocks(PAGE, language) if belongs(name, block.code)]
        (folder / name).write_text(text, encoding="utf-8")
    python = wheels.environment(folder / ".venv", built[0], wheels.build(folder, folder))
    return Reader(folder, python)


def belongs(name: str, code: str) -> bool:
    return code.startswith(f"# {name}\n") or (name == "pyproject.toml" and "[build-system]" in code)


def commands() -> list[tuple[str, list[str]]]:
    """The commands of the first part, each with the lines it prints on the page."""
    found: list[tuple[str, list[str]]] = []
    until = PAGE.read_text(encoding="utf-8").split("\n## A whole backend", 1)[0].count("\n")
    for block in blocks(PAGE, "console"):
        if block.line > until:
            break
        for line in block.code.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip():
                found[-1][1].append(line.strip())
    return [(command, told) for command, told in found if command.split()[0] in ("qtasks", "COLUMNS=110")]


def test_the_page_has_what_is_followed_here() -> None:
    assert [command.split(" ", 1)[1] for command, _ in commands()] == [
        "conformance config acme_qtasks:make_config", "conformance plugin acme_qtasks:TaskCounter",
        "qtasks -A shop plugins", "-A shop add greet Ada", "-A shop run --until-idle",
        "-A shop -p no:task_counter plugins --json",
    ]  # fmt: skip


def followed() -> list[object]:
    """The commands as parameters; a whole report takes its time."""
    return [
        pytest.param(
            *each,
            id=each[0],
            marks=[pytest.mark.nightly, pytest.mark.timeout(300)] if "conformance" in each[0] else [],
        )
        for each in commands()
    ]


@pytest.mark.parametrize(("command", "told"), followed())
def test_each_command_prints_what_the_page_shows(reader: Reader, command: str, told: list[str]) -> None:
    done = reader.run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if told:
        assert printed == told
    elif "--until-idle" in command:
        assert re.search(r"greet \S+ success", done.stderr)
    elif "no:task_counter" in command:
        assert '"blocked":["task_counter"]' in done.stdout
        assert "acme-qtasks" not in done.stdout


@pytest.mark.parametrize(
    "only", [" --check CONFIG-02", pytest.param("", marks=[pytest.mark.nightly, pytest.mark.timeout(300)])]
)
def test_the_slip_falls_short_as_the_page_shows(reader: Reader, only: str) -> None:
    text = (reader.folder / "acme_qtasks.py").read_text(encoding="utf-8")
    text = re.sub(r'state\["version"\] \+= 1.*', SLIP, text).replace('state["version"]', "version")
    assert SLIP in PAGE.read_text(encoding="utf-8")
    (reader.folder / "slip.py").write_text(text, encoding="utf-8")
    done = reader.run(f"qtasks conformance config slip:make_config{only}")
    assert done.returncode == 1, done.stdout + done.stderr
    (shown,) = [block.code for block in blocks(PAGE, "text") if "fall short" in block.code]
    assert shown[shown.index("CONFIG-02") :].rstrip() in done.stdout
    if not only:
        assert shown.rstrip() in done.stdout
    assert reader.run(f"qtasks conformance config acme_qtasks:make_config{only}").returncode == 0


def test_a_url_of_it_is_tested_and_nothing_is_left(reader: Reader) -> None:
    done = reader.run('qtasks conformance --check CONFIG-01 "acme://$PWD/tested"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 hold" in done.stdout
    assert [path.name for path in (reader.folder / "tested").iterdir() if "tasks.db" not in path.name] == []
