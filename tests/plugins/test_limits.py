"""limits: laws of the state with a clock of its own; places and rates on every backend and across processes."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from qtasks import QueueTasks
from qtasks.plugins.limits import HORIZON, Limit, LimitsPlugin, State
from tests.app.conftest import working
from tests.plugins import limits_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, said, until, workers_up

# --- Laws -----------------------------------------------------------------------------------

SECONDS = st.floats(0, 5, allow_nan=False)
LIMITS = st.builds(
    Limit,
    concurrency=st.one_of(st.none(), st.integers(1, 3)),
    rate=st.floats(0.5, 20),
    burst=st.one_of(st.none(), st.integers(1, 4)),
)


class Played:
    """Tasks that arrive, ask, come back when they are told to, run for a time and leave: in a time of its own."""

    def __init__(self, limit: Limit, tasks: list[tuple[float, float]], skew: list[float]) -> None:
        self.begun: list[tuple[float, int]] = []
        self.most = 0
        self.tries = 0
        state, running = State(), set[int]()
        events: list[tuple[float, int, bool, bool]] = []
        for number, (arrival, _) in enumerate(tasks):
            heapq.heappush(events, (arrival, number, False, False))
        while events:
            now, number, waited, ends = heapq.heappop(events)
            if ends:
                running.discard(number)
                state.places.pop(str(number), None)
                continue
            self.tries += 1
            clock = now + skew[number % len(skew)]
            at = state.admit(limit, clock, str(number), 1e6, waited=waited, spacing=0.05)
            if at is None:
                running.add(number)
                self.begun.append((now, number))
                self.most = max(self.most, len(running))
                heapq.heappush(events, (now + tasks[number][1], number, waited, True))
            else:
                assert clock < at <= clock + HORIZON + 0.05
                heapq.heappush(events, (now + at - clock, number, True, False))
            assert self.tries < 10_000, "a task never gets its turn"


@given(LIMITS, st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=20), st.sampled_from([0.0, 0.5]))
def test_neither_the_places_nor_the_rate_are_ever_exceeded_and_all_get_their_turn(
    limit: Limit, tasks: list[tuple[float, float]], skew: float
) -> None:
    """Also where the clocks of the workers differ: by then the rate may be ahead by that much, once."""
    played = Played(limit, tasks, [0.0, skew])
    assert len(played.begun) == len(tasks)
    assert limit.concurrency is None or played.most <= limit.concurrency
    assert limit.rate is not None
    burst = limit.tolerance / limit.interval + 1
    times = [when for when, _ in played.begun]
    for i, first in enumerate(times):
        for j in range(i, len(times)):
            allowed = burst + (times[j] - first + skew) * limit.rate
            assert j - i + 1 <= allowed + 1e-6


def test_who_waits_goes_before_who_is_new() -> None:
    limit, state = Limit(rate=1), State()

    def ask(now: float, waited: bool) -> float | None:
        return state.admit(limit, now, "t", 30.0, waited=waited, spacing=0.1)

    assert ask(0.0, False) is None
    assert ask(0.1, False) == 1.0  # waits for the next token
    assert ask(0.2, False) == 2.0
    assert ask(1.05, False) == 3.0  # there is a token, but it is another one's
    assert ask(1.05, True) is None
    assert ask(2.05, True) is None
    assert ask(3.05, True) is None
    assert ask(4.1, False) is None


def test_the_line_is_planned_for_a_bounded_time() -> None:
    limit, state = Limit(rate=1), State()
    answers = [state.admit(limit, 0.0, "t", 30.0, waited=False, spacing=0.1) for _ in range(100)]
    assert answers[0] is None
    assert max(filter(None, answers)) <= HORIZON
    assert state.line <= HORIZON + 1


def test_a_place_that_is_not_renewed_is_free_when_its_lease_is_over() -> None:
    limit, state = Limit(concurrency=1), State()
    assert state.admit(limit, 0.0, "dead", 30.0, waited=False, spacing=1.0) is None
    assert state.admit(limit, 29.9, "next", 30.0, waited=True, spacing=1.0) is not None
    assert state.admit(limit, 30.1, "next", 30.0, waited=True, spacing=1.0) is None


@pytest.mark.parametrize(
    "wrong", [{}, {"concurrency": 0}, {"rate": 0}, {"rate": 1, "per": -1}, {"rate": 1, "burst": 0}]
)
def test_a_limit_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a Limit needs|above 0"):
        Limit(**wrong)  # type: ignore[arg-type]


# --- On every backend -----------------------------------------------------------------------


@pytest.fixture
def app(url: str) -> QueueTasks:
    return QueueTasks(url=url, plugins=[LimitsPlugin()])


async def test_concurrency_by_key_blocks_nobody_else(app: QueueTasks) -> None:
    running = dict.fromkeys("ab", 0)
    most = dict.fromkeys("ab", 0)
    two = {host: asyncio.Event() for host in "ab"}

    @app.task(name="call", extra={"limits": [Limit(concurrency=2, key=lambda host: host)]})
    async def call(host: str) -> None:
        running[host] += 1
        most[host] = max(most[host], running[host])
        if running[host] == 2:
            two[host].set()
        await two[host].wait()  # no end before there are two at once
        await asyncio.sleep(0)
        running[host] -= 1

    async with working(app):
        tasks = [await call.add_task(host) for host in "ab" * 6]
        ended = [await task.wait_result(20) for task in tasks]
    assert {(task.status.value, task.deliveries, task.attempt) for task in ended} == {("success", 1, 0)}
    assert most == {"a": 2, "b": 2}


async def test_what_a_newer_version_has_written_can_be_read(app: QueueTasks) -> None:
    """As in a rolling upgrade: what this version does not know is ignored, the rest holds."""
    runs = []

    @app.task(name="work", extra={"limits": Limit(rate=1000)})
    async def work() -> None:
        runs.append(1)

    async with working(app):
        await (await app.add_task("work")).wait_result(10)
        ((key, state),) = (await app.global_config.get_all("limits")).items()
        assert await app.global_config.set("limits", key, {**state, "of_a_newer_version": [1]}, ttl=60)
        assert (await (await app.add_task("work")).wait_result(10)).status == "success"
        assert (await app.global_config.get("limits", key))["full_at"] > state["full_at"]
    assert len(runs) == 2


async def test_two_limits_of_one_key_count_each_for_itself(app: QueueTasks) -> None:
    account = {"concurrency": 1, "name": "account"}
    limits = [
        Limit(**account, key=lambda source, target: source),
        Limit(**account, key=lambda source, target: target),
    ]

    @app.task(name="transfer", extra={"limits": limits})
    async def transfer(source: int, target: int) -> None: ...

    @app.task(name="call", extra={"limits": [Limit(rate=2, per=100, burst=2), Limit(rate=5, per=1000)]})
    async def call() -> None: ...

    async with working(app):
        assert (await (await transfer.add_task(1, 1)).wait_result(10)).status == "success"
        called = [await call.add_task() for _ in range(2)]
        assert {(await task.wait_result(10)).status for task in called} == {"success"}
        first, second = [await app.global_config.get("limits", key) for key in ("call", "call:1")]
    assert second["full_at"] - first["full_at"] == pytest.approx(2 * (200 - 50), abs=20)


async def test_a_task_that_another_limit_puts_back_takes_no_token(app: QueueTasks) -> None:
    held, end = asyncio.Event(), asyncio.Event()

    @app.task(
        name="call", extra={"limits": [Limit(rate=5, per=1000, burst=5), Limit(concurrency=1, name="line")]}
    )
    async def call() -> None:
        held.set()
        await end.wait()

    async with working(app):
        first = await call.add_task()
        await held.wait()
        before = await app.global_config.get("limits", "call")
        second = await call.add_task()
        while not (await app.global_config.get("limits", "line"))["line"]:
            await asyncio.sleep(0.01)
        end.set()
        assert {(await task.wait_result(10)).status for task in (first, second)} == {"success"}
        after = await app.global_config.get("limits", "call")
    assert after["full_at"] - before["full_at"] == pytest.approx(200, abs=20)


async def test_a_task_over_the_limit_leaves_its_slot_to_others(url: str) -> None:
    from qtasks import QueueConfig

    app = QueueTasks(url=url, plugins=[LimitsPlugin()], config=QueueConfig(concurrency=2))
    end = asyncio.Event()

    @app.task(name="held", extra={"limits": Limit(concurrency=1)})
    async def held() -> None:
        await end.wait()

    @app.task(name="free")
    async def free() -> int:
        return 1

    async with working(app):
        waiting = [await held.add_task() for _ in range(10)]
        assert (await (await free.add_task()).wait_result(10)).returning == 1
        end.set()
        for task in waiting:
            assert (await task.wait_result(20)).status == "success"


async def test_every_end_of_a_run_gives_its_place_back(url: str) -> None:
    from qtasks import TaskCancelError, TaskDefer, TaskRejected, current_task

    app = QueueTasks(url=url, plugins=[LimitsPlugin()])

    @app.task(name="end", retry=1, retry_delay=0, extra={"limits": Limit(concurrency=1)})
    async def end(how: str) -> None:
        state = current_task().app.tasks["end"].extra.setdefault("seen", set())
        errors = {
            "cancel": TaskCancelError(),
            "defer": TaskDefer(0),
            "reject": TaskRejected(),
            "fail": OSError(),
        }
        if how in errors and (how != "defer" or how not in state):
            state.add(how)
            raise errors[how]

    async with working(app):
        for how in ("cancel", "defer", "reject", "fail", "go well"):
            await (await end.add_task(how)).wait_result(10)
        state = await app.global_config.get("limits", "end")
    assert state["places"] == {}


async def test_a_thread_beyond_its_time_keeps_its_place(app: QueueTasks) -> None:
    go_on, runs = threading.Event(), []

    @app.task(name="deaf", max_time=0.05, extra={"limits": Limit(concurrency=1)})
    def deaf(number: int) -> None:
        runs.append(number)
        if number == 1:
            go_on.wait(10)
            runs.append(-1)

    async with working(app):
        first = await deaf.add_task(1)
        assert (await first.wait_result(10)).status == "error"
        second = await deaf.add_task(2)
        (holder,) = (await app.global_config.get("limits", "deaf"))["places"]
        assert holder.startswith(str(first.uuid))
        go_on.set()
        await second.wait_result(10)
    assert runs == [1, -1, 2]


async def test_a_store_that_is_away_puts_the_task_back_without_a_delivery(app: QueueTasks) -> None:
    from qtasks.errors import TransientError
    from qtasks.plugins import limits

    @app.task(name="task", extra={"limits": Limit(concurrency=1)})
    async def task() -> None: ...

    fetch, failures = app.global_config.fetch, [TransientError("away")]

    async def failing(name: str, key: str) -> object:
        if name == "limits" and failures:
            raise failures.pop()
        return await fetch(name, key)

    app.global_config.fetch = failing  # type: ignore[method-assign,assignment]
    limits.AWAY = 0.01
    async with working(app):
        done = await (await task.add_task()).wait_result(10)
    assert (done.status.value, done.deliveries, failures) == ("success", 1, [])


# --- Across processes -----------------------------------------------------------------------


async def test_two_workers_share_them_and_one_is_killed(redis_url: str, start_workers: StartWorkers) -> None:
    """Places and rates hold across processes; the place of a worker that is killed is free when its lease is over."""
    queues = ("one", "two")  # one for each process, so that both take part
    workers = [start_workers(limits_site, 1, QTASKS_QUEUES=f'["{queue}"]')[0] for queue in queues]
    async with limits_site.make(redis_url) as app:
        await workers_up(app, 2)
        tasks = [await app.add_task("both", queue=queue) for queue in queues * 10]
        ended = [await task.wait_result(20) for task in tasks]
        assert {(task.status.value, task.deliveries) for task in ended} == {("success", 1)}

        began = time.time()
        tasks = [await app.add_task("slowly", queue=queue) for queue in queues * 4]
        times = [(await task.wait_result(20)).returning for task in tasks]
        # Two at once, then ten a second: nothing may come earlier, whatever may come later.
        assert all(when >= began + max(0, n - 1) * 0.1 for n, when in enumerate(sorted(times)))

        await app.add_task("hold", queue="one")
        await said(workers[:1], "holding")
        waiting = await app.add_task("next", queue="two")

        async def deferred() -> bool:
            found = await app.get(waiting.uuid)
            return found is not None and found.available_at > found.created_at

        await until(deferred)
        await kill(workers[0])
        done = await waiting.wait_result(20)
        assert (done.returning, done.deliveries) == (workers[1].process.pid, 1)
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        lines = [line.split() for line in await redis.lrange(limits_site.LOG, 0, -1)]
    running = most = 0
    for what, *_ in lines[:40]:
        running += 1 if what == "begin" else -1
        most = max(most, running)
    assert len({pid for _, pid, _ in lines}) == 2
    assert (len(lines), running) == (41, 0)
    assert most <= 2
