"""Tasks that are added in the user's own transaction: with its commit, or not at all."""

from __future__ import annotations

import psycopg
import pytest
from qtasks_postgres import PostgresBroker, PostgresLink

import qtasks.sync
from qtasks import QueueConfig, QueueFullError, QueueTasks
from qtasks.components.memory import MemorySpace, MemoryStorage
from qtasks.errors import CapabilityError, TransientError


@pytest.fixture
def url(server):
    return server.url()


@pytest.fixture
async def connection(server):
    async with await psycopg.AsyncConnection.connect(server.conninfo) as opened:
        await opened.execute("CREATE TEMP TABLE orders (number integer)")
        await opened.commit()
        yield opened


async def waiting(app):
    return sum(size.ready for size in (await app.broker.size()).values())


async def test_a_commit_adds_both_and_a_rollback_neither(url, connection):
    app = QueueTasks(url=url)
    async with app:
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES (1)")
            with app.broker.in_transaction(connection):
                task = await app.add_task("ship", args=(1,))
            assert await app.get(task.uuid) is None, "it is seen before the commit"
            assert await waiting(app) == 0
        assert (await app.get(task.uuid)).args == (1,)
        assert await waiting(app) == 1

        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES (2)")
            with app.broker.in_transaction(connection):
                lost = await app.add_task("ship", args=(2,))
            raise psycopg.Rollback
        assert await app.get(lost.uuid) is None
        assert await waiting(app) == 1
        assert await (await connection.execute("SELECT number FROM orders")).fetchall() == [(1,)]

        outside = await app.add_task("ship", args=(3,))  # after the block: on a connection of the app's own
        assert await app.get(outside.uuid) is not None


async def test_verdicts_are_those_of_any_add(url, connection):
    app = QueueTasks(url=url, config=QueueConfig(max_queue=2))
    async with app, connection.transaction():
        with app.broker.in_transaction(connection):
            first = await app.add_task("ship", unique_key="order 1")
            second = await app.add_task("ship", unique_key="order 2")
            same = await app.add_task("ship", unique_key="order 1")
            with pytest.raises(QueueFullError):
                await app.add_task("ship")
    assert same.uuid == first.uuid
    async with app:
        assert {(await app.get(each.uuid)).task_name for each in (first, second)} == {"ship"}


async def test_a_waiting_worker_is_told_by_the_commit(url, connection):
    app, ran = QueueTasks(url=url), []

    @app.task(name="ship")
    async def ship(number: int) -> None:
        ran.append(number)
        await app.stop()

    async with app:
        async with connection.transaction():
            with app.broker.in_transaction(connection):
                await ship.add_task(7)
        await app.serve()
    assert ran == [7]


def test_blocking_code_has_it_too(url, server):
    app = qtasks.sync.QueueTasks(url=url)
    with app, psycopg.connect(server.conninfo) as connection:
        with connection.transaction(), app.app.broker.in_transaction(connection):
            task = app.add_task("ship", args=(1,))
        assert app.get(task.uuid).args == (1,)
        with connection.transaction(), app.app.broker.in_transaction(connection):
            lost = app.add_task("ship", args=(2,))
            raise psycopg.Rollback
        assert app.get(lost.uuid) is None


async def test_an_error_in_the_transaction_is_told(url, connection):
    app = QueueTasks(url=url)
    async with app:
        with pytest.raises(psycopg.errors.SyntaxError):
            await connection.execute("SELEC 1")
        with app.broker.in_transaction(connection), pytest.raises(Exception, match="aborted") as told:
            await app.add_task("ship")
        assert not isinstance(told.value, TransientError), "nothing about it is unknown"


async def test_what_cannot_be_one_transaction_is_refused(url, connection):
    with pytest.raises(TypeError, match="psycopg connection"):
        QueueTasks(url=url).broker.in_transaction("a string")
    link = PostgresLink(url)
    mixed = QueueTasks(url=url, broker=PostgresBroker(link), storage=MemoryStorage(MemorySpace()))
    with pytest.raises(CapabilityError, match="MemoryStorage keeps its records elsewhere"):
        mixed.broker.in_transaction(connection)
