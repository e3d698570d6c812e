"""chain: what runs after what, with which values; ends that are not successes; crashes between steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from qtasks import QueueConfig, QueueTasks, TaskCancelError, TaskNotFoundError
from qtasks.plugins import chain as module
from qtasks.plugins.chain import Chain, ChainPlugin, chain, group, identity, step
from qtasks.plugins.unique import Unique, UniquePlugin
from qtasks.sync import QueueTasks as BlockingQueueTasks
from tests.app.conftest import working
from tests.plugins import chain_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.stores import raw_store
from tests.plugins.support import until, workers_up


def declare(app: QueueTasks) -> list[dict[str, str]]:
    """Some tasks; gives the list into which `report` writes."""
    reports: list[dict[str, str]] = []

    @app.task(name="add")
    async def add(a: int, b: int = 0) -> int:
        return a + b

    @app.task(name="total")
    async def total(numbers: list[int | None], more: int = 0) -> list[Any]:
        return [*numbers, more]

    @app.task(name="fail")
    async def fail(*args: Any) -> None:
        raise ValueError("no")

    @app.task(name="veto")
    async def veto(*args: Any) -> None:
        raise TaskCancelError("not today")

    @app.task(name="large")
    async def large(*args: Any) -> str:
        return "x" * 2000

    @app.task(name="report")
    async def report(told: dict[str, str]) -> None:
        reports.append(told)

    return reports


@pytest.fixture
def app(url: str) -> QueueTasks:
    return QueueTasks(url=url, plugins=[ChainPlugin()])


async def test_steps_groups_and_a_join(app: QueueTasks) -> None:
    declare(app)
    work = chain(
        step("add", 1, b=1),
        step("add", 10),
        group(step("add", 100), step("add", b=200), step("add", 7, 8).options(takes=False)),
        step("total", 5),
        step("total", []).options(takes=False, queue="default", priority=-3),
    )
    async with working(app):
        started = await work.start(app)
        done = await started.wait_result(20)
        assert (done.uuid, done.returning, done.priority) == (started.steps[-1], [0], -3)
        join = await app.get(started.steps[2])
        assert join is not None
        assert join.returning == [112, 212, 15, 5]


async def test_a_group_may_come_first_and_starting_twice_changes_nothing(app: QueueTasks) -> None:
    declare(app)
    work = chain(group(step("add", 1, 2), step("add", 3, 4)), step("total"))
    async with working(app):
        run = uuid4()
        first = await work.start(app, uuid=run)
        assert (await first.wait_result(20)).returning == [3, 7, 0]
        again = await work.start(app, uuid=run)
        assert (await again.wait_result(20)).updated_at == (await first.wait_result(20)).updated_at
        assert len((await app.get_all())[0]) == 3


def test_a_blocking_application_starts_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    work, run = chain(step("add", 1), step("add", 2)), uuid4()
    worker = QueueTasks(url=url, plugins=[ChainPlugin()])
    declare(worker)
    with BlockingQueueTasks(url=url) as app:
        app.add_tasks(work.requests(run))
        asyncio.run(worker.serve(until_idle=True))
        assert [app.wait_result(uuid, 10).returning for uuid in work.steps(run)] == [1, 3]


@pytest.mark.parametrize(
    ("bad", "error"),
    [("fail", "ValueError: no"), ("veto", "cancelled: not today"), ("large", "more than max_payload (1500)")],
)
async def test_a_step_that_fails_ends_the_chain_and_is_told(url: str, bad: str, error: str) -> None:
    app = QueueTasks(url=url, plugins=[ChainPlugin()], config=QueueConfig(max_payload=1500))
    reports = declare(app)
    async with working(app):
        started = await chain(step("add", 1), step(bad), step("add"), on_error=step("report")).start(app)
        ended = await started.wait_result(20)
        assert ended.uuid == started.steps[1]
        assert ended.status in ("error", "cancel")
        await app.wait_result(identity(started.uuid, "error"), 20)
        assert await app.get(started.steps[2]) is None
    (told,) = reports
    assert (told["task"], told["uuid"]) == (bad, str(ended.uuid))
    assert error in told["error"]


async def test_a_step_is_repeated_before_it_fails(app: QueueTasks) -> None:
    declare(app)
    runs = []

    @app.task(name="flaky", retry=2, retry_delay=0)
    async def flaky(number: int) -> int:
        runs.append(number)
        if len(runs) < 3:
            raise ValueError
        return number

    async with working(app):
        started = await chain(step("add", 1), step("flaky"), step("add", 1)).start(app)
        assert (await started.wait_result(20)).returning == 2
    assert runs == [1, 1, 1]


async def test_a_replayed_step_goes_on_with_the_chain(app: QueueTasks) -> None:
    declare(app)
    mended = []

    @app.task(name="broken")
    async def broken(number: int) -> int:
        if not mended:
            raise ValueError
        return number

    async with working(app):
        started = await chain(step("add", 1), step("broken"), step("add", 1)).start(app)
        failed = await started.wait_result(20)
        mended.append(True)
        await (await app.replay(failed.uuid)).wait_result(20)
        assert (await app.wait_result(started.steps[2], 20)).returning == 2


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_group_whose_members_fail(app: QueueTasks, keep_going: bool) -> None:
    reports = declare(app)
    members = group(step("add", 1), step("fail"), step("fail"), keep_going=keep_going)
    async with working(app):
        started = await chain(members, step("total"), step("total"), on_error=step("report")).start(app)
        ended = await started.wait_result(20)
        if keep_going:
            assert (ended.uuid, ended.returning) == (started.steps[1], [1, None, None, 0, 0])
        else:
            assert (ended.uuid, ended.status) == (started.steps[0], "cancel")
            assert "of the group ended in error" in (ended.cancel_reason or "")
            await app.wait_result(identity(started.uuid, "error"), 20)
    assert len(reports) == (0 if keep_going else 1)


async def test_a_member_that_never_ran_does_not_hold_the_join_up(app: QueueTasks) -> None:
    """It is cancelled while it waits: no trigger fires for it."""
    declare(app)
    async with working(app):
        members = group(step("add", 1), step("add", 2).options(queue="nobody"), keep_going=True)
        started = await chain(members, step("total")).start(app)
        await app.wait_result(identity(started.uuid, 0, 0), 20)
        await app.cancel(identity(started.uuid, 0, 1))
        assert (await started.wait_result(20)).returning == [1, None, 0]


async def test_a_chain_outlives_the_records_of_its_steps() -> None:
    app = QueueTasks(url="memory://", plugins=[ChainPlugin()])

    @app.task(name="count")
    async def count(number: int = 0) -> int:
        return number + 1

    async with app:
        started = await chain(step(count), step(count), step(count)).start(app)
        await app.serve(until_idle=True)
        await app.delete(started.steps[:2])
        assert (await started.wait_result(20)).returning == 3
        await app.delete(started.steps[2:])
        with pytest.raises(TaskNotFoundError, match=f"the run {started.uuid} of a chain"):
            await started.wait_result(20)


async def test_a_member_that_is_not_there_any_more(app: QueueTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.0)
    declare(app)
    async with app:
        started = await chain(group(step("add", 1), step("add", 2)), step("total")).start(app)
        lost = identity(started.uuid, 0, 1)
        await app.cancel(lost)
        await app.delete([lost])
        await app.serve(until_idle=True)
        ended = await started.wait_result(20)
        assert ended.cancel_reason == f"task {lost} of the group is not there any more"


async def test_a_member_that_is_still_on_its_way_is_waited_for(app: QueueTasks) -> None:
    """The start was cut off, and is repeated with the same uuid."""
    declare(app)
    work = chain(group(step("add", 1), step("add", 2)), step("total"))
    async with app:
        started = await work.start(app)
        missing = identity(started.uuid, 0, 1)
        await app.cancel(missing)
        await app.delete([missing])
        serving = asyncio.create_task(app.serve())

        async def join_waits() -> bool:
            join = await app.get(started.steps[0])
            return join is not None and join.available_at > join.created_at

        await until(join_waits)
        await work.start(app, uuid=started.uuid)
        assert (await started.wait_result(20)).returning == [1, 2, 0]
        await app.stop()
        await serving


async def test_a_unique_step_is_not_dropped_for_an_equal_task(url: str) -> None:
    app = QueueTasks(url=url, plugins=[ChainPlugin(), UniquePlugin()])
    declare(app)

    @app.task(name="unique", extra={"unique": Unique(key=lambda number: number)})
    async def unique(number: int) -> int:
        return number

    async with working(app):
        other = await app.add_task("unique", args=(1,), queue="nobody")
        started = await chain(step("add", 1), step("unique"), step("add", 1)).start(app)
        assert (await started.wait_result(20)).returning == 2
        assert (await other.cancel()) is True


@pytest.mark.parametrize(
    "make", [lambda: chain(), lambda: group(), lambda: chain(group(step("a")), group(step("b")))]
)
def test_a_chain_that_makes_no_sense_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"needs at least one|is followed by the step that joins it"):
        make()


# --- A law ----------------------------------------------------------------------------------

NUMBERS = st.integers(-5, 5)
STAGES = st.lists(st.one_of(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=4)), min_size=1, max_size=5)


def compose(value: int, stages: list[Any]) -> int:
    """What the chain is to compute: a number is added, a list of numbers is added side by side and summed up."""
    for stage in stages:
        value = sum(value + each for each in stage) if isinstance(stage, list) else value + stage
    return value


def as_chain(value: int, stages: list[Any]) -> Chain:
    found: list[Any] = [step("add", value)]
    for stage in stages:
        if isinstance(stage, list):
            found += [group(*(step("add", each) for each in stage)), step("sum")]
        else:
            found.append(step("add", stage))
    return chain(*found)


@settings(max_examples=10)
@given(st.lists(st.tuples(NUMBERS, STAGES), min_size=1, max_size=4), st.sets(st.integers(0, 30), max_size=6))
def test_chains_compute_what_their_functions_compute(
    chains: list[tuple[int, list[Any]]], failures: set[int]
) -> None:
    """Several at the same time, and with steps that fail at first."""
    app = QueueTasks(url="memory://", plugins=[ChainPlugin()])
    runs = iter(range(10_000))

    @app.task(name="add", retry=10, retry_delay=0)
    async def add(a: int, b: int = 0) -> int:
        if next(runs) in failures:
            raise ValueError
        return a + b

    @app.task(name="sum")
    async def sum_up(numbers: list[int]) -> int:
        return sum(numbers)

    async def play() -> list[int]:
        async with working(app):
            started = [await as_chain(*each).start(app) for each in chains]
            return [(await each.wait_result(20)).returning for each in started]

    assert asyncio.run(play()) == [compose(*each) for each in chains]


# --- Across processes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["worker.before_settle:2", pytest.param("worker.after_claim:2", marks=pytest.mark.nightly)]
)
async def test_two_workers_and_one_killed_between_two_steps(
    redis_url: str, start_workers: StartWorkers, where: str
) -> None:
    """One worker dies at that place; others take the chain to its end, and nothing of it lies in the clear. Then joins
    run exactly once although members of their groups end in two workers."""
    (doomed,) = start_workers(chain_site, 1, QTASKS_FAILPOINT=where, QTASKS_CONCURRENCY="1")
    async with chain_site.make(redis_url) as app:
        await workers_up(app, 1)
        letters = ["aSECRETa", "bSECRETb", "cSECRETc"]
        started = await chain(*(step("append", each) for each in ("", *letters))).start(app)
        await asyncio.to_thread(doomed.process.wait, 30)
        unfinished = await app.get(started.steps[-1])
        assert unfinished is None
        for queue in ("default", "two"):
            start_workers(chain_site, 1, QTASKS_QUEUES=f'["{queue}"]')
        assert (await started.wait_result(20)).returning == "".join(letters)
        assert len((await app.get_all())[0]) == 4
        # The step whose result was not stored ran again; all others ran once.
        await told_once(
            redis_url, "", *letters, *(["aSECRETa"] if where.startswith("worker.before_settle") else [])
        )
        assert b"SECRET" not in raw_store(redis_url)

        names = [f"join-{n}" for n in range(10)]
        members = [
            step("append", "", "a").options(queue="two"),
            step("append", "", "b"),
            step("append", "", "c"),
        ]
        joins = [await chain(group(*members), step("joined", name)).start(app) for name in names]
        assert [(await each.wait_result(20)).returning for each in joins] == [f"{name}abc" for name in names]

        async def empty() -> bool:
            return not any(any(size) for size in (await app.broker.size()).values())

        await until(empty)
        await told_once(redis_url, *names, *(["a", "b", "c"] * len(names)))


async def told_once(redis_url: str, *expected: str) -> None:
    """What the steps have told since this was asked last."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        told = await redis.lrange(chain_site.LOG, 0, -1)
        await redis.delete(chain_site.LOG)
    assert sorted(told) == sorted(expected)
