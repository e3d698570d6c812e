"""Workers that are handed tasks: they hold them, and while they stop or run a task alone they keep none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from qtasks import QueueConfig, QueueTasks, TaskStatusEnum
from qtasks.components.primitives import QueueSize
from tests.support.redis_server import RedisServer

WAIT = 20.0
"""Seconds after which a test counts as stuck. Nothing waits that long when all is well."""


@pytest.fixture(scope="module")
def server():
    with RedisServer(appendonly="yes", appendfsync="no") as started:
        yield started


@asynccontextmanager
async def applications(server: RedisServer, **settings: Any) -> AsyncIterator[tuple[QueueTasks, QueueTasks]]:
    """A worker's and a client's."""
    url = server.url()
    worker = QueueTasks("app", url, config=QueueConfig(**settings))
    async with QueueTasks("app", url) as client:
        yield worker, client


async def at_rest(client: QueueTasks) -> None:
    """Waits until a worker can be handed a task."""
    link = client.broker.link
    async with asyncio.timeout(WAIT):
        while not any(b"\n" in value for value in await link.command("HVALS", link.calls.key("wake"))):
            await asyncio.sleep(0.005)


async def test_a_worker_runs_what_it_is_handed_and_holds_it_meanwhile(server):
    async with applications(server, lease=0.6) as (app, client):

        @app.task(name="held")
        async def held() -> list[str]:
            """Outlives its lease twice over."""
            uuids = [str(handle.uuid) for handle in app.worker.held()]
            await asyncio.sleep(1.3)
            return uuids

        serving = asyncio.create_task(app.serve())
        await at_rest(client)
        task = await client.add_task("held")
        found = await task.wait_result(WAIT)
        assert (found.returning, found.deliveries, found.attempt) == ([str(task.uuid)], 1, 0)
        await app.stop()
        await serving


async def test_a_worker_that_stops_leaves_nothing_leased(server):
    """Tasks are added one after the other while it stops. What it was handed too late it gives back, its delivery
    returned, and nothing runs twice."""
    async with applications(server) as (app, client):
        ran: list[int] = []
        enough = asyncio.Event()

        @app.task(name="count")
        async def count(number: int) -> None:
            ran.append(number)
            if len(ran) > 50:
                enough.set()

        added = 0
        stopped = asyncio.Event()

        async def adding() -> None:
            nonlocal added
            while not stopped.is_set():
                await client.add_task("count", args=(added,))
                added += 1

        serving = asyncio.create_task(app.serve())
        await at_rest(client)
        producer = asyncio.create_task(adding())
        await asyncio.wait_for(enough.wait(), WAIT)
        await app.stop()
        await serving
        stopped.set()
        await producer
        sizes = (await client.broker.size()).get("default", QueueSize())
        assert sizes == QueueSize(ready=added - len(ran))
        link = client.broker.link
        assert not await link.command("EXISTS", link.calls.key("wake"))
        async with app:
            await app.serve(until_idle=True)
        assert sorted(ran) == list(range(added))


async def test_a_worker_that_stopped_while_its_backend_was_away_is_handed_nothing():
    """Its application goes on, and with it the connection that tells. The word that it rests survives on the server."""
    with RedisServer(appendonly="yes", appendfsync="always") as own:
        async with applications(own) as (app, client), app:

            @app.task(name="work")
            async def work() -> int:
                return 1

            serving = asyncio.create_task(app.serve())
            await at_rest(client)
            notifier = app.broker.link.notifier
            generation = notifier.generation
            own.kill()
            await app.stop()
            await asyncio.wait_for(serving, WAIT)
            own.start()
            async with asyncio.timeout(WAIT):
                while notifier.generation == generation:
                    await asyncio.sleep(0.005)
            task = await client.add_task("work")
            assert (await client.broker.size())["default"] == QueueSize(ready=1)
            await app.serve(until_idle=True)
            found = await task.wait_result(WAIT)
            assert (found.returning, found.deliveries) == (1, 1)


@pytest.mark.thorough
async def test_a_worker_stops_in_time_though_its_backend_does_not_answer():
    """I10. The deadline counts from the signal, whatever else is waited for."""
    with RedisServer() as own:
        async with applications(own, shutdown_timeout=0.0) as (app, client):
            began = asyncio.Event()

            @app.task(name="long")
            async def long() -> None:
                began.set()
                await asyncio.Event().wait()

            serving = asyncio.create_task(app.serve())
            await at_rest(client)
            await client.add_task("long")
            await asyncio.wait_for(began.wait(), WAIT)
            own.pause()
            try:
                await app.stop()
                await asyncio.wait_for(serving, 10)  # of which 3.5 s are given; it took 20
            finally:
                own.resume()


async def test_a_worker_that_runs_a_task_alone_is_handed_nothing(server):
    """On its last delivery a task may kill its worker, with all that is there."""
    async with applications(server, max_deliveries=2) as (app, client):
        began, go_on = asyncio.Event(), asyncio.Event()
        order: list[str] = []

        @app.task(name="poison")
        async def poison() -> None:
            began.set()
            await go_on.wait()
            order.append("poison")

        @app.task(name="other")
        async def other() -> None:
            order.append("other")

        first = await client.add_task("poison")
        await client.broker.claim_and_start(1, ("default",), "lost", 0.01)
        while not (await client.broker.sweep(10, 5)).restored:
            await asyncio.sleep(0.005)
        serving = asyncio.create_task(app.serve())
        await asyncio.wait_for(began.wait(), WAIT)
        second = await client.add_task("other")
        assert (await client.broker.size())["default"] == QueueSize(ready=1, leased=1)
        go_on.set()
        await first.wait_result(WAIT)
        found = await second.wait_result(WAIT)
        assert (order, found.deliveries) == (["poison", "other"], 1)
        await app.stop()
        await serving


async def test_a_worker_whose_slots_are_kept_by_threads_is_handed_nothing(server):
    """The task of a thread past its time is settled; its slot is free only when the thread returns."""
    async with applications(server, concurrency=1) as (app, client):
        go_on = threading.Event()

        @app.task(name="stuck", max_time=0.05)
        def stuck() -> None:
            go_on.wait(WAIT)

        @app.task(name="other")
        async def other() -> None: ...

        serving = asyncio.create_task(app.serve())
        await at_rest(client)
        found = await (await client.add_task("stuck")).wait_result(WAIT)
        assert found.status is TaskStatusEnum.ERROR
        link = client.broker.link
        async with asyncio.timeout(WAIT / 5):
            while await link.command("EXISTS", link.calls.key("wake")):
                await asyncio.sleep(0.005)
        waits = await client.add_task("other")
        assert (await client.broker.size())["default"] == QueueSize(ready=1)
        go_on.set()
        assert (await waits.wait_result(WAIT)).deliveries == 1
        await app.stop()
        await serving
