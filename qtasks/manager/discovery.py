"""Plugins that are installed: found through the entry-point group `qtasks.plugins`, loaded on request.

Only the metadata of distributions is read here; nothing of a plugin is imported before `load`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

GROUP: Final = "qtasks.plugins"
AUTOLOAD: Final = "QTASKS_PLUGIN_AUTOLOAD"
BLOCK: Final = "QTASKS_PLUGIN_BLOCK"


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


def blocked() -> frozenset[str]:
    """The names that the environment keeps out of every application: `QTASKS_PLUGIN_BLOCK=name,name`."""
    return frozenset(name.strip() for name in os.environ.get(BLOCK, "").split(",") if name.strip())


class Installed(NamedTuple):
    """What was found for the names that were asked for.

    Attributes:
        points: the entry points, in the order in which they are to be registered.
        rejected: what cannot be had, and why.
    """

    points: list[EntryPoint]
    rejected: list[Quarantined]


def installed(names: Literal["auto"] | Iterable[str]) -> Installed:
    """The entry points asked for.

    With `"auto"` they come in the order of their names, so that a chain does not depend on the order
    of installation; an allow-list is followed in its own order. Where two distributions offer the same
    name none of the two is taken: which one it would be must not depend on what else is installed.
    """
    found, rejected = offered(GROUP)
    wanted = sorted(found) if names == "auto" else list(dict.fromkeys(names))
    result = Installed([], rejected if names == "auto" else [])
    for name in wanted:
        points = found.get(name, [])
        if len(points) == 1:
            result.points.append(points[0])
        elif points:
            result.rejected.extend(_clash(point, points) for point in points)
        else:
            result.rejected.append(missing(name))
    return result


def offered(group: str) -> tuple[dict[str, list[EntryPoint]], list[Quarantined]]:
    """The entry points of a group by name, each with those of all distributions that offer it, and the
    distributions whose metadata cannot be read: one such must not hide the others."""
    found: dict[str, list[EntryPoint]] = {}
    unreadable: list[Quarantined] = []
    seen: set[str] = set()
    for distribution in distributions():
        try:
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            if name in seen:
                continue  # its folder is on the path twice, or another version is shadowed
            seen.add(name)
            points = distribution.entry_points.select(group=group)
        except Exception as error:
            unreadable.append(_unreadable(distribution, error))
            continue
        for point in points:
            found.setdefault(point.name, []).append(point)
    return found, unreadable


def _unreadable(distribution: Distribution, error: Exception) -> Quarantined:
    where = str(distribution.locate_file(""))
    return Quarantined(
        name="?",
        origin=str(getattr(distribution, "_path", where)),
        distribution=None,
        version=None,
        reason=f"the metadata of this distribution cannot be read: {type(error).__name__}: {error}",
        error=error,
    )


def _clash(point: EntryPoint, points: list[EntryPoint]) -> Quarantined:
    all_of_them = " and ".join(sorted(whose(each) for each in points))
    distribution, version = owner(point)
    return Quarantined(
        name=point.name,
        origin=point.value,
        distribution=distribution,
        version=version,
        reason=f"the name {point.name!r} clashes: it is offered by {all_of_them}. None of them is loaded: uninstall "
        "all but one, or add the plugin in the application by app.add_plugin(..., name=...)",
    )


def whose(point: EntryPoint) -> str:
    """An entry point with its distribution, for people."""
    distribution, version = owner(point)
    return f"{distribution} {version} ({point.value})" if distribution else f"({point.value})"


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
