"""Discovery and trust, with real installed distributions: wheels that are built here and installed into folders."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qtasks import PluginManager, QueueConfig, QueueTasks
from qtasks.backends import backend_from_url
from qtasks.errors import ConfigError, PluginRegistrationError
from tests.support import wheels

ACME = {
    "acme_audit.py": "from qtasks import hookimpl\n\nclass Audit:\n    @hookimpl\n    def broker_start(self): ...\n",
    "acme_quick.py": "from qtasks import hookimpl\n\n@hookimpl\ndef broker_stop(): ...\n",
    "acme_broken.py": "raise ImportError('no such library')\n",
    "acme_exits.py": "raise SystemExit(3)\n",
    "acme_rude.py": "raise GeneratorExit('rude')\n",
    "acme_wrong.py": "from qtasks import hookimpl\n\n@hookimpl\ndef broker_strat(): ...\n",
    "acme_future.py": "qtasks_api = '>=9'\n",
    "acme_needy.py": "qtasks_requires = ('durable',)\n",
    "acme_store.py": "def open_it(url):\n    raise RuntimeError('the password is ' + url)\n",
}
PLUGINS = {
    "audit": "acme_audit:Audit", "quick": "acme_quick", "broken": "acme_broken:plugin", "exits": "acme_exits",
    "rude": "acme_rude", "wrong": "acme_wrong", "future": "acme_future", "needy": "acme_needy",
    "absent_object": "acme_audit:Nothing",
}  # fmt: skip
BETA = {"beta_audit.py": "class Audit: ...\n"}

QUARANTINED = {
    "broken": "ImportError: no such library",
    "exits": "SystemExit: 3",
    "rude": "GeneratorExit: rude",
    "wrong": "did you mean 'broker_start'?",
    "future": "needs the plugin interface >=9, but this is 1.0",
    "needy": "needs durable, which the stores of this application do not declare",
    "absent_object": "has no attribute 'Nothing'",
}
"""What is told of each plugin that is left out."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with installed distributions: `acme` has acme-plugins 1.2, `both` has beta-audit 2.0 too."""
    base = tmp_path_factory.mktemp("distributions")
    groups = {"qtasks.plugins": PLUGINS, "qtasks.backends": {"acmedb": "acme_store:open_it"}}
    acme = wheels.build(wheels.project(base / "p1", "acme-plugins", "1.2", ACME, groups), base)
    groups = {
        "qtasks.plugins": {"audit": "beta_audit:Audit"},
        "qtasks.backends": {"AcmeDB": "beta_audit:Audit"},
    }
    beta = wheels.build(wheels.project(base / "p2", "beta-audit", "2.0", BETA, groups), base)
    wheels.install_into(base / "acme", acme)
    wheels.install_into(base / "both", acme, beta)
    return {"acme": base / "acme", "both": base / "both"}


@pytest.fixture
def use(installed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts one of the folders on the path."""
    for variable in ("QTASKS_PLUGIN_AUTOLOAD", "QTASKS_PLUGIN_BLOCK"):
        monkeypatch.delenv(variable, raising=False)
    yield lambda which: monkeypatch.syspath_prepend(str(installed[which]))
    for name in [name for name in sys.modules if name.startswith(("acme_", "beta_"))]:
        del sys.modules[name]


def app(**options: Any) -> QueueTasks:
    return QueueTasks(url="memory://", **options)


def ours(pm: PluginManager) -> list[str]:
    """The installed plugins that are loaded, of these distributions."""
    return [info.name for info in pm.plugins() if info.distribution in ("acme-plugins", "beta-audit")]


def imported() -> set[str]:
    return {name for name in sys.modules if name.startswith(("acme_", "beta_"))}


def test_nothing_is_imported_unless_the_application_opts_in(use) -> None:
    use("acme")
    assert ours(app().pm) == []
    assert imported() == set()


def test_auto_loads_what_is_sound_and_quarantines_the_rest(use, caplog) -> None:
    use("acme")
    pm = app(plugins="auto").pm
    assert ours(pm) == ["audit", "quick"]
    info = next(info for info in pm.plugins() if info.name == "audit")
    assert (info.distribution, info.version, info.origin) == ("acme-plugins", "1.2", "acme_audit:Audit")
    told = {item.name: item for item in pm.quarantined()}
    assert told.keys() == QUARANTINED.keys()
    for name, reason in QUARANTINED.items():
        assert reason in told[name].reason, name
        assert (told[name].distribution, told[name].version) == ("acme-plugins", "1.2")
        assert told[name].origin == PLUGINS[name]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert all(
        any(name in line and reason in line for line in errors) for name, reason in QUARANTINED.items()
    )


@pytest.mark.parametrize("name", QUARANTINED)
def test_strict_raises_instead(use, name) -> None:
    use("acme")
    with pytest.raises(PluginRegistrationError, match=f"'{name}'") as told:
        app(plugins=[name], config=QueueConfig(strict=True))
    assert QUARANTINED[name] in str(told.value)


def test_an_allow_list_imports_what_it_names_and_nothing_else(use) -> None:
    use("acme")
    pm = app(plugins=["quick", "unheard_of"]).pm
    assert ours(pm) == ["quick"]
    assert imported() == {"acme_quick"}
    assert [item.name for item in pm.quarantined()] == ["unheard_of"]


def test_a_blocked_plugin_is_not_imported(use, monkeypatch) -> None:
    use("acme")
    monkeypatch.setenv("QTASKS_PLUGIN_BLOCK", "audit, broken")
    pm = app(plugins=["audit", "broken", "quick"], config=QueueConfig(strict=True)).pm
    assert ours(pm) == ["quick"]
    assert imported() == {"acme_quick"}
    assert pm.blocked() == ["audit", "broken"]
    assert pm.quarantined() == []


def test_the_environment_blocks_default_plugins_too(monkeypatch) -> None:
    monkeypatch.setenv("QTASKS_PLUGIN_BLOCK", "retry")
    assert not app().pm.has("retry")
    assert app().pm.has("validation")


def test_the_environment_turns_discovery_off(use, monkeypatch) -> None:
    use("acme")
    monkeypatch.setenv("QTASKS_PLUGIN_AUTOLOAD", "0")
    assert ours(app(plugins="auto").pm) == []
    assert ours(app(plugins=["audit"]).pm) == []
    assert imported() == set()
    pm = app().pm
    assert pm.load_installed(["quick"], strict=True, asked=True) == ["quick"]


def test_a_clash_names_both_distributions_and_loads_none(use) -> None:
    use("both")
    pm = app(plugins=["audit", "quick"]).pm
    assert ours(pm) == ["quick"]
    assert not imported() & {"acme_audit", "beta_audit"}
    told = pm.quarantined()
    assert [(item.name, item.distribution, item.version) for item in told] == [
        ("audit", "acme-plugins", "1.2"), ("audit", "beta-audit", "2.0"),
    ] or [item.distribution for item in told] == ["beta-audit", "acme-plugins"]  # fmt: skip
    for item in told:
        assert "acme-plugins 1.2 (acme_audit:Audit) and beta-audit 2.0 (beta_audit:Audit)" in item.reason
    with pytest.raises(PluginRegistrationError, match=r"acme-plugins 1\.2 .* and beta-audit 2\.0"):
        app(plugins=["audit"], config=QueueConfig(strict=True))


def test_a_clash_with_the_applications_own_plugin_says_whose(use) -> None:
    use("acme")
    application = app(plugins=["audit"])
    with pytest.raises(PluginRegistrationError, match=r"from acme-plugins 1\.2 \(acme_audit:Audit\)"):
        application.add_plugin(object(), name="audit")


def test_a_clash_with_an_earlier_plugin_imports_nothing(use) -> None:
    use("acme")
    application = app()
    application.add_plugin(type("Mine", (), {})(), name="audit")
    application.pm.load_installed(["audit"])
    (rejected,) = application.pm.quarantined()
    assert (
        "registered already, by the application itself; this one is from acme-plugins 1.2" in rejected.reason
    )
    assert "acme_audit" not in imported(), "it was imported for nothing"


def test_a_scheme_that_two_offer_names_both(use) -> None:
    use("both")
    with pytest.raises(ConfigError, match=r"'acmedb' clashes.*acme-plugins 1\.2 .* and beta-audit 2\.0"):
        backend_from_url("acmedb://host")
    assert imported() == set()


def test_a_backend_that_fails_tells_its_distribution_and_no_password(use) -> None:
    use("acme")
    with pytest.raises(ConfigError, match=r"acme-plugins 1\.2 \(acme_store:open_it\)") as told:
        backend_from_url("acmedb://ada:secret@host")
    assert "secret" not in str(told.value)


def test_a_distribution_whose_metadata_is_broken_hides_no_other(use, tmp_path, monkeypatch) -> None:
    use("acme")
    info = tmp_path / "torn-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[qtasks.plugins]\nthis is no entry point\n", encoding="utf-8")
    (tmp_path / "nameless-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    pm = app(plugins="auto").pm
    assert ours(pm) == ["audit", "quick"]
    unreadable = [item for item in pm.quarantined() if item.name == "?"]
    assert {Path(item.origin).name for item in unreadable} == {"torn-1.0.dist-info", "nameless-1.0.dist-info"}
    assert all("metadata of this distribution cannot be read" in item.reason for item in unreadable)


def test_the_command_line_shows_all_of_it_and_keeps_going(installed, tmp_path) -> None:
    (tmp_path / "shop.py").write_text(
        "from qtasks import QueueTasks\napp = QueueTasks(url='memory://', plugins='auto')\n", encoding="utf-8"
    )

    def ask(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QTASKS_")}
        return subprocess.run(
            [sys.executable, "-m", "qtasks", "-A", "shop", *words], cwd=tmp_path, capture_output=True, text=True,
            env={**kept, "PYTHONPATH": str(installed["acme"]), "COLUMNS": "250", **variables}, timeout=60, check=False,
        )  # fmt: skip

    done = ask("plugins", "--json")
    told = json.loads(done.stdout)
    assert {"name": "audit", "distribution": "acme-plugins", "version": "1.2", "origin": "acme_audit:Audit",
            "triggers": ["broker_start"]} in told["plugins"]  # fmt: skip
    assert {item["name"] for item in told["quarantined"]} == QUARANTINED.keys()
    shown = ask("-p", "no:audit", "plugins").stdout
    assert "kept out: audit" in shown
    (line,) = [line for line in shown.splitlines() if "│ quick" in line]
    assert all(word in line for word in ("acme-plugins", "1.2", "acme_quick"))
    (line,) = [line for line in shown.splitlines() if "│ broken" in line]
    assert all(word in line for word in ("acme-plugins", "1.2", "acme_broken:plugin", "no such library"))
    strict = ask("plugins", QTASKS_STRICT="1")
    assert strict.returncode != 0
    assert "Traceback" not in strict.stderr
    both = ask("-p", "quick", "-p", "no:quick", "plugins")
    assert (both.returncode, "choose one" in both.stderr) == (2, True)
