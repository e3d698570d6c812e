"""The suite of stats: what a look at an application shows, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from qtasks import __version__
from qtasks.components.stats import InspectStats
from qtasks.errors import NotStartedError
from qtasks.testing.bench import Factory
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage


class StatsSuite(AppSuite):
    """All that stats have to hold, whether they inherit the methods of `Stats` or have their own.

    class TestMyStats(StatsSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self):
            return MyStats
    """

    slot = "stats"

    @check("STATS-01")
    async def test_the_trigger(self, bench: AppBench) -> None:
        """`inspect` fires `stats_inspect` once, with these stats, and no other trigger.

        If this fails, check that `inspect` fires what that of the base class fires, and reads through primitives.
        """
        stage = await bench.stage()
        async with stage.app as app:
            stage.take()
            await app.stats.inspect()
            assert stage.heard.of("stats_inspect") == [{"stats": app.stats}]
            assert stage.take() == ["stats_inspect"]

    @check("STATS-02")
    async def test_what_it_shows(self, bench: AppBench) -> None:
        """It shows the application, its queues and records as they are, its declared tasks and its plugins.

        If this fails, check where each field of `InspectStats` is taken from.
        """
        stage = await bench.stage()

        async def fails() -> None:
            raise ValueError("always")

        stage.declare(
            {"queue": "second", "priority": 3, "retry": 2, "retry_on_exc": (KeyError,)}, fails=fails
        )
        async with stage.app as app:
            for name in ("work", "fails"):
                await app.add_task(name)
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            await app.add_task("work")
            await app.add_task("work", delay=1000)
            shown = await app.stats.inspect()
        assert isinstance(shown, InspectStats)
        assert (shown.app["name"], shown.app["version"]) == (app.name, __version__)
        assert shown.app["broker"] == type(app.broker).__name__
        assert shown.queues["default"] == {"ready": 1, "delayed": 1, "leased": 0}
        assert {"new": 2, "success": 1, "error": 1, "dead": 1}.items() <= shown.records.items()
        declared = {task["name"]: task for task in shown.tasks}
        assert declared.keys() == {"work", "other", "fails"}
        failing = declared["fails"]
        assert (failing["queue"], failing["priority"], failing["retry"]) == ("second", 3, 2)
        assert "recorder" in [plugin["name"] for plugin in shown.plugins]

    @check("STATS-03")
    async def test_workers(self, bench: AppBench) -> None:
        """It shows the workers that live, and those only.

        If this fails, check that it reads the signs of life, not this process.
        """
        stage = await bench.stage()
        async with stage.app as app:
            async with stage.serving():
                await stage.heard.until("global_config_set_status")
                shown = await app.stats.inspect()
                assert list(shown.workers) == [app.worker.owner]
            assert (await app.stats.inspect()).workers == {}

    @check("STATS-04")
    async def test_errors_of_plugins(self, bench: AppBench) -> None:
        """A plugin that fails in `stats_inspect` costs nothing, and is counted in what is shown.

        If this fails, check that the signal is fired first, and `pm.errors` is read after it.
        """
        stage = await bench.stage()
        stage.heard.returns["stats_inspect"] = ValueError("broken")
        async with stage.app as app:
            for count in (1, 2):
                assert (await app.stats.inspect()).plugin_errors == {"recorder": {"stats_inspect": count}}

    @check("STATS-05")
    async def test_json(self, bench: AppBench) -> None:
        """`to_dict` is plain data, with all fields, that JSON can hold.

        If this fails, check the values of your fields.
        """
        stage = await bench.stage()
        async with stage.app as app:
            await app.add_task("work")
            plain = (await app.stats.inspect()).to_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert plain.keys() >= set(InspectStats.__dataclass_fields__)

    @check("STATS-06")
    async def test_a_look_changes_nothing(self, bench: AppBench) -> None:
        """A look changes no record and no entry, and the next look sees what has changed since; looks at the same
        time do not disturb each other.

        If this fails, check that nothing is kept from one look to the next.
        """
        stage = await bench.stage()
        async with stage.app as app:
            task = await app.add_task("work")
            before = await stage.stored(task.uuid)
            shown = await asyncio.gather(*(app.stats.inspect() for _ in range(10)))
            assert [each.queues["default"]["ready"] for each in shown] == [1] * 10
            assert await stage.stored(task.uuid) == before
            await app.add_task("work")
            assert (await app.stats.inspect()).queues["default"]["ready"] == 2

    @check("STATS-07")
    async def test_not_started(self, bench: AppBench) -> None:
        """Outside `async with app:` it raises `NotStartedError`, and fires nothing.

        If this fails, check that `inspect` asks `starter.check_started` first.
        """
        stage = await bench.stage()
        for _ in range(2):
            with pytest.raises(NotStartedError):
                await stage.app.stats.inspect()
            assert stage.take() == []
            async with stage.app:
                await stage.app.stats.inspect()
            stage.take()

    @check("STATS-08")
    def test_another_loop(self, make_component: Factory) -> None:
        """The same stats serve their application in another event loop, after the first one has ended.

        If this fails, check that nothing of the first loop is kept.
        """
        stages: list[Stage] = []

        async def run() -> None:
            async with self.workbench(make_component) as bench:
                stages[:] = stages or [await bench.stage()]
                async with stages[0].app as app:
                    await app.stats.inspect()

        asyncio.run(run())
        asyncio.run(run())
