"""Why a plugin stands where it stands: what `qtasks plugins explain TRIGGER` shows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from qtasks.chain import Place
from qtasks.manager.registry import Registry

_GROUPS = ("in the tryfirst group", "", "in the trylast group")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLink:
    """One implementation in the chain of a trigger.

    Attributes:
        position: 1 is the outermost wrapper, or what runs first.
        plugin: the name of the plugin.
        function: where it is defined.
        kind: `"def"`, `"async def"` or `"wrapper"`.
        why: why it stands here.
        conflicts: what it asks for and does not get, and what it may have meant.
    """

    position: int
    plugin: str
    function: str
    kind: str
    why: str
    conflicts: tuple[str, ...] = ()


def explain(registry: Registry, trigger: str) -> list[ChainLink]:
    """The chain of a trigger in the order in which it runs, with the reasons."""
    arranged = registry.arranged(trigger)
    registered = [plugin for plugin, _ in registry.list_name_plugin()]
    links = []
    for position, (impl, place) in enumerate(arranged, 1):
        peers = [other for item, other in arranged if item.wrapper == impl.wrapper]
        ordered = [
            other for _, other in sorted(enumerate(peers), key=lambda item: _base(registered, item[1]))
        ]
        moved = ordered.index(place) != peers.index(place)
        kind = "wrapper" if impl.wrapper else "async def" if _is_async(impl.function) else "def"
        function = f"{impl.function.__module__}.{getattr(impl.function, '__qualname__', impl.function)}"
        why = _why(place, peers, registered.index(place.plugin) + 1, moved)
        if impl.wrapper:
            why = f"a wrapper, runs around the chain; {why}"
        around = {other.plugin for item, other in arranged if item.wrapper != impl.wrapper}
        links.append(
            ChainLink(
                position=position, plugin=place.plugin, function=function, kind=kind, why=why,
                conflicts=tuple(_conflicts(place, peers, around - {peer.plugin for peer in peers}, registered)),
            )
        )  # fmt: skip
    return links


def _conflicts(place: Place, peers: list[Place], around: set[str], registered: list[str]) -> Iterator[str]:
    """What a plugin asks for here and does not get.

    Parameters:
        peers: those that it is ordered with, in their order: all wrappers, or all others.
        around: the plugins that are only among the others.
        registered: the names of all plugins.
    """
    from difflib import get_close_matches  # for mistakes only; every worker would keep it

    if place.tryfirst and place.trylast:
        yield "it asks for tryfirst and for trylast: trylast wins"
    position = peers.index(place)
    if place.group == 0 and (earlier := [peer for peer in peers[:position] if peer.group]):
        yield f"it asks for tryfirst, but {_named(earlier)} runs before it: before and after beat tryfirst"
    if place.group == 2 and (later := [peer for peer in peers[position + 1 :] if peer.group < 2]):
        yield f"it asks for trylast, but {_named(later)} runs after it: before and after beat trylast"
    for word, asked in (("before", place.before), ("after", place.after)):
        for name in sorted(asked):
            if name in around:
                yield f"it asks to run {word} {name!r}, but one of the two is a wrapper here, and runs around the other"
            elif name not in registered and (close := get_close_matches(name, registered, n=1)):
                yield f"it asks to run {word} {name!r}, which is not registered: did it mean {close[0]!r}?"


def _named(places: list[Place]) -> str:
    return ", ".join(dict.fromkeys(repr(place.plugin) for place in places))


def _base(registered: list[str], place: Place) -> tuple[int, int]:
    return place.group, registered.index(place.plugin)


def _why(place: Place, peers: list[Place], number: int, moved: bool) -> str:
    present = {peer.plugin for peer in peers}
    reasons = [f"registered as number {number}"]
    if _GROUPS[place.group]:
        reasons.append(_GROUPS[place.group])
    for word, asked in (("before", place.before), ("after", place.after)):
        reasons += [f"asks to run {word} {name!r}" for name in sorted(asked & present)]
        reasons += [
            f"{word} {name!r} is ignored: it is not in this chain" for name in sorted(asked - present)
        ]
    for peer in peers:
        if place.plugin in peer.before:
            reasons.append(f"{peer.plugin!r} asks to run before it")
        if place.plugin in peer.after:
            reasons.append(f"{peer.plugin!r} asks to run after it")
    if moved:
        reasons.append("moved from its place in registration order for that")
    return "; ".join(reasons)


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function)
