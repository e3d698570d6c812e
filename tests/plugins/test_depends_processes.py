"""depends across processes: each worker opens and closes its own, also where another one is killed."""

from __future__ import annotations

import asyncio
import signal

from redis.asyncio import Redis

from tests.plugins import depends_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, said, workers_up


async def test_two_workers_all_kinds_of_ends_and_a_kill(redis_url: str, start_workers: StartWorkers) -> None:
    """In each worker process everything is closed once and in order; what a killed one left open, nobody else has."""
    workers = start_workers(depends_site, QTASKS_SHUTDOWN_TIMEOUT="0.1")
    async with depends_site.make(redis_url) as app:
        await workers_up(app, 2)
        tasks = [await app.add_task("work", args=(how,)) for how in ["well", "fail"] * 5]
        tasks += [await app.add_task("plain", args=("well",)) for _ in range(5)]
        tasks += [await app.add_task("late") for _ in range(2)]
        for each in tasks:
            await each.wait_result(20)
        cancelled = await app.add_task("work", args=("hang",))
        await said(workers, "hang began")
        await cancelled.cancel()
        await cancelled.wait_result(20)
        restored = await app.add_task("work", args=("hang once",))
        killed = await said(workers, "hang once began")
        await kill(killed)
        (rest,) = [each for each in workers if each is not killed]
        assert str(rest.process.pid) in (await restored.wait_result(20)).returning
        await app.add_task("work", args=("hang",))
        await said([rest], "hang began")
        rest.signal(signal.SIGTERM)
        assert await asyncio.to_thread(rest.wait) == 0
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        lines = [line.split() for line in await redis.lrange(depends_site.LOG, 0, -1)]
    for worker in workers:
        open_ones: list[str] = []
        mine = [line for line in lines if line[-1] == str(worker.process.pid)]
        for what, kind, *name in mine:
            (open_ones.append if what == "open" else open_ones.remove)(" ".join([kind, *name]))
            if what == "close" and kind == "session":
                assert f"cursor {' '.join(name)}" not in open_ones
        assert sum(line[:2] == ["open", "pool"] for line in mine) <= 1
        left = sorted(each.split()[0] for each in open_ones)
        assert left == (["cursor", "pool", "session"] if worker is killed else [])
    runs = [line[2] for line in lines if line[:2] == ["open", "session"]]
    assert runs.count(str(restored.uuid)) == 2
