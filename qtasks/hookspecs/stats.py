"""The triggers of the stats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtasks.markers import hookspec

if TYPE_CHECKING:
    from qtasks.components.stats import Stats


@hookspec
def stats_inspect(stats: Stats) -> None:
    """Called before InspectStats is defined.

    Fires:
        In `stats.inspect`, before the figures are gathered.

    Parameters:
        stats: the stats component.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def stats_inspect():
            inspections.inc()
    """
