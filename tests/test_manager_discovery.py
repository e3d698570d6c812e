"""Installed plugins: found through entry points, loaded on request, quarantined when they fail."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from qtasks.errors import PluginRegistrationError
from qtasks.manager import PluginManager

PLUGINS = """
from qtasks.markers import hookimpl

class Good:
    @hookimpl
    def broker_start(self): ...

class Wrong:
    @hookimpl
    def broker_strat(self): ...

class Future:
    qtasks_api = ">=9"

good = Good()
"""
ENTRY_POINTS = """
[qtasks.plugins]
zeta = acme_plugins:Good
alpha = acme_plugins:good
broken = acme_broken:plugin
exits = acme_exits:plugin
wrong = acme_plugins:Wrong
future = acme_plugins:Future
"""


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with six plugins, two of them good, as pip would have installed it."""
    (tmp_path / "acme_plugins.py").write_text(PLUGINS, encoding="utf-8")
    (tmp_path / "acme_broken.py").write_text("raise ImportError('no such library')", encoding="utf-8")
    (tmp_path / "acme_exits.py").write_text("raise SystemExit(3)", encoding="utf-8")
    info = tmp_path / "acme-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 2.5\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("QTASKS_PLUGIN_AUTOLOAD", raising=False)


def test_auto_loads_all_and_quarantines_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    pm = PluginManager()
    loaded = [name for name in pm.load_installed() if name in ("alpha", "zeta")]
    assert loaded == ["alpha", "zeta"]
    info = next(info for info in pm.plugins() if info.name == "zeta")
    assert (info.origin, info.distribution, info.version) == ("acme_plugins:Good", "acme", "2.5")
    assert info.triggers == ("broker_start",)
    reasons = {item.name: item.reason for item in pm.quarantined()}
    assert set(reasons) == {"broken", "exits", "future", "wrong"}
    assert "no such library" in reasons["broken"]
    assert "SystemExit" in reasons["exits"]
    assert "did you mean 'broker_start'?" in reasons["wrong"]
    assert ">=9" in reasons["future"]
    assert all(item.distribution == "acme" and item.version == "2.5" for item in pm.quarantined())
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 4


def test_an_allow_list_is_followed_in_its_order() -> None:
    pm = PluginManager()
    assert pm.load_installed(["zeta", "absent", "alpha"]) == ["zeta", "alpha"]
    (absent,) = pm.quarantined()
    assert absent.name == "absent"
    assert "no installed distribution" in absent.reason


@pytest.mark.parametrize("name", ["broken", "exits", "wrong", "future", "absent"])
def test_strict_raises(name: str) -> None:
    pm = PluginManager()
    with pytest.raises(PluginRegistrationError, match=f"'{name}'"):
        pm.load_installed([name], strict=True)
    assert pm.plugins() == []


@pytest.mark.parametrize("value", ["0", "false", "OFF"])
def test_the_environment_turns_discovery_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QTASKS_PLUGIN_AUTOLOAD", value)
    pm = PluginManager()
    assert pm.load_installed() == []
    assert pm.load_installed(["alpha"], strict=True) == []
    assert pm.quarantined() == []


def test_a_blocked_plugin_is_not_even_imported() -> None:
    pm = PluginManager()
    pm.block("broken")
    assert pm.load_installed(["broken", "alpha"], strict=True) == ["alpha"]


def test_a_name_that_is_taken_is_quarantined() -> None:
    pm = PluginManager()
    pm.load_installed(["alpha"])
    assert pm.load_installed(["alpha"]) == []
    assert "registered already" in pm.quarantined()[0].reason
    assert pm.has("alpha")
