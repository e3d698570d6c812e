"""Why a plugin stands where it stands, and what it asked for without getting it."""

from __future__ import annotations

from typing import Any

import pytest

from qtasks import PluginManager, hookimpl


def plugin(**options: Any) -> Any:
    class Plugin:
        @hookimpl(**options)
        def worker_add(self):
            return None

    return Plugin()


def wrapper(**options: Any) -> Any:
    class Wrapper:
        @hookimpl(wrapper=True, **options)
        def worker_add(self):
            yield

    return Wrapper()


def explained(**plugins: Any) -> dict[str, Any]:
    pm = PluginManager()
    for name, each in plugins.items():
        pm.register(each, name=name)
    return {link.plugin: link for link in pm.explain("worker_add")}


def test_each_place_has_its_reason() -> None:
    links = explained(
        late=plugin(trylast=True), plain=plugin(), seal=plugin(after="pack"), pack=plugin(),
        early=plugin(tryfirst=True), around=wrapper(),
    )  # fmt: skip
    assert list(links) == ["around", "early", "plain", "pack", "seal", "late"]
    assert links["around"].why.startswith("a wrapper, runs around the chain; registered as number 6")
    assert "in the tryfirst group" in links["early"].why
    assert links["plain"].why == "registered as number 2"
    assert (
        "asks to run after 'pack'; moved from its place in registration order for that" in links["seal"].why
    )
    assert "'seal' asks to run after it" in links["pack"].why
    assert "in the trylast group" in links["late"].why
    assert not any(link.conflicts for link in links.values())


@pytest.mark.parametrize(
    ("plugins", "who", "told"),
    [
        ({"a": plugin(tryfirst=True, trylast=True)}, "a", "trylast wins"),
        ({"a": plugin(tryfirst=True), "b": plugin(before="a")}, "a", "but 'b' runs before it"),
        ({"a": plugin(trylast=True), "b": plugin(after="a")}, "a", "but 'b' runs after it"),
        ({"a": plugin(before="b"), "b": wrapper()}, "a", "one of the two is a wrapper"),
        ({"encryption": plugin(), "a": plugin(after="encrytion")}, "a", "did it mean 'encryption'?"),
    ],
)
def test_what_is_asked_for_in_vain_is_a_conflict(plugins: dict[str, Any], who: str, told: str) -> None:
    links = explained(**plugins)
    assert [told in conflict for conflict in links[who].conflicts] == [True]
    assert sum(len(link.conflicts) for link in links.values()) == 1


def test_a_name_that_is_simply_not_there_is_no_conflict() -> None:
    link = explained(a=plugin(after="compression"))["a"]
    assert "after 'compression' is ignored: it is not in this chain" in link.why
    assert link.conflicts == ()
