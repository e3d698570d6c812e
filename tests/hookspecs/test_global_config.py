"""The triggers of component `global_config`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from qtasks.chain import NULL
from tests.hookspecs.firing import replaces, signal


async def test_global_config_set() -> None:
    await replaces(
        "global_config_set",
        good=[
            ({"value": NULL}, ("text", "text", None)),
            ({"name": "n", "key": "k", "value": None}, ("n", "k", 1)),
        ],
        wrong=[{"name": 5}, {"ttl": 5}, ("n", "k", 1)],
    )


async def test_global_config_get() -> None:
    await replaces(
        "global_config_get",
        good=[(7, 7), (NULL, None), ({"result": 7}, {"result": 7})],
        wrong=[],
    )


async def test_global_config_get_all() -> None:
    await replaces(
        "global_config_get_all",
        good=[({"k": 2}, {"k": 2})],
        wrong=[7, NULL, [("k", 2)]],
    )


async def test_global_config_get_match() -> None:
    await replaces(
        "global_config_get_match",
        good=[({"n": {"k": 2}}, {"n": {"k": 2}})],
        wrong=[{"n": 2}, NULL],
    )


async def test_global_config_start() -> None:
    await signal("global_config_start")


async def test_global_config_stop() -> None:
    await signal("global_config_stop", goes_on=True)


async def test_global_config_set_status() -> None:
    await signal("global_config_set_status")
