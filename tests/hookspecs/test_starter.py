"""The triggers of component `starter`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from tests.hookspecs.firing import signal


async def test_starter_start() -> None:
    await signal("starter_start")


async def test_starter_stop() -> None:
    await signal("starter_stop", goes_on=True)
