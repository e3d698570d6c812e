"""The medians of one run, asked for by workload, contender and name."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.contenders import OURS


def medians(found: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """By workload and contender, the median of each figure over the repetitions."""
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}
    for session in found["sessions"]:
        for name, value in session["figures"].items():
            of = rows.setdefault(session["workload"], {}).setdefault(session["contender"], {})
            of.setdefault(name, []).append(value)
    return {
        workload: {
            contender: {name: statistics.median(values) for name, values in figures.items()}
            for contender, figures in contenders.items()
        }
        for workload, contenders in rows.items()
    }


class Figures:
    """The medians of one run."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._medians = medians(found)

    def __call__(self, name: str, contender: str = OURS.name, workload: str = "base") -> float | None:
        """One figure; `None` where it was not measured."""
        return self._medians.get(workload, {}).get(contender, {}).get(name)

    def best(self, name: str, peers: Iterable[str], *, more: bool = True) -> tuple[str, float] | None:
        """The best of some peers, and its figure."""
        known = [(peer, value) for peer in peers if (value := self(name, peer)) is not None]
        if not known:
            return None
        choose: Callable[..., tuple[str, float]] = max if more else min
        return choose(known, key=lambda pair: pair[1])
