"""How long the tasks of killed workers took to come back, by what the witness files say.

I8 speaks of the way back into the queue: from the kill, or from when a worker and the store were there again, to the
sweep that restores the task. What comes after that is the queue: others go before it by priority and age.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

from .site import Site


class Span(NamedTuple):
    """A stretch of time, Unix seconds."""

    begin: float
    end: float


class Interrupted(NamedTuple):
    """A run that a kill ended: when it began, when its worker was killed, when its task began again."""

    uuid: str
    begun: float
    killed: float
    again: float


class Back(NamedTuple):
    """Seconds until a task was queued again, and from then until it began."""

    recovery: float
    waited: float


def interrupted(site: Site) -> list[Interrupted]:
    """The runs that a kill ended and that have begun again since."""
    killed = {pid: float(at) for pid, at in site.lines("kills")}
    begins: dict[str, list[float]] = {}
    running: dict[tuple[str, str], float] = {}
    for uuid, what, pid, at in site.lines("runs"):
        if what == "begin":
            begins.setdefault(uuid, []).append(float(at))
            running[uuid, pid] = float(at)
        else:
            running.pop((uuid, pid), None)
    found = []
    for (uuid, pid), begun in running.items():
        later = [at for at in begins[uuid] if at > killed.get(pid, inf)]
        found += [Interrupted(uuid, begun, killed[pid], min(later))] if later else []
    return found


def backs(site: Site) -> list[Back]:
    """How each interrupted task came back. Left out are those that came back before the kill (their lease had run out
    under a worker that stood still) and those that came back while the store was away or nobody served."""
    restored: dict[str, list[float]] = {}
    for uuid, at in site.lines("restored"):
        restored.setdefault(uuid, []).append(float(at))
    spans = [*unserved(site), *(Span(float(begin), float(end)) for begin, end in site.lines("away"))]
    found = []
    for run in interrupted(site):
        queued = min(
            (at for at in restored.get(run.uuid, ()) if run.begun < at < run.again), default=run.again
        )
        if queued < run.killed or any(begin < queued < end for begin, end in spans):
            continue
        since = max([run.killed, *(end for _, end in spans if end <= queued)])
        found.append(Back(queued - since, run.again - queued))
    return found


def unserved(site: Site) -> list[Span]:
    """When no worker served."""
    ends = {pid: float(at) for pid, at in (*site.lines("kills"), *site.lines("stopped"))}
    still: dict[str, list[Span]] = {}
    for pid, begin, end in site.lines("paused"):
        still.setdefault(pid, []).append(Span(float(begin), float(end)))
    for pid, span in _blocked(site, ends):
        still.setdefault(pid, []).append(span)
    served: list[Span] = []
    for pid, _, at in site.lines("workers"):
        served += _without(Span(float(at), ends.get(pid, inf)), still.get(pid, []))
    gaps, end = [], 0.0
    for span in sorted(served):
        if span.begin > end:
            gaps.append(Span(end, span.begin))
        end = max(end, span.end)
    return gaps


def _blocked(site: Site, ends: dict[str, float]) -> Iterator[tuple[str, Span]]:
    """When a task blocked the event loop of its worker."""
    blocking = {words[0] for words in site.lines("acked") if words[1] == "blocking"}
    begun: dict[tuple[str, str], float] = {}
    for uuid, what, pid, at in site.lines("runs"):
        if uuid in blocking and what == "begin":
            begun[uuid, pid] = float(at)
        elif (uuid, pid) in begun:
            yield pid, Span(begun.pop((uuid, pid)), float(at))
    for (_, pid), at in begun.items():
        yield pid, Span(at, ends.get(pid, inf))


def _without(span: Span, holes: Sequence[Span]) -> list[Span]:
    left, begin = [], span.begin
    for hole in sorted(holes):
        left.append(Span(begin, min(hole.begin, span.end)))
        begin = max(begin, hole.end)
    left.append(Span(begin, span.end))
    return [each for each in left if each.end > each.begin]
