"""A folder with an application in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder in which `-A shop:app` is an application."""
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path / "shop.py")
    return tmp_path
