"""The documentation that is made from the code has all of it, and the flows name real triggers."""

from __future__ import annotations

import re
import sys

import pytest

from qtasks import Capabilities, PluginManager, QueueConfig, testing
from tests.docs.pages import ROOT

sys.path.append(str(ROOT / "docs/_ext"))

import reference

TRIGGERS = PluginManager().triggers
FLOWS = re.findall(
    r"<!-- flow: ([a-z ]+) -->\n```text\n(.*?)```", (ROOT / "docs/flow.md").read_text(), re.DOTALL
)


def rendered_triggers() -> dict[str, str]:
    """The sections of the trigger reference, by trigger."""
    page = reference.rendered((ROOT / "docs/triggers.md").read_text())
    return {
        found[1]: found[0] for found in re.finditer(r"^\((\w+)\)=\n.*?(?=^\(\w+\)=|\Z)", page, re.M | re.S)
    }


def test_every_trigger_is_rendered() -> None:
    assert rendered_triggers().keys() == TRIGGERS.keys()


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_is_rendered_with_all_there_is_to_know(name: str) -> None:
    section = rendered_triggers()[name]
    trigger = TRIGGERS[name]
    for parameter in trigger.params:
        assert re.search(rf"^\| `{parameter}` \| `.+` \| .+ \|$", section, re.MULTILINE), parameter
    for part in ("**Fires.** ", "**Replaces** ", "**When a plugin fails:** ", "```py\n@hookimpl\n"):
        assert part in section
    assert ("**Replaces** nothing" in section) == trigger.signal
    for parameter in trigger.replaces:
        assert f"`{parameter}`" in section.partition("**Replaces** ")[2]


def test_every_example_of_a_trigger_would_register() -> None:
    """The parameters that the example takes are parameters of the trigger."""
    for name, section in rendered_triggers().items():
        example = re.search(r"@hookimpl\n(?:async )?def (\w+)\((.*?)\)", section)
        assert example is not None
        assert example[1] == name
        taken = [parameter.strip() for parameter in example[2].split(",") if parameter.strip()]
        assert set(taken) <= set(TRIGGERS[name].params), name


def test_every_setting_is_rendered() -> None:
    table = reference.settings()
    assert table in reference.rendered((ROOT / "docs/configuration.md").read_text())
    assert set(re.findall(r"^\| `QTASKS_(\w+)`", table, re.M)) == {
        name.upper() for name in QueueConfig.model_fields
    }


def test_flows_name_triggers() -> None:
    named = {line for _, block in FLOWS for line in block.split("\n") if line}
    assert named - TRIGGERS.keys() == set()


def test_flows_name_every_trigger_of_a_life() -> None:
    """All but those of the shared values, which fire when somebody uses them."""
    named = {line for _, block in FLOWS for line in block.split("\n")}
    values = {name for name in TRIGGERS if name.startswith("global_config_")} - {
        "global_config_start",
        "global_config_stop",
    }
    assert TRIGGERS.keys() - named == values


def test_flows_are_named_once() -> None:
    names = [name for name, _ in FLOWS]
    assert len(names) == len(set(names)) > 10


def test_every_check_of_the_kit_is_in_the_docs_and_says_its_id() -> None:
    """Its id stands in the docs with what it promises and advises, in its docstring, and in the text of its failure."""
    page = reference.rendered((ROOT / "docs/conformance.md").read_text())
    suites = [getattr(testing, name) for name in reference.SUITES if name != "Suite"]
    assert len(suites) == 10
    for suite in suites:
        for check in suite.checks():
            (row,) = re.findall(rf"^\| `{check.id}` \|.*$", page, re.MULTILINE)
            assert check.promise.replace("|", r"\|") in row
            assert check.advice[1:].replace("|", r"\|") in row
            doc = getattr(suite, check.method).__doc__
            assert doc.startswith(f"{check.id}: ")
            assert "If this fails, check " in " ".join(doc.split())
            failure = suite().fell_short(check, ValueError("seen"))
            assert str(failure).startswith(f"{check.id}: ")


def test_every_capability_is_in_the_docs() -> None:
    for page in ("conformance.md", "backends.md"):
        text = reference.rendered((ROOT / "docs" / page).read_text())
        for name in Capabilities.__dataclass_fields__:
            assert re.search(rf"^\| `{name}` \| (yes|no) \| .+ \|$", text, re.MULTILINE), (page, name)
