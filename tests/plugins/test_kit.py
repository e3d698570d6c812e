"""First-party plugins pass the checks that the kit has for plugins, with a task that declares something for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qtasks import Router
from qtasks.plugins.chain import ChainPlugin
from qtasks.plugins.depends import DependsPlugin
from qtasks.plugins.limits import Limit, LimitsPlugin
from qtasks.plugins.schedule import Every, SchedulePlugin
from qtasks.plugins.states import StatesPlugin
from qtasks.plugins.unique import Unique, UniquePlugin
from qtasks.testing import check_plugin

DECLARED: list[tuple[Callable[[], object], dict[str, Any]]] = [
    (ChainPlugin, {}),
    (DependsPlugin, {}),
    (LimitsPlugin, {"limits": Limit(concurrency=2, rate=1000)}),
    (SchedulePlugin, {"schedule": Every(seconds=3600)}),
    (StatesPlugin, {}),
    (UniquePlugin, {"unique": Unique(window=60)}),
]


@pytest.mark.parametrize(("plugin", "extra"), DECLARED, ids=lambda value: getattr(value, "__name__", ""))
def test_it_passes(plugin: Callable[[], object], extra: dict[str, Any]) -> None:
    async def declared(*args: Any, **kwargs: Any) -> list[Any]:
        return [*args, *kwargs.values()]

    task = Router().task(name="declared", extra=extra)(declared)
    check_plugin(plugin, tasks=[task])
