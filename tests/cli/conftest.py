"""A folder with an application in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qtasks.manager.discovery import BLOCK


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder in which `-A shop:app` is an application."""
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path / "shop.py")
    return tmp_path


@pytest.fixture(autouse=True)
def plugins_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-p no:NAME` says it in the environment, for the processes that a command starts: not beyond the test."""
    monkeypatch.setenv(BLOCK, "")
