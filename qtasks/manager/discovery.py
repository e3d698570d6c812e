"""Plugins that are installed: found through the entry-point group `qtasks.plugins`, loaded on request."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Final, Literal

GROUP: Final = "qtasks.plugins"
AUTOLOAD: Final = "QTASKS_PLUGIN_AUTOLOAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An installed plugin that was left out.

    Attributes:
        name: the name of its entry point.
        origin: what the entry point refers to; empty if there is no such entry point.
        distribution, version: what it came with.
        reason: what is wrong, for people.
        error: what was raised.
    """

    name: str
    origin: str
    distribution: str | None
    version: str | None
    reason: str
    error: BaseException | None = None


def enabled() -> bool:
    """Whether the environment allows discovery: `QTASKS_PLUGIN_AUTOLOAD=0` turns it off."""
    return os.environ.get(AUTOLOAD, "1").strip().lower() not in {"0", "false", "no", "off"}


def installed(names: Literal["auto"] | Iterable[str]) -> tuple[list[EntryPoint], list[str]]:
    """The entry points asked for, and the names that are not installed.

    With `"auto"` they come in the order of their names, so that a chain does not depend on the order
    of installation; an allow-list is followed in its own order.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        same = found.setdefault(point.name, [])
        # The same distribution may be found twice, when its folder is on the path twice.
        if all((point.value, owner(point)) != (other.value, owner(other)) for other in same):
            same.append(point)
    if names == "auto":
        return [point for name in sorted(found) for point in found[name]], []
    wanted = list(dict.fromkeys(names))
    return [point for name in wanted for point in found.get(name, ())], [n for n in wanted if n not in found]


def owner(point: EntryPoint) -> tuple[str | None, str | None]:
    """The name and version of the distribution that an entry point belongs to."""
    if point.dist is None:
        return None, None
    return point.dist.name, point.dist.version


def version_of(plugin: object) -> str | None:
    """The version of a plugin that was registered directly: what it says itself, or what its package says."""
    named = plugin if isinstance(plugin, ModuleType) or inspect.isclass(plugin) else type(plugin)
    module = named.__name__ if isinstance(named, ModuleType) else named.__module__
    package = sys.modules.get(module.partition(".")[0])
    found = getattr(plugin, "__version__", None) or getattr(package, "__version__", None)
    return found if isinstance(found, str) else None


def load(point: EntryPoint) -> Any:
    """The plugin that an entry point refers to: a module, an object, or a class, which is made here."""
    found = point.load()
    return found() if inspect.isclass(found) else found


def quarantined(point: EntryPoint, error: BaseException) -> Quarantined:
    """The record of an installed plugin that failed."""
    distribution, version = owner(point)
    return Quarantined(
        name=point.name,
        origin=point.value,
        distribution=distribution,
        version=version,
        reason=f"{type(error).__name__}: {error}",
        error=error,
    )


def missing(name: str) -> Quarantined:
    """The record of a name that was asked for, but is not installed."""
    return Quarantined(
        name=name,
        origin="",
        distribution=None,
        version=None,
        reason=f"no installed distribution has an entry point {name!r} in the group {GROUP!r}",
    )
