"""Internal links of the documentation lead somewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import IDS, PAGES, ROOT, without_blocks

sys.path.append(str(ROOT / "docs/_ext"))

import reference

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LABEL = re.compile(r"^\((.+)\)=$", re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """What a link to this page may name behind `#`."""
    text = reference.rendered(without_blocks(page))
    return {slug(heading) for heading in _HEADING.findall(text)} | set(_LABEL.findall(text))


def broken(page: Path) -> Iterator[str]:
    """The internal links of a page that lead nowhere."""
    for link in _LINK.findall(reference.rendered(without_blocks(page))):
        if re.match(r"[a-z+]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_internal_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_every_page_is_in_a_table_of_contents() -> None:
    index = (ROOT / "docs/index.md").read_text()
    listed = {
        name for toc in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL) for name in toc.split()
    }
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages - listed == set()


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#no-title) [c](no.md) [d](https://example.org)\n")
    assert list(broken(page)) == ["#no-title", "no.md"]
