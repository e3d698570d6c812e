"""Every Python block of the documentation runs; every `qtasks` command in it exists, with its options."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from qtasks.cli.commands import cli
from tests.docs.pages import IDS, PAGES, ROOT, blocks

TIMEOUT = 60


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    if not list(blocks(page, "python")):
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QTASKS_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests/docs/run_page.py"), str(page)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout}{done.stderr}"


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `qtasks` command in the console blocks of a page."""
    for block in blocks(page, "console"):
        for line in re.findall(r"^\$ (.*(?:\\\n.*)*)", block.code, re.MULTILINE):
            for part in re.split(r"&&|;|\|", line.replace("\\\n", " ")):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words and words[0] == "qtasks":
                    yield words[1:]


def unknown_words(words: list[str]) -> list[str]:
    """The commands and options among these words that the command line does not have."""
    command: Any = get_command(cli)
    unknown = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        options = {flag: option for option in command.params for flag in getattr(option, "opts", ())}
        if word.startswith("-"):
            flag = word.partition("=")[0]
            if flag not in options and flag != "--help":
                unknown.append(word)
            elif flag in options and not options[flag].is_flag and "=" not in word and rest:
                rest.pop(0)
        elif commands := getattr(command, "commands", None):
            if word not in commands:
                return [*unknown, word]
            command = commands[word]
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    wrong = {shlex.join(words): bad for words in commands(page) if (bad := unknown_words(words))}
    assert wrong == {}


def test_a_wrong_command_is_found() -> None:
    assert unknown_words(["-A", "a:b", "run", "--until-idle"]) == []
    assert unknown_words(["rnu"]) == ["rnu"]
    assert unknown_words(["run", "--until-lunch"]) == ["--until-lunch"]
