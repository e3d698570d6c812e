"""schedule: which times there are, also when clocks are changed; and that each has exactly one task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtasks import QueueTasks, Router, Task
from qtasks.errors import TaskDeclarationError, TransientError
from qtasks.plugins import schedule
from qtasks.plugins.schedule import Cron, Every, Job, SchedulePlugin
from tests.app.conftest import working
from tests.plugins import schedule_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, until, workers_up

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

# --- Times ----------------------------------------------------------------------------------


def times(cron: Cron, begin: str, count: int) -> list[str]:
    moment, found = datetime.fromisoformat(begin).timestamp(), []
    for _ in range(count):
        following = cron.after(moment)
        assert following is not None
        moment = following
        found.append(datetime.fromtimestamp(moment, ZoneInfo(cron.tz)).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("zone", "expression", "begin", "expected"),
    [
        # Put forward, 02:00 to 03:00: a fixed time in the gap runs when the gap is over, once.
        (BERLIN, "30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        (BERLIN, "0 3 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T03:00+02:00"]),
        (BERLIN, "0,30 2,3 * * *", "2026-03-29T01:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]),
        (BERLIN, "*/30 * * * *", "2026-03-29T01:15+01:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00"]),
        (NEW_YORK, "30 2 * * *", "2026-03-08T00:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        # Put back, 03:00 to 02:00: a fixed time runs once, in the first of the two hours.
        (BERLIN, "30 2 * * *", "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        (BERLIN, "30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30+01:00"]),
        (NEW_YORK, "30 1 * * *", "2026-11-01T00:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        # What goes by the time that passes runs in both.
        (BERLIN, "*/30 * * * *", "2026-10-25T02:15+02:00",
         ["2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00"]),
        (BERLIN, "0 * * * *", "2026-10-25T01:30+02:00", ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]),
        # Half an hour.
        (LORD_HOWE, "15 2 * * *", "2026-10-03T12:00+10:30", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04T12:00+11:00", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
        # And where no clock is changed.
        ("UTC", "*/5 * * * *", "2026-01-01T00:00+00:00", ["2026-01-01T00:05+00:00", "2026-01-01T00:10+00:00"]),
        ("UTC", "30 */20 * * * *", "2026-01-01T00:00+00:00", ["2026-01-01T00:00+00:00", "2026-01-01T00:20+00:00"]),
        ("Asia/Kolkata", "0 9 * * MON", "2026-01-01T00:00+05:30", ["2026-01-05T09:00+05:30"]),
    ],
)  # fmt: skip
def test_times(zone: str, expression: str, begin: str, expected: list[str]) -> None:
    assert times(Cron(expression=expression, tz=zone), begin, len(expected)) == expected


MOMENTS = st.floats(1.7e9, 1.9e9)
CHANGES = [  # moments at which clocks are changed
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC),
]  # fmt: skip
NEAR = st.builds(lambda at, off: at.timestamp() + off, st.sampled_from(CHANGES), st.floats(-14_400, 14_400))
SCHEDULES = st.one_of(
    st.builds(lambda seconds: Every(seconds=seconds), st.floats(0.01, 1e6)),
    st.builds(
        lambda expression, tz: Cron(expression=expression, tz=tz),
        st.sampled_from(
            [
                "*/5 * * * *",
                "30 2 * * *",
                "0,30 1-3 * * *",
                "15 * * * *",
                "0 0 * * SUN",
                "45 1 29 2 *",
                "*/30 2 * * *",
            ]
        ),
        st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC"]),
    ),
)


@settings(max_examples=150)
@given(SCHEDULES, st.one_of(MOMENTS, NEAR), st.floats(0, 1))
def test_all_workers_mean_the_same_times(plan: Cron | Every, moment: float, part: float) -> None:
    """The next time lies ahead, and from wherever before it one looks, it is the same."""
    following = plan.after(moment)
    assert following is not None
    assert following > moment
    between = min(moment + (following - moment) * part, following)
    if between < following:
        assert plan.after(between) == following


@given(st.integers(1, 50), st.integers(0, 30), st.floats(0, 0.9))
def test_what_was_missed(seconds: int, ticks: int, late: float) -> None:
    last = 1_000_000.0 * seconds
    now = last + (ticks + late) * seconds
    due = [last + n * seconds for n in range(1, ticks + 1)]
    policies: list[Any] = ["one", "skip", "all"]
    one, skip, every = (Every(seconds=seconds, catch_up=each, most=7).missed(last, now) for each in policies)
    assert one == due[-1:]
    assert skip == (due[-1:] if due and now - due[-1] <= schedule.LATE else [])
    assert every == due[-7:]


def test_a_silence_of_years_is_passed_over_quickly() -> None:
    plan = Cron(expression="* * * * *", tz=BERLIN, catch_up="all", most=3)
    now = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    assert plan.missed(now - 1e8, now) == [now - 120, now - 60, now]
    assert Cron(expression="0 0 29 2 *").missed(now - 1e8, now) == [
        datetime(2024, 2, 29, tzinfo=UTC).timestamp()
    ]


@pytest.mark.parametrize("catch_up", ["one", "skip", "all"])
def test_a_silence_costs_by_what_is_added_and_not_by_how_long_it_was(catch_up: Any) -> None:
    looked = 0

    class Counted(Every):
        def after(self, moment: float) -> float | None:
            nonlocal looked
            looked += 1
            return super().after(moment)

    plan = Counted(seconds=0.05, catch_up=catch_up)
    now = 1_800_000_000.0
    assert len(plan.missed(now - 86_400 * 365, now)) == (100 if catch_up == "all" else 1)
    assert looked < 10_000


def test_no_two_schedules_have_the_same_name() -> None:
    app = QueueTasks(url="memory://")
    named = [("a:b", "c"), ("a", "b:c"), ("a", "b%3Ac"), ("a", "")]
    assert len({Job(app, task, Every(seconds=1, key=key)).name for task, key in named}) == len(named)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cron(expression="* * *"), r"'\* \* \*' is not a cron expression"),
        (lambda: Cron(expression="61 * * * *"), "is not a cron expression"),
        (lambda: Cron(expression="* * * * *", tz="Mars/Olympus"), "'Mars/Olympus' is not a time zone"),
        (lambda: Cron(expression="* * * * *", tz="../etc"), "is not a time zone"),
        (lambda: Every(seconds=0), "an interval is at least"),
        (lambda: Every(seconds=1, catch_up="al"), "catch_up is one of skip, one, all, not 'al'"),
        (lambda: Cron(expression="* * * * *", catch_up="all", most=0), "most is at least 1, not 0"),
    ],
)
def test_a_wrong_schedule_is_told_at_once(make: Any, message: str) -> None:
    with pytest.raises(TaskDeclarationError, match=message):
        make()


# --- Declaring ------------------------------------------------------------------------------


def test_cron_declares_a_task_and_registers_the_plugin() -> None:
    app = QueueTasks(url="memory://")
    assert not app.pm.has("schedule")

    @app.cron("*/5 * * * *")
    async def tidy() -> None: ...

    @app.cron("0 9 * * *", tz=BERLIN, key="morning")
    @app.cron("0 18 * * *", tz=BERLIN, key="evening")
    @app.task(name="report", retry=3)
    async def report() -> None: ...

    assert app.pm.has("schedule")
    assert app.tasks[tidy.name].extra["schedule"] == (Cron(expression="*/5 * * * *"),)
    assert [each.key for each in report.declaration.extra["schedule"]] == ["evening", "morning"]
    with pytest.raises(TaskDeclarationError, match="'report' has a schedule already: give each a key"):
        app.every(5, key="morning")(report)


def test_a_router_brings_its_schedules_along() -> None:
    router, app = Router("prefix."), QueueTasks(url="memory://")

    @router.every(60)
    @router.task(name="tidy")
    async def tidy() -> None: ...

    app.include_router(router)
    assert app.pm.has("schedule")
    assert app.tasks["prefix.tidy"].extra["schedule"] == (Every(seconds=60),)


def test_a_blocked_plugin_stays_out() -> None:
    app = QueueTasks(url="memory://")
    app.pm.block("schedule")
    app.every(60)(lambda: None)
    assert not app.pm.has("schedule")


# --- One task for each time -----------------------------------------------------------------


@pytest.fixture
async def app(url: str) -> AsyncIterator[QueueTasks]:
    application = QueueTasks(url=url)

    @application.task(name="tick")
    async def tick() -> None: ...

    async with application:
        yield application


class Clock:
    """The time, as a worker sees it."""

    def __init__(self, app: QueueTasks, start: float) -> None:
        self.now = start
        app.clock = lambda: self.now


async def ticks(app: QueueTasks) -> list[str]:
    """The times (minute and second) that have a task, in order; with doubles, if there were any."""
    tasks, cursor = await app.get_all(limit=500)
    assert cursor is None
    return sorted(task.extra["schedule"]["time"][14:19] for task in tasks)


START = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


def job(app: QueueTasks, **options: Any) -> Job:
    return Job(app, "tick", Every(seconds=10, **options))


async def test_each_time_has_one_task_however_many_workers_look(app: QueueTasks) -> None:
    clock = Clock(app, START)
    jobs = [job(app) for _ in range(5)]
    for second in range(0, 31, 5):
        clock.now = START + second
        await asyncio.gather(*(each.look() for each in jobs))
    assert await ticks(app) == ["00:10", "00:20", "00:30"]


async def test_a_worker_that_dies_before_it_wrote_down_what_it_did(app: QueueTasks) -> None:
    clock = Clock(app, START)
    first, second = job(app), job(app)
    await first.look()
    clock.now += 10

    async def dies(tick: float) -> None:
        raise TransientError("gone")

    first._done = dies  # type: ignore[method-assign]
    with pytest.raises(TransientError):
        await first.look()
    await second.look()
    assert await ticks(app) == ["00:10"]
    clock.now += 10
    await second.look()
    assert await ticks(app) == ["00:10", "00:20"]


async def test_clocks_that_differ(app: QueueTasks) -> None:
    """The first clock to reach a time fires it; for one that is behind it is done, and nothing comes twice."""
    ahead, behind = job(app), job(app)
    clock = Clock(app, START)
    for second in range(60):
        for worker, skew in ((ahead, 7.0), (behind, -7.0)):
            clock.now = START + second + skew
            await worker.look()
    assert await ticks(app) == [f"00:{second}" for second in ("10", "20", "30", "40", "50")] + ["01:00"]


async def test_a_clock_that_was_far_ahead_is_told_of_and_can_be_mended(
    app: QueueTasks, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(app, START)
    wrong, right = job(app), job(app)
    await wrong.look()
    clock.now = START + 86_400 * 365
    await wrong.look()
    clock.now = START + 15
    await right.look()
    right.next = 0.0
    await right.look()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "qtasks.schedule"]
    assert f"app.global_config.delete('schedule', {right.name!r})" in line
    assert await app.global_config.delete("schedule", right.name)
    for second in (16, 21):
        right.next, clock.now = 0.0, START + second
        await right.look()
    assert "00:20" in await ticks(app)


async def test_times_before_the_first_start_are_nobodys_and_missed_ones_go_by_the_policy(
    app: QueueTasks,
) -> None:
    clock = Clock(app, START + 5)
    policies: list[Any] = ["one", "all", "skip"]
    plans = [job(app, key=each, catch_up=each, most=3) for each in policies]
    for each in plans:
        await each.look()
    assert await ticks(app) == []
    clock.now = START + 3605 + 62  # an hour in which no worker ran, and the next time is late by 2 s
    for each in [job(app, key=each, catch_up=each, most=3) for each in policies]:
        await each.look()
    tasks, _ = await app.get_all()
    found: dict[str, list[str]] = {}
    for task in tasks:
        found.setdefault(task.extra["schedule"]["key"], []).append(task.extra["schedule"]["time"][11:19])
    assert {key: sorted(value) for key, value in found.items()} == {
        "one": ["13:01:00"], "all": ["13:00:40", "13:00:50", "13:01:00"], "skip": ["13:01:00"],
    }  # fmt: skip


async def test_a_finished_and_deleted_task_does_not_come_again(app: QueueTasks) -> None:
    clock = Clock(app, START)
    first, late = job(app), job(app)
    await first.look()
    await late.look()
    clock.now += 10
    await first.look()
    (task,) = (await app.get_all())[0]
    await task.cancel()
    assert await app.delete([task.uuid]) == [True]
    await late.look()
    assert await ticks(app) == []


async def test_arguments_of_another_version_are_no_second_task(app: QueueTasks) -> None:
    clock = Clock(app, START)
    old, new = job(app), job(app, kwargs={"fast": True})
    await old.look()
    clock.now += 10
    await old.look()
    await app.global_config.set("schedule", "tick:", START)  # the new one does not know of it
    new.next = 0.0
    await new.look()
    assert await ticks(app) == ["00:10"]


async def test_a_time_that_cannot_be_stored_is_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "AGAIN", 0.01)
    app = QueueTasks(url=url)
    failures = [OSError("no"), TransientError("away")]
    ran: list[int] = []

    @app.every(0.05)
    @app.task(name="tick")
    async def tick() -> None:
        ran.append(1)

    add = app.add_task

    async def failing(*args: Any, **options: Any) -> Task:
        if failures:
            raise failures.pop()
        return await add(*args, **options)

    monkeypatch.setattr(app, "add_task", failing)

    async def run_some() -> bool:
        return len(ran) >= 2

    async with working(app):
        await until(run_some)


async def test_the_plugin_runs_on_a_worker_and_stops_with_it(url: str) -> None:
    plugin = SchedulePlugin()
    app = QueueTasks(url=url, plugins=[plugin])
    ran = asyncio.Event()

    @app.every(0.05, args=(7,))
    @app.task(name="tick")
    async def tick(number: int) -> None:
        assert number == 7
        ran.set()

    async with working(app):
        await asyncio.wait_for(ran.wait(), 10)
    assert plugin._running is None


# --- Across processes -----------------------------------------------------------------------


async def test_two_workers_one_of_which_is_killed(redis_url: str, start_workers: StartWorkers) -> None:
    """No time is left out and none comes twice: before, while and after one of the two is killed."""
    workers = start_workers(schedule_site)
    async with schedule_site.make(redis_url) as app:
        await workers_up(app, 2)

        async def tasks(at_least: int) -> list[Task]:
            async def look() -> list[Task] | None:
                found, _ = await app.get_all(limit=500)
                return found if len(found) >= at_least else None

            return await until(look)

        before = await tasks(3)
        await kill(workers[0])
        found = await tasks(len(before) + 6)
        for task in found:
            await task.wait_result(20)
        moments = sorted(datetime.fromisoformat(task.extra["schedule"]["time"]) for task in found)
        step = timedelta(seconds=schedule_site.INTERVAL)
        assert moments == [moments[0] + n * step for n in range(len(moments))]
