"""The triggers of component `stats`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from tests.hookspecs.firing import signal


async def test_stats_inspect() -> None:
    await signal("stats_inspect")
