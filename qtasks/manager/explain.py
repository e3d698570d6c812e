"""Why a plugin stands where it stands: what `qtasks plugins explain TRIGGER` shows."""

from __future__ import annotations

import inspect
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
    """

    position: int
    plugin: str
    function: str
    kind: str
    why: str


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
        links.append(ChainLink(position=position, plugin=place.plugin, function=function, kind=kind, why=why))
    return links


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
