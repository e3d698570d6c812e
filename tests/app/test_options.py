"""Options of plugins in declarations: an application says at its start which of them nobody reads."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import pytest

from qtasks import QueueTasks
from qtasks.plugins.depends import Depends, DependsPlugin
from qtasks.plugins.limits import Limit, LimitsPlugin
from qtasks.plugins.schedule import Every
from qtasks.plugins.unique import Unique, UniquePlugin


class Budget:
    """The option of a third party's plugin."""

    qtasks_plugin = "budget"


class BudgetPlugin:
    """It is there under a name of the application's."""

    qtasks_name = "budget"


EXTRA: dict[str, Any] = {
    "unique": Unique(), "limits": [Limit(rate=1)], "schedule": (Every(seconds=60),), "budget": Budget(), "team": "mail",
}  # fmt: skip


def declaring(**options: Any) -> QueueTasks:
    app = QueueTasks(url="memory://", **options)

    @app.task(name="mail", extra=EXTRA)
    async def mail(session: Annotated[object, Depends(object)], text: Annotated[str, "the text"]) -> None: ...

    return app


async def unread(app: QueueTasks, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said at a start; the same at each."""
    said = []
    for _ in range(2):
        caplog.clear()
        async with app:
            said.append([message for message in caplog.messages if "is not registered" in message])
    assert said[0] == said[1]
    return said[0]


async def test_each_option_without_its_plugin_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "qtasks.starter")
    said = await unread(declaring(), caplog)
    assert sorted(said) == [
        f"task 'mail' declares {option}, which does nothing here: the plugin {plugin!r}, which reads it, is not "
        "registered"
        for option, plugin in [
            ("extra['budget'] (Budget)", "budget"),
            ("extra['limits'] (Limit)", "limits"),
            ("extra['schedule'] (Every)", "schedule"),
            ("extra['unique'] (Unique)", "unique"),
            ("the parameter 'session' (Depends)", "depends"),
        ]
    ]


async def test_with_its_plugin_an_option_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """Also under another name; and a plugin that is kept out on purpose is not asked for."""
    caplog.set_level(logging.WARNING, "qtasks.starter")
    app = declaring(plugins=[UniquePlugin(), LimitsPlugin(), DependsPlugin()])
    app.add_plugin(BudgetPlugin(), name="our-budget")
    app.pm.block("schedule")
    assert await unread(app, caplog) == []
