"""The long test: chains, limits, schedules and dependencies together, while workers are killed again and again.

$ python -m pytest -m nightly tests/plugins
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis

from qtasks import QueueTasks, Task
from qtasks.plugins.chain import Chain, chain, group, step
from tests.plugins import survivors_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, workers_up

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]

KILLS, CHAINS, SEED = 8, 40, 7


def work(rng: random.Random) -> tuple[Chain, int]:
    """A chain of numbers, and what it is to compute."""
    first, side, last = (
        rng.randint(0, 9),
        [rng.randint(0, 9) for _ in range(rng.randint(1, 4))],
        rng.randint(0, 9),
    )
    made = chain(
        step("add", first, 0), group(*(step("add", each) for each in side)), step("total"), step("add", last)
    )
    return made, sum(first + each for each in side) + last


async def test_nothing_is_lost_and_nothing_comes_twice(redis_url: str, start_workers: StartWorkers) -> None:
    rng = random.Random(SEED)
    workers = start_workers(survivors_site, 3)
    killed: list[int] = []
    async with survivors_site.make(redis_url) as app:
        await workers_up(app, 3)
        wanted = [work(rng) for _ in range(CHAINS)]
        started = []
        for n, (each, _) in enumerate(wanted):
            started.append(await each.start(app))
            if n % (CHAINS // KILLS) == 0:
                victim = workers.pop(rng.randrange(len(workers)))
                killed.append(victim.process.pid)
                await kill(victim)
                workers += start_workers(survivors_site, 1)
                await asyncio.sleep(rng.random())
        ended = [await each.wait_result(120) for each in started]
        assert [task.returning for task in ended] == [value for _, value in wanted]
        ticks = [task async for task in all_tasks(app, "tick")]
        for task in ticks:
            await app.wait_result(task.uuid, 60)
    moments = sorted(datetime.fromisoformat(task.extra["schedule"]["time"]) for task in ticks)
    step_of = timedelta(seconds=survivors_site.INTERVAL)
    assert moments == [moments[0] + n * step_of for n in range(len(moments))]
    assert len(moments) > KILLS
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        lines = [line.split() for line in await redis.lrange(survivors_site.LOG, 0, -1)]
    assert most_at_once(lines, killed) <= 3


async def all_tasks(app: QueueTasks, name: str) -> AsyncIterator[Task]:
    """Every task of a name."""
    cursor: str | None = None
    while True:
        page, cursor = await app.get_all(cursor, 500)
        for task in page:
            assert isinstance(task, Task)
            if task.task_name == name:
                yield task
        if cursor is None:
            return


def most_at_once(lines: list[list[str]], killed: list[int]) -> int:
    """How many runs were between their begin and their end at most. What a killed worker began and did not end had
    ended when its last line was written, at the latest when it was killed."""
    last = {line[2]: n for n, line in enumerate(lines)}
    running: dict[tuple[str, str], int] = {}
    most = 0
    for n, (what, uuid, pid) in enumerate(lines):
        if what == "begin":
            running[uuid, pid] = n
        else:
            running.pop((uuid, pid), None)
        gone = {key for key in running if int(key[1]) in killed and last[key[1]] < n}
        for key in gone:
            del running[key]
        most = max(most, len(running))
    return most
