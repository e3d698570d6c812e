"""The pages of the documentation, and the fenced blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        language: what stands behind the fence.
        code: its text.
        line: the number of lines of the page before the code.
        saved_as: the file that its first line names (`# tasks.py`).
    """

    language: str
    code: str
    line: int
    saved_as: str | None


def blocks(page: Path, language: str) -> Iterator[Block]:
    """The blocks of a page in one language, in their order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        if found[2].strip() == language:
            named = _FILE.match(found[3])
            yield Block(language, found[3], text.count("\n", 0, found.start(3)), named[1] if named else None)


def without_blocks(page: Path) -> str:
    """The prose of a page."""
    return _FENCE.sub("", page.read_text())
