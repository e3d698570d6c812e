"""The order in which implementations run: rule 6."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from qtasks.errors import PluginOrderError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What decides where one implementation stands among those of its trigger.

    Attributes:
        plugin: the name of its plugin.
        tryfirst, trylast: its group.
        before, after: names of plugins.
    """

    plugin: str
    tryfirst: bool = False
    trylast: bool = False
    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()

    @property
    def group(self) -> int:
        """0, 1 or 2: tryfirst, unmarked, trylast. Like pluggy, trylast wins over tryfirst."""
        return 2 if self.trylast else 0 if self.tryfirst else 1


def arrange(trigger: str, places: Sequence[Place]) -> list[int]:
    """The positions in `places` (given in registration order) in the order in which they run.

    The groups come first; then whatever stands before something it asked to be after waits for it,
    and of those that may come next the one that stood first comes first.

    Raises:
        PluginOrderError: the `before` and `after` of some plugins form a cycle.
    """
    base = sorted(range(len(places)), key=lambda i: places[i].group)
    if not any(place.before or place.after for place in places):
        return base
    successors = _successors(places)
    waiting = [0] * len(places)
    for targets in successors:
        for target in targets:
            waiting[target] += 1
    rank = {i: n for n, i in enumerate(base)}
    ready = [rank[i] for i in base if not waiting[i]]
    heapq.heapify(ready)
    result: list[int] = []
    while ready:
        i = base[heapq.heappop(ready)]
        result.append(i)
        for target in successors[i]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, rank[target])
    if len(result) < len(places):
        stuck = {i for i in base if waiting[i]}
        raise _cycle(trigger, places, successors, stuck)
    return result


def _successors(places: Sequence[Place]) -> list[set[int]]:
    by_name: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        by_name.setdefault(place.plugin, []).append(i)
    successors: list[set[int]] = [set() for _ in places]
    for i, place in enumerate(places):
        for name in place.before:
            successors[i].update(by_name.get(name, ()))
        for name in place.after:
            for j in by_name.get(name, ()):
                successors[j].add(i)
    return successors


def _cycle(
    trigger: str, places: Sequence[Place], successors: Sequence[set[int]], stuck: set[int]
) -> PluginOrderError:
    # What only stands behind the cycle is stuck too; walking backwards ends up in the cycle itself.
    predecessor = {i: min(j for j in stuck if i in successors[j]) for i in stuck}
    path = [min(stuck)]
    while path[-1] not in path[:-1]:
        path.append(predecessor[path[-1]])
    circle = path[path.index(path[-1]) :][::-1]
    names = [places[i].plugin for i in circle]
    return PluginOrderError(
        f"the plugins {' -> '.join(repr(name) for name in names)} each ask to run before the next "
        f"in trigger {trigger!r}: remove one of their before/after",
        plugin=names[0],
        trigger=trigger,
    )
