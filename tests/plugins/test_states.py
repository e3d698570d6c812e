"""states: shared values, changed by compare-and-set, on every backend and across processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qtasks import QueueTasks, current_task
from qtasks.errors import NotStartedError
from qtasks.plugins.states import StatesPlugin
from tests.app.conftest import working
from tests.plugins import states_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, until, workers_up


@pytest.fixture
async def states(url: str) -> AsyncIterator[StatesPlugin]:
    plugin = StatesPlugin()
    async with QueueTasks(url=url, plugins=[plugin]):
        yield plugin


async def test_get_set_delete_clear(states: StatesPlugin) -> None:
    assert await states.get("a") is None
    assert await states.get("a", 7) == 7
    await states.set("a", None)
    assert await states.get("a", 7) is None
    await states.set("b:*?[x]\n{}", {"deep": [1, 2.5, "x"]})
    assert await states.get_all() == {"a": None, "b:*?[x]\n{}": {"deep": [1, 2.5, "x"]}}
    assert await states.delete("a")
    assert not await states.delete("a")
    await states.clear()
    assert await states.get_all() == {}


async def test_versions(states: StatesPlugin) -> None:
    assert await states.get_versioned("a") == (None, 0)
    first = await states.set("a", 1, if_version=0)
    assert first
    assert await states.set("a", 2, if_version=0) is None
    second = await states.set("a", 2, if_version=first)
    assert second
    assert await states.set("a", 3, if_version=first) is None
    assert await states.get_versioned("a") == (2, second)
    assert not await states.delete("a", if_version=first)
    assert await states.delete("a", if_version=second)


async def test_a_value_with_a_ttl_goes_by_itself(states: StatesPlugin) -> None:
    await states.set("a", 1, ttl=0.1)
    await states.set("b", 1)
    await states.update("b", lambda value: value + 1, ttl=0.1)
    await states.set("kept", 1, ttl=3600)

    async def gone() -> bool:
        return await states.get_all() == {"kept": 1}

    await until(gone)


async def test_updates_of_many_coroutines_all_count(states: StatesPlugin) -> None:
    async def add(number: int) -> None:
        await states.update("numbers", lambda numbers: [*numbers, number], [])

    await asyncio.gather(*(add(number) for number in range(20)))
    assert sorted(await states.get("numbers")) == list(range(20))


async def test_an_error_in_the_function_changes_nothing(states: StatesPlugin) -> None:
    await states.set("a", 1)

    def fail(value: Any) -> Any:
        raise LookupError(value)

    with pytest.raises(LookupError):
        await states.update("a", fail)
    assert await states.get("a") == 1


async def test_namespaces_are_apart(url: str) -> None:
    one, other = StatesPlugin(), StatesPlugin("other")
    async with QueueTasks(url=url, plugins=[one, other]):
        await one.set("a", 1)
        await other.set("a", 2)
        await one.clear()
        assert (await one.get_all(), await other.get_all()) == ({}, {"a": 2})


async def test_a_plain_function_uses_them_through_its_context(url: str) -> None:
    states = StatesPlugin()
    app = QueueTasks(url=url, plugins=[states])

    @app.task
    def plain() -> int:
        found: int = current_task().run_sync(states.update("a", lambda value: value + 1, 0))
        return found

    async with working(app):
        assert (await (await plain.add_task()).wait_result(10)).returning == 1


async def test_two_running_applications_cannot_share_the_plugin(caplog: pytest.LogCaptureFixture) -> None:
    states = StatesPlugin()
    async with QueueTasks("first", url="memory://", plugins=[states]) as first:
        async with QueueTasks("second", url="memory://", plugins=[states]) as second:
            assert "is in use by another application" in caplog.text
            await states.set("whose", "the first one's")
            assert await second.global_config.get_all("states:default") == {}
        assert await states.get("whose") == "the first one's"
        assert await first.global_config.get_all("states:default") == {"whose": "the first one's"}


async def test_outside_of_a_started_application_it_says_so() -> None:
    states = StatesPlugin()
    with pytest.raises(NotStartedError, match="while the application is started"):
        await states.get("a")
    async with QueueTasks(url="memory://", plugins=[states]):
        pass
    with pytest.raises(NotStartedError):
        await states.set("a", 1)


async def test_two_workers_one_of_which_is_killed(redis_url: str, start_workers: StartWorkers) -> None:
    """Every update of every process counts, from coroutines and from threads. One that is killed in the middle of
    its updates leaves no lock behind, and no half of a value."""
    queues = ("one", "two")  # one for each process, so that both take part
    workers = [start_workers(states_site, 1, QTASKS_QUEUES=f'["{queue}"]')[0] for queue in queues]
    async with states_site.make(redis_url) as app:
        await workers_up(app, 2)
        names = ["count", "count-in-a-thread"] * 3
        tasks = [await app.add_task(name, args=(25,), queue=queue) for name in names for queue in queues]
        pids = {(await task.wait_result(20)).returning for task in tasks}
        assert len(pids) == 2
        assert await states_site.states.get("counter") == 25 * len(tasks)

        await app.add_task("toggle", queue="one")

        async def at_work() -> bool:
            return (await states_site.states.get("pair", [0, 0]))[0] > 50

        await until(at_work)
        await kill(workers[0])
        before = await states_site.states.get("pair")
        assert sum(before) == 0
        after = await states_site.states.update("pair", lambda pair: [pair[0] + 1, pair[1] - 1])
        assert after == [before[0] + 1, before[1] - 1]
