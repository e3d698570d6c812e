"""What firing a trigger costs, against plain pluggy and a loop by hand: `python -m benchmarks.chain`.

The yardsticks have no checks, no isolation, no bound and (pluggy) no chaining; they show the floor.
"""

from __future__ import annotations

import asyncio
import inspect
import platform
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import pluggy

from qtasks.manager import PluginManager
from qtasks.markers import hookimpl

CALLS, ROUNDS = 5_000, 9
VALUES: dict[str, Any] = {"broker": 1, "storage": 2, "uuid": 3, "model": 4}
Fire = Callable[[], Awaitable[Any]]


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


def ours(count: int, asynchronous: bool) -> Fire:
    """The chain of qtasks, with its default bound, on a bound loop."""
    pm = PluginManager()
    pm.bind_loop(asyncio.get_running_loop())
    for i in range(count):
        method = hookimpl(implementation(asynchronous))
        pm.register(type("Plugin", (), {"broker_add_before": method})(), name=f"p{i}")
    return lambda: pm.hook.broker_add_before(**VALUES)


def plain_pluggy(count: int, asynchronous: bool) -> Fire:
    """pluggy, awaiting each result; it does not hand a replaced value on to the next."""
    spec, impl = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    def broker_add_before(broker: Any, storage: Any, uuid: Any, model: Any) -> None: ...

    pm = pluggy.PluginManager("bench")
    pm.add_hookspecs(type("Specs", (), {"broker_add_before": staticmethod(spec(broker_add_before))}))
    for i in range(count):
        method = impl(implementation(asynchronous))
        pm.register(type("Plugin", (), {"broker_add_before": method})(), name=f"p{i}")

    async def fire() -> Any:
        model = VALUES["model"]
        for result in pm.hook.broker_add_before(**VALUES):
            if inspect.isawaitable(result):
                result = await result
            if result is not None:
                model = result
        return model

    return fire


def by_hand(count: int, asynchronous: bool) -> Fire:
    """The shortest loop that chains."""
    owner = object()
    functions = [implementation(asynchronous) for _ in range(count)]

    async def chain(*, broker: Any, storage: Any, uuid: Any, model: Any) -> Any:
        for function in functions:
            result = function(owner, model)
            if result is not None and asynchronous:
                result = await result
            if result is not None:
                model = result
        return model

    return lambda: chain(**VALUES)


async def measure(fire: Fire) -> float:
    """Nanoseconds per call: the best of several rounds, so that other processes count least."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(CALLS):
            await fire()
        best = min(best, perf_counter() - began)
    return best / CALLS * 1e9


async def main() -> None:
    """Prints the table."""
    print(f"{sys.implementation.name} {platform.python_version()}, pluggy {pluggy.__version__}; ns per call")
    print(f"best of {ROUNDS} rounds of {CALLS:,} awaited calls from one coroutine, keyword arguments")
    print(f"{'implementations':<20}{'qtasks':>10}{'pluggy':>10}{'by hand':>10}")
    for asynchronous in (False, True):
        for count in (0, 1, 3, 10):
            label = f"{count} {'async def' if asynchronous else 'def'}"
            figures = [await measure(make(count, asynchronous)) for make in (ours, plain_pluggy, by_hand)]
            print(f"{label:<20}" + "".join(f"{figure:>10,.0f}" for figure in figures))


if __name__ == "__main__":
    asyncio.run(main())
