"""Plays a case on a real chain, and gives what came of it in the terms of the oracle."""

from __future__ import annotations

import copy
import types
from collections import Counter
from collections.abc import Coroutine, Generator
from typing import Any

from qtasks.errors import (
    PluginError,
    PluginOrderError,
    TaskCancelError,
    TaskDefer,
    TaskRejected,
)
from tests.properties.cases import MODELS, NUL, Act, Case, Impl, Model
from tests.properties.lab import Lab
from tests.properties.oracle import Expected, Outcome


class Bail(BaseException):
    """Stands for CancelledError, KeyboardInterrupt and their like."""


def made(error: str) -> BaseException:
    """A new exception of this name."""
    errors: dict[str, BaseException] = {
        "ValueError": ValueError("broken"),
        "StopIteration": StopIteration("broken"),
        "PluginError": PluginError("of another plugin", plugin="another", trigger="other"),
        "TaskCancelError": TaskCancelError("no"),
        "TaskDefer": TaskDefer(1),
        "TaskDefer9": TaskDefer(9),
        "TaskRejected": TaskRejected("bad"),
        "Bail": Bail(),
    }
    return errors[error]


class Pause:
    """Is awaited like something that has to wait, once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def drive(coro: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine without an event loop."""
    while True:
        try:
            coro.send(None)
        except StopIteration as stop:
            return stop.value


def specs(lab: Lab) -> types.ModuleType:  # noqa: C901 - ten declarations
    """The triggers of `cases.MODELS`, declared."""
    module = types.ModuleType("specs")
    hookspec = lab.hookspec

    def note(first: int, second: str) -> None: ...
    def note_stop(first: int) -> None: ...
    def one(number: int, text: str) -> None: ...
    def maybe(text: str | None) -> None: ...
    def many(first: int, number: int, text: str | None, items: list[int]) -> None: ...
    def solo(number: int) -> None: ...
    def two(args: tuple[Any, ...], kw: dict[str, Any]) -> None: ...
    def fields(kw: dict[str, Any]) -> None: ...
    def steer(number: int, text: str | None) -> None: ...
    def produce(number: int) -> None: ...

    functions = (note, note_stop, one, maybe, many, solo, two, fields, steer, produce)
    for function in functions:
        model = MODELS[function.__name__]
        options: dict[str, Any] = {
            "replaces": tuple(model.replaces),
            "returns": model.shape,
            "control_flow": model.control,
            "defers": model.defers,
            "must_go_on": model.goes_on,
        }
        if model.shape == "kwargs":
            options["fields"] = lambda: {"a": int, "b": str | None, "c": list[int]}
            options["protected"] = ("locked",)
        setattr(module, function.__name__, hookspec(**options)(function))
    return module


def translated(lab: Lab, value: Any) -> Any:
    """A fresh copy of a return, with the lab's own NULL in it."""
    if value is NUL:
        return lab.null
    if isinstance(value, dict):
        return {key: translated(lab, item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(translated(lab, item) for item in value)
    return copy.deepcopy(value)


class Stage:
    """A manager with the plugins of a case, and what they saw."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.pm = lab.manager(plugin_timeout=5.0)
        self.pm.add_hookspecs(specs(lab))
        self.refused: list[str] = []

    def act(self, act: Act) -> Any:
        if act.error:
            raise made(act.error)
        return translated(self.lab, act.value)

    def plugin(self, impl: Impl, model: Model) -> object:
        """An object with one implementation, of the kind that the case asks for."""
        params = ", ".join(model.given)
        values = "{" + ", ".join(f"{name!r}: {name}" for name in model.given) + "}"
        source = _SOURCES["wrapper" if impl.around else impl.kind]
        namespace: dict[str, Any] = {"stage": self, "impl": impl, "Pause": Pause, "copy": copy}
        exec(source.replace("PARAMS", params).replace("VALUES", values), namespace)
        function = namespace["function"]
        function.__name__ = model.name
        mark = self.lab.hookimpl(
            before=impl.before,
            after=impl.after,
            tryfirst=impl.group == "tryfirst",
            trylast=impl.group == "trylast",
            wrapper=impl.around is not None,
        )
        return type(impl.name, (), {model.name: mark(function)})()

    def register(self, impls: tuple[Impl, ...], model: Model) -> None:
        for impl in impls:
            try:
                self.pm.register(self.plugin(impl, model), name=impl.name, on_error=impl.on_error)
            except PluginOrderError:
                self.refused.append(impl.name)

    def fire(self, model: Model) -> Outcome:
        """Fires the trigger, and gives what it came to."""
        self.seen = []
        self.pm.errors.clear()
        outcome = Outcome(seen=self.seen)
        given = copy.deepcopy(model.given)
        try:
            outcome.result = drive(getattr(self.pm.hook, model.name)(**given))
        except TaskDefer as defer:
            outcome.error = ("TaskDefer9" if defer.seconds == 9 else "TaskDefer", "")
            outcome.result = defer.values
        except (TaskCancelError, TaskRejected, Bail) as error:
            outcome.error = (type(error).__name__, "")
        except PluginError as error:
            blamed = error.plugin if error.trigger == model.name else f"{error.plugin} in {error.trigger}"
            outcome.error = (type(error).__name__, blamed)
        outcome.failures = Counter({plugin: n for (plugin, _), n in self.pm.errors.items()})
        assert given == model.given, "the chain changed what it was given"
        return outcome


_SOURCES = {
    "def": """
def function(self, PARAMS):
    stage.seen.append((impl.name, copy.deepcopy(VALUES)))
    return stage.act(impl.act)
""",
    "async": """
async def function(self, PARAMS):
    stage.seen.append((impl.name, copy.deepcopy(VALUES)))
    return stage.act(impl.act)
""",
    "pause": """
async def function(self, PARAMS):
    await Pause()
    stage.seen.append((impl.name, copy.deepcopy(VALUES)))
    await Pause()
    return stage.act(impl.act)
""",
    "lazy": """
def function(self, PARAMS):
    async def later():
        stage.seen.append((impl.name, copy.deepcopy(VALUES)))
        return stage.act(impl.act)
    return later()
""",
    "lazy-pause": """
def function(self, PARAMS):
    async def later():
        stage.seen.append((impl.name, copy.deepcopy(VALUES)))
        await Pause()
        return stage.act(impl.act)
    return later()
""",
    "wrapper": """
def function(self, PARAMS):
    stage.seen.append((impl.name, copy.deepcopy(VALUES)))
    around = impl.around
    if around.start:
        stage.act(type(impl.act)(error=around.start))
    try:
        yield
    except BaseException as error:
        if around.bad is None or not (around.everything or isinstance(error, Exception)):
            raise
        return stage.act(around.bad)
    return stage.act(around.good)
""",
}


def play(lab: Lab, case: Case) -> Expected:
    """The case, on the chain of this lab."""
    model = MODELS[case.trigger]
    stage = Stage(lab)
    stage.register(case.plugins, model)
    outcomes = [stage.fire(model)]
    stage.register(case.added, model)
    outcomes.append(stage.fire(model))
    for name in case.removed:
        if stage.pm.has(name):
            stage.pm.unregister(name)
    outcomes.append(stage.fire(model))
    return Expected(stage.refused, outcomes)
