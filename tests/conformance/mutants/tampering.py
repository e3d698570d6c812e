"""Puts something between a component and a trigger: it is dropped, fired twice, fired with a wrong value, or what
plugins replace is ignored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any

Fire = Callable[..., Awaitable[Any]]
Tamper = Callable[[Fire, tuple[str, ...]], Fire]


def _unreplaced(values: dict[str, Any], replaces: tuple[str, ...]) -> Any:
    kept = tuple(values[name] for name in replaces)
    return kept[0] if len(kept) == 1 else kept or None


def dropped(fire: Fire, replaces: tuple[str, ...]) -> Fire:
    async def instead(**values: Any) -> Any:
        return _unreplaced(values, replaces)

    return instead


def twice(fire: Fire, replaces: tuple[str, ...]) -> Fire:
    async def instead(**values: Any) -> Any:
        await fire(**values)
        return await fire(**values)

    return instead


def ignored(fire: Fire, replaces: tuple[str, ...]) -> Fire:
    async def instead(**values: Any) -> Any:
        await fire(**values)
        return _unreplaced(values, replaces)

    return instead


def wrong(name: str, value: Any = None) -> Tamper:
    def tamper(fire: Fire, replaces: tuple[str, ...]) -> Fire:
        async def instead(**values: Any) -> Any:
            return await fire(**{**values, name: value})

        return instead

    tamper.__name__ = f"fired with a wrong {name}"
    return tamper


class Hook:
    def __init__(self, pm: Any, trigger: str, tamper: Tamper) -> None:
        self._pm, self._trigger, self._tamper = pm, trigger, tamper

    def __getattr__(self, name: str) -> Any:
        fire = getattr(self._pm.hook, name)
        if name != self._trigger:
            return fire
        return self._tamper(fire, self._pm.triggers[name].replaces)


class Tampered:
    """Another object, of which one trigger is tampered with: a plugin manager, or an application."""

    def __init__(self, inner: Any, trigger: str, tamper: Tamper) -> None:
        self._inner = inner
        if hasattr(inner, "hook"):
            self.hook = Hook(inner, trigger, tamper)
        else:
            self.pm = Tampered(inner.pm, trigger, tamper)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def with_globals(method: Any, **names: Any) -> Any:
    """A method that finds other classes under these names."""
    made = FunctionType(
        method.__code__, {**method.__globals__, **names}, method.__name__, method.__defaults__
    )
    made.__kwdefaults__ = method.__kwdefaults__
    return made
