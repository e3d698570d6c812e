"""unique: at most one open task per key, on every backend, from every process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from qtasks import QueueConfig, QueueTasks, TaskExecSchema, TaskRequest
from qtasks.plugins.keys import digest
from qtasks.plugins.unique import Unique, UniquePlugin, _by_name
from tests.app.conftest import working
from tests.plugins import unique_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, said, until, workers_up
from tests.support.commands import environment


@pytest.fixture
def app(url: str) -> QueueTasks:
    return QueueTasks(url=url, plugins=[UniquePlugin()])


async def test_the_second_add_gets_the_first_ones_task(app: QueueTasks) -> None:
    @app.task(name="report", extra={"unique": Unique()})
    async def report(day: int, *, full: bool = False) -> int:
        return day

    async with app:
        first = await report.add_task(1, full=True)
        again = await report.options(delay=60).add_task(day=1, full=True)
        other = await report.add_task(2, full=True)
        assert again.uuid == first.uuid
        assert other.uuid != first.uuid
        async with asyncio.timeout(10):
            await app.serve(until_idle=True)
        assert (await first.wait_result(5)).returning == 1
        assert (await report.add_task(1, full=True)).uuid != first.uuid


async def test_a_batch_holds_a_key_once(app: QueueTasks) -> None:
    @app.task(name="report", extra={"unique": Unique(key=lambda day, full: day)})
    async def report(day: int, full: bool) -> None: ...

    async with app:
        tasks = await app.add_tasks(
            [TaskRequest(task_name="report", args=(1, full)) for full in (True, False)]
        )
        assert len({task.uuid for task in tasks}) == 1


async def test_a_cancelled_or_failed_task_frees_its_key(app: QueueTasks) -> None:
    @app.task(name="report", extra={"unique": Unique()})
    async def report() -> None:
        raise ValueError

    async with app:
        first = await report.add_task()
        await first.cancel()
        second = await report.add_task()
        await app.serve(until_idle=True)
        assert len({first.uuid, second.uuid, (await report.add_task()).uuid}) == 3


async def test_a_task_that_waits_for_its_retry_holds_its_key(app: QueueTasks) -> None:
    @app.task(name="report", retry=1, retry_delay=3600, extra={"unique": Unique()})
    async def report() -> None:
        raise ValueError

    async with working(app):
        first = await report.add_task()

        async def failed() -> bool:
            found = await app.get(first.uuid)
            return found is not None and found.attempt == 1

        await until(failed)
        assert (await report.add_task()).uuid == first.uuid


async def test_a_window_ends_by_itself(app: QueueTasks) -> None:
    @app.task(name="hourly", extra={"unique": Unique(window=3600)})
    async def hourly() -> None: ...

    @app.task(name="report", extra={"unique": Unique(window=0.2)})
    async def report() -> None: ...

    async with app:
        adding = [hourly.add_task() for _ in range(10)]
        assert len({task.uuid for task in await asyncio.gather(*adding)}) == 1

        first = await report.add_task()

        async def another() -> bool:
            return (await report.add_task()).uuid != first.uuid

        await until(another)
        waiting = await app.get(first.uuid)
        assert waiting is not None
        assert not waiting.finished


async def test_a_callers_own_key_and_a_replay_are_left_alone(app: QueueTasks) -> None:
    @app.task(name="report", extra={"unique": Unique()})
    async def report() -> None: ...

    async with app:
        own = await report.options(unique_key="mine").add_task()
        assert own.extra["unique_key"] == "mine"
        first = await report.add_task()
        assert first.uuid != own.uuid
        await app.serve(until_idle=True)
        replayed = await app.replay(first.uuid)
        assert replayed.extra == first.extra
        assert (await report.add_task()).uuid == replayed.uuid


async def test_a_wrong_declaration_is_told(app: QueueTasks) -> None:
    @app.task(name="report", extra={"unique": True})
    async def report() -> None: ...

    async with app:
        with pytest.raises(Exception, match=r"extra\['unique'\] is a Unique\(...\), not True"):
            await report.add_task()
    with pytest.raises(ValueError, match="window"):
        Unique(window=0)


def _declared() -> TaskExecSchema:
    async def function(a: Any, b: Any, *rest: Any, c: Any = None) -> None: ...

    return QueueTasks(url="memory://").task(name="f")(function).declaration


DECLARED = _declared()
CONFIG = QueueConfig()
SHORT = st.text(max_size=3)
VALUES = st.one_of(
    st.integers(), st.text(), st.sets(SHORT, max_size=3), st.dictionaries(SHORT, st.integers())
)


@settings(max_examples=25)
@given(VALUES, VALUES, VALUES, st.integers(0, 2), st.booleans())
def test_how_an_argument_is_passed_makes_no_difference(
    a: Any, b: Any, c: Any, positional: int, turned: bool
) -> None:
    names = {"a": a, "b": b}
    rest = {name: names[name] for name in list(names)[positional:]} | {"c": c}
    if turned:
        rest = dict(reversed(rest.items()))
    args = tuple(names.values())[:positional]
    assert digest(_by_name(DECLARED, args, rest), CONFIG) == digest(
        _by_name(DECLARED, (), {"c": c, "b": b, "a": a}), CONFIG
    )


def test_a_parameter_without_a_name_is_not_taken_for_a_keyword_of_that_name() -> None:
    async def function(a: Any, /, b: Any = 0, *rest: Any, **kw: Any) -> None: ...

    declared = QueueTasks(url="memory://").task(name="f")(function).declaration
    calls = [((1,), {"a": 2}), ((1,), {"a": 3}), ((2,), {"a": 2}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {})]
    assert len({digest(_by_name(declared, args, kw), CONFIG) for args, kw in calls}) == len(calls)
    assert _by_name(declared, (1, 2), {}) == _by_name(declared, (1,), {"b": 2})


@settings(max_examples=25)
@given(VALUES, VALUES)
def test_other_values_have_another_key(a: Any, b: Any) -> None:
    plain = [sorted(value) if isinstance(value, set) else value for value in (a, b)]
    assert (digest(a, CONFIG) == digest(b, CONFIG)) == (plain[0] == plain[1])


def test_keys_of_dicts_count_as_they_are_in_json() -> None:
    one = UUID(int=1)
    assert digest({1: "a", "b": {one: 2}}, CONFIG) == digest({"b": {str(one): 2}, "1": "a"}, CONFIG)
    assert digest({1: "a", "b": 2}, CONFIG) != digest({2: "a", "b": 2}, CONFIG)
    assert digest(b"\xff", CONFIG) != digest(b"\xfe", CONFIG)


def test_a_set_has_one_key_in_all_processes() -> None:
    code = "import qtasks; from qtasks.plugins.keys import digest; "
    code += "print(digest(set('abcdefghijkl'), qtasks.QueueConfig()))"
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment(), check=True, capture_output=True, text=True
    )
    assert there.stdout.strip() == digest(set("abcdefghijkl"), CONFIG)


def test_the_digest_is_keyed_as_that_of_the_arguments() -> None:
    keys = [QueueConfig(digest_key=SecretStr(secret)) for secret in ("one", "other")]
    assert len({digest("4711", config) for config in (CONFIG, *keys)}) == 3


async def test_two_workers_and_a_killed_holder(redis_url: str, start_workers: StartWorkers) -> None:
    """Both worker processes and this one ask for the same task; the worker that runs it is killed."""
    workers = start_workers(unique_site)
    async with unique_site.make(redis_url) as app:
        await workers_up(app, 2)
        names = [f"report {n}" for n in range(20)]
        race = [(name, await app.add_task("ask", args=(name, "nobody"))) for name in names for _ in range(4)]
        winners = {(name, (await each.wait_result(20)).returning) for name, each in race}
        assert len(winners) == len(names)  # whoever asks for a name gets the same task

        first = await app.add_task("report", args=("long",))
        holder = await said(workers, "report long began")
        asked = [await app.add_task("ask", args=("long",)) for _ in range(10)]
        asked += [await app.add_task("report", args=("long",))]
        assert asked.pop().uuid == first.uuid
        assert {(await each.wait_result(10)).returning for each in asked} == {str(first.uuid)}
        await kill(holder)
        # The key belongs to the task, not to the process: nobody gets another one while it waits to be restored.
        assert (await app.add_task("report", args=("long",))).uuid == first.uuid
        (rest,) = [each for each in workers if each is not holder]
        await said([rest], "report long began")
        assert (await app.add_task("report", args=("long",))).uuid == first.uuid
        done = await first.wait_result(20)
        assert (done.returning, done.deliveries) == ("long", 2)
        assert (await app.add_task("report", args=("long",))).uuid != first.uuid
