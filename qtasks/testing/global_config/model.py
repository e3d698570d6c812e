"""The global config against a small model of it, in random programs."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from qtasks.components.primitives import Versioned
from qtasks.testing.bench import Factory
from qtasks.testing.checks import Suite, check
from qtasks.testing.stateful import STEPS, Machine, run_machine

names = st.sampled_from(("", "a", "a:b", "*", "[a]"))
keys = st.sampled_from(("", "k", "b:k", "?", "\\"))
patterns = st.text("*?[]!ak:b\\", max_size=6)
expectations = st.sampled_from((None, None, "none", "present", "old"))
TTLS = (None, 10.5, 35.5)


@dataclass
class Value:
    """What the model knows of a value. `until` is Unix seconds."""

    value: Any
    version: int
    until: float | None


class ConfigMachine(Machine):
    """Writes, compare-and-set, deletes, and time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[tuple[str, str], Value] = {}
        self.highest: dict[tuple[str, str], int] = {}

    def live(self) -> dict[tuple[str, str], Value]:
        """The values whose time is not over."""
        return {at: each for at, each in self.model.items() if each.until is None or each.until > self.now}

    def expected(self, at: tuple[str, str], which: str | None) -> int | None:
        """The version that a compare-and-set names."""
        present = self.live().get(at)
        if which == "none":
            return 0
        if which == "present":
            return 0 if present is None else present.version
        if which == "old":
            return self.highest.get(at, 8) - 1
        return None

    @rule(name=names, key=keys, value=st.integers(0, 9), ttl=st.sampled_from(TTLS), which=expectations)
    def put(self, name: str, key: str, value: int, ttl: float | None, which: str | None) -> None:
        at, ttl = (name, key), ttl if self.virtual or ttl is None else 3600.0
        present, version = self.live().get(at), self.expected(at, which)
        fits = version is None or version == (0 if present is None else present.version)
        written = self.do(self.component.put(name, key, value, ttl, version))
        assert (written is not None) is fits
        if written is not None:
            assert written > self.highest.get(at, 0), "versions of a key must rise"
            self.highest[at] = written
            self.model[at] = Value(value, written, None if ttl is None else self.now + ttl)

    @rule(name=names, key=keys, which=expectations)
    def delete(self, name: str, key: str, which: str | None) -> None:
        at = (name, key)
        present, version = self.live().get(at), self.expected(at, which)
        fits = present is not None and version in (None, present.version)
        assert self.do(self.component.delete(name, key, version)) is fits
        if fits:
            del self.model[at]

    @rule(pattern=patterns)
    def match(self, pattern: str) -> None:
        found = self.do(self.component.match(pattern))
        got = {(name, key): item for name, items in found.items() for key, item in items.items()}
        assert got == {
            at: Versioned(each.value, each.version)
            for at, each in self.live().items()
            if fnmatchcase(":".join(at), pattern)
        }

    @rule(name=names)
    def fetch_all(self, name: str) -> None:
        assert self.do(self.component.fetch_all(name)) == {
            at[1]: Versioned(each.value, each.version) for at, each in self.live().items() if at[0] == name
        }

    @rule()
    def flush(self) -> None:
        self.do(self.component.flush())
        self.model.clear()
        self.highest.clear()

    @precondition(lambda self: self.virtual)
    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @invariant()
    def the_config_agrees(self) -> None:
        live = self.live()
        for at in self.highest:
            each = live.get(at)
            found = self.do(self.component.fetch(*at))
            assert found == (None if each is None else Versioned(each.value, each.version))


class Model(Suite):
    """The state machine."""

    @check("CONFIG-70")
    def test_random_programs(self, make_component: Factory) -> None:
        """In random programs of all primitives, with odd names and a moving clock, the global config does
        what a small model of it does.

        If this fails, check the last step of the shrunk program against the rule of its name in
        `qtasks.testing.global_config.model`.
        """
        run_machine(ConfigMachine, make_component)
