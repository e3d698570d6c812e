"""What a chain must do, as a plain left fold. Written from the rules, not from qtasks.chain.

It shares no code with the chain, is slow and simple, and knows types only as far as the cases use
them.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.properties.cases import FIELDS, MODELS, NUL, Act, Case, Impl, Model


@dataclass
class Outcome:
    """What firing a trigger came to.

    Attributes:
        result: what the caller got.
        error: the name of what was raised, and of the plugin it blames.
        seen: each call, in order: the plugin, and the values of the parameters that it saw.
        failures: how often each plugin failed.
    """

    result: Any = None
    error: tuple[str, str] | None = None
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass
class Expected:
    """What a case comes to: the refused plugins, and the outcome of each firing."""

    refused: list[str]
    outcomes: list[Outcome]


class Raised(Exception):
    """A failure on its way to the caller."""

    def __init__(self, error: str, plugin: str) -> None:
        self.error, self.plugin = error, plugin


class Junk(Exception):
    """A return that rule 8 refuses."""


class Circle(Exception):
    """Rule 6: before and after contradict each other."""


# --- Rule 6 -------------------------------------------------------------------------------------


def in_order(impls: list[Impl]) -> list[Impl]:
    left = [impl for group in ("tryfirst", "", "trylast") for impl in impls if impl.group == group]
    done: list[Impl] = []
    while left:
        for impl in left:
            if not any(other.name in impl.after or impl.name in other.before for other in left):
                break
        else:
            raise Circle
        left.remove(impl)
        done.append(impl)
    return done


def split(impls: list[Impl]) -> tuple[list[Impl], list[Impl]]:
    wrappers = in_order([impl for impl in impls if impl.around is not None])
    return wrappers, in_order([impl for impl in impls if impl.around is None])


# --- Rules 2, 3, 5, 8 ---------------------------------------------------------------------------


def typed(kind: str, value: Any) -> Any:
    if value is NUL:
        if kind.endswith("?"):
            return None
        raise Junk
    if kind == "int" and type(value) is int:
        return value
    if kind == "str?" and type(value) is str:
        return value
    if kind == "ints" and isinstance(value, list | tuple) and all(type(item) is int for item in value):
        return list(value)
    if kind == "args" and isinstance(value, list | tuple):
        return tuple(value)
    if kind == "kw" and type(value) is dict and all(type(key) is str for key in value):
        return dict(value)
    raise Junk


def fold(model: Model, values: dict[str, Any], got: Any) -> dict[str, Any]:
    if got is None or model.shape is None:
        return values
    keys = list(model.replaces)
    if model.shape == "value":
        return {**values, keys[0]: typed(model.replaces[keys[0]], got)}
    if model.shape == "kwargs":
        return {**values, "kw": merged(values["kw"], got)}
    if model.shape == "pair" and type(got) is tuple:
        if len(got) != 2:
            raise Junk
        got = {keys[0]: got[0], keys[1]: got[1]}
    if type(got) is not dict or any(key not in keys for key in got):
        raise Junk
    new = {key: typed(model.replaces[key], value) for key, value in got.items() if value is not None}
    return {**values, **new}


def merged(old: dict[str, Any], got: Any) -> dict[str, Any]:  # noqa: C901 - a rule with many cases
    if type(got) is not dict:
        raise Junk
    base = old
    if list(got) == ["kw"]:
        if got["kw"] is None:
            return old
        base, got = {"locked": old["locked"]}, got["kw"]
        if type(got) is not dict:
            raise Junk
    new = dict(base)
    for key, value in got.items():
        if type(key) is not str:
            raise Junk
        if key not in FIELDS and key != "locked":
            raise Junk
        if value is None:
            continue
        if key == "locked":
            if value != old["locked"]:
                raise Junk
        else:
            new[key] = typed(FIELDS[key], value)
    return new


# --- The fold -----------------------------------------------------------------------------------


class Firing:
    """One firing of a trigger."""

    def __init__(self, model: Model, impls: list[Impl]) -> None:
        self.model = model
        self.wrappers, self.chain = split(impls)
        self.values = copy.deepcopy(model.given)
        self.defer: Raised | None = None
        self.outcome = Outcome()

    def run(self) -> Outcome:
        try:
            self.around(self.wrappers)
        except Raised as raised:
            self.outcome.error = (raised.error, raised.plugin)
            if raised.error.startswith("TaskDefer") and self.model.defers:
                self.outcome.result = self.result()
        else:
            self.outcome.result = self.result()
        return self.outcome

    def result(self) -> Any:
        found = [self.values[key] for key in self.model.replaces]
        return None if not found else found[0] if len(found) == 1 else tuple(found)

    def around(self, wrappers: list[Impl]) -> None:
        """Rule 7."""
        if not wrappers:
            self.middle()
            return
        impl, around = wrappers[0], wrappers[0].around
        assert around is not None
        self.outcome.seen.append((impl.name, copy.deepcopy(self.model.given)))
        if around.start:
            self.fail(impl, around.start)
            self.around(wrappers[1:])
            return
        try:
            self.around(wrappers[1:])
        except Raised as raised:
            if raised.error == "Bail" or around.bad is None:
                raise
            if around.bad.error:
                self.fail_inside(impl, around.bad.error)
                raise
            if not self.take(impl, around.bad.value):
                raise
            return
        if around.good.error:
            self.fail_inside(impl, around.good.error)
        else:
            self.take(impl, around.good.value)

    def middle(self) -> None:
        for impl in self.chain:
            self.outcome.seen.append((impl.name, copy.deepcopy(self.values)))
            if impl.act.error:
                self.fail(impl, impl.act.error)
            else:
                self.take(impl, impl.act.value)
        if self.defer is not None:
            raise self.defer

    def take(self, impl: Impl, got: Any) -> bool:
        """Whether the return was good."""
        try:
            self.values = fold(self.model, self.values, got)
        except Junk:
            self.failed(impl, "PluginResultError")
            return False
        return True

    # --- Rules 9 and 10 ---

    def fail(self, impl: Impl, error: str) -> None:
        if error.startswith("TaskDefer") and self.model.defers:
            if self.defer is None or error > self.defer.error:  # TaskDefer9 is the longer one
                self.defer = Raised(error, "")
            return
        self.fail_inside(impl, error)

    def fail_inside(self, impl: Impl, error: str) -> None:
        if error == "Bail":
            raise Raised("Bail", "")
        if error.startswith("Task") and self.model.control:
            raise Raised(error, "")
        self.failed(impl, "PluginError")

    def failed(self, impl: Impl, error: str) -> None:
        self.outcome.failures[impl.name] += 1
        isolated = self.model.shape is None
        if impl.on_error == "isolate":
            isolated = True
        if impl.on_error == "raise" and not self.model.goes_on:
            isolated = False
        if not isolated:
            raise Raised(error, impl.name)


def expect(case: Case) -> Expected:
    """Registers, fires, registers, fires, unregisters, fires."""
    model = MODELS[case.trigger]
    there: list[Impl] = []
    refused: list[str] = []

    def register(impls: tuple[Impl, ...]) -> None:
        for impl in impls:
            try:
                split([*there, impl])
            except Circle:
                refused.append(impl.name)
            else:
                there.append(impl)

    register(case.plugins)
    outcomes = [Firing(model, there).run()]
    register(case.added)
    outcomes.append(Firing(model, there).run())
    there = [impl for impl in there if impl.name not in case.removed]
    outcomes.append(Firing(model, there).run())
    return Expected(refused, outcomes)


__all__ = ["Act", "Expected", "Outcome", "expect"]
