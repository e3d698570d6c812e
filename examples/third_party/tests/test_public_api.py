"""Only what the documentation of qtasks declares public is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qtasks

PACKAGE = Path(__file__).parents[1] / "qtasks_postgres"

PUBLIC = {
    "qtasks": set(qtasks.__all__),
    "qtasks.backends": {"Backend", "backend_from_url"},
    "qtasks.components.broker": {"BrokerPrimitives", "LeaseKeeper"},
    "qtasks.components.primitives": None,
    "qtasks.components.storage": {"StoragePrimitives"},
    "qtasks.components.global_config": {"GlobalConfigPrimitives"},
    "qtasks.errors": None,
    "qtasks.schemas": {"TaskRecord", "TaskStatusSchema"},
    "qtasks.testing": None,
}
"""What docs/api.md and docs/backends.md list: names by module; `None` is all of its public names."""


def imported(path: Path):
    """What a file imports of qtasks: (module, name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "qtasks":
            for alias in node.names:
                yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "qtasks":
                    yield alias.name, "*"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_only_the_public_api_is_imported(path):
    private = [
        (module, name)
        for module, name in imported(path)
        if module not in PUBLIC
        or (PUBLIC[module] is not None and name not in PUBLIC[module])
        or name.startswith("_")
    ]
    assert private == []
