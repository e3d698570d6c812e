"""What firing a trigger costs, against plain pluggy and a loop by hand: `python -m benchmarks.chain`.

0, 1, 3 and 10 implementations, `def` and `async def`, that look at a value and leave it. All are called in the same
way, with keywords, from one coroutine, and measured in turns, so that a disturbance meets all of them:

- **qtasks**: `await pm.hook.…`, with the default bound of time for each plugin;
- **pluggy**: the plain call, which runs the implementations and gives what each returned. Of an `async def` these are
  coroutines that nobody awaits, so for those there is no such figure;
- **pluggy, awaited**: the same in a coroutine that awaits each result;
- **by hand**: a coroutine with a loop that hands the value on.

The yardsticks have no checks, no isolation, no bound and (pluggy) no chaining: they show the floor.
"""

from __future__ import annotations

import asyncio
import inspect
import platform
import sys
from collections.abc import Callable
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pluggy

from qtasks.manager import PluginManager
from qtasks.markers import hookimpl

CALLS, ROUNDS = 2_000, 15
COUNTS = (0, 1, 3, 10)
BROKER, STORAGE, UUID, MODEL = object(), object(), object(), object()


def implementation(asynchronous: bool) -> Callable[..., Any]:
    """A method that looks at the model and leaves it."""
    if asynchronous:

        async def broker_add_before(self: object, model: object) -> None:
            return None

        return broker_add_before

    def plain(self: object, model: object) -> None:
        return None

    plain.__name__ = "broker_add_before"
    return plain


def ours(count: int, asynchronous: bool) -> Any:
    """The hooks of qtasks, with the default bound, on a bound loop."""
    pm = PluginManager()
    pm.bind_loop(asyncio.get_running_loop())
    for i in range(count):
        method = hookimpl(implementation(asynchronous))
        pm.register(type("Plugin", (), {"broker_add_before": method})(), name=f"p{i}")
    return pm.hook


def pluggy_manager(count: int, asynchronous: bool) -> pluggy.PluginManager:
    """A plain pluggy manager with the same implementations."""
    spec, impl = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    def broker_add_before(broker: Any, storage: Any, uuid: Any, model: Any) -> None: ...

    pm = pluggy.PluginManager("bench")
    pm.add_hookspecs(type("Specs", (), {"broker_add_before": staticmethod(spec(broker_add_before))}))
    for i in range(count):
        method = impl(implementation(asynchronous))
        pm.register(type("Plugin", (), {"broker_add_before": method})(), name=f"p{i}")
    return pm


def awaited_pluggy(count: int, asynchronous: bool) -> Any:
    """pluggy, awaiting each result; it does not hand a replaced value on to the next."""
    hook = pluggy_manager(count, asynchronous).hook

    async def broker_add_before(*, broker: Any, storage: Any, uuid: Any, model: Any) -> Any:
        for result in hook.broker_add_before(broker=broker, storage=storage, uuid=uuid, model=model):
            if inspect.isawaitable(result):
                result = await result
            if result is not None:
                model = result
        return model

    return SimpleNamespace(broker_add_before=broker_add_before)


def by_hand(count: int, asynchronous: bool) -> Any:
    """The shortest loop that chains."""
    owner = object()
    functions = [implementation(asynchronous) for _ in range(count)]

    async def broker_add_before(*, broker: Any, storage: Any, uuid: Any, model: Any) -> Any:
        for function in functions:
            result = function(owner, model)
            if asynchronous:
                result = await result
            if result is not None:
                model = result
        return model

    return SimpleNamespace(broker_add_before=broker_add_before)


async def stretch(hook: Any) -> float:
    """Seconds of some awaited calls, as a component writes them."""
    began = perf_counter()
    for _ in range(CALLS):
        await hook.broker_add_before(broker=BROKER, storage=STORAGE, uuid=UUID, model=MODEL)
    return perf_counter() - began


def plain_stretch(hook: Any) -> float:
    """Seconds of some plain calls."""
    began = perf_counter()
    for _ in range(CALLS):
        hook.broker_add_before(broker=BROKER, storage=STORAGE, uuid=UUID, model=MODEL)
    return perf_counter() - began


async def compare(count: int, asynchronous: bool) -> dict[str, float]:
    """Nanoseconds per call of each: the best of several rounds, so that other processes count least."""
    hooks = {
        "qtasks": ours(count, asynchronous), "pluggy, awaited": awaited_pluggy(count, asynchronous),
        "by hand": by_hand(count, asynchronous),
    }  # fmt: skip
    plain = None if asynchronous else pluggy_manager(count, asynchronous=False).hook
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        seconds = {name: await stretch(hook) for name, hook in hooks.items()}
        if plain is not None:
            seconds["pluggy"] = plain_stretch(plain)
        best = {name: min(value, best.get(name, value)) for name, value in seconds.items()}
    return {name: value / CALLS * 1e9 for name, value in best.items()}


async def table() -> dict[str, dict[str, float]]:
    """All figures, by number and kind of the implementations."""
    return {
        f"{count} {'async def' if asynchronous else 'def'}": await compare(count, asynchronous)
        for asynchronous in (False, True)
        for count in COUNTS
    }


def measure_all() -> dict[str, dict[str, float]]:
    """All figures, nanoseconds per call."""
    return asyncio.run(table())


def main() -> None:
    """Prints the table."""
    print(f"{sys.implementation.name} {platform.python_version()}, pluggy {pluggy.__version__}; ns per call")
    print(f"best of {ROUNDS} rounds of {CALLS:,} calls from one coroutine, keyword arguments")
    columns = ("qtasks", "pluggy", "pluggy, awaited", "by hand")
    print(f"{'implementations':<17}" + "".join(f"{name:>17}" for name in columns))
    for label, figures in measure_all().items():
        cells = (f"{figures[name]:>17,.0f}" if name in figures else f"{'–':>17}" for name in columns)
        print(f"{label:<17}" + "".join(cells))


if __name__ == "__main__":
    main()
