"""What happens when the server goes away and comes back, and when a process is forked."""

from __future__ import annotations

import asyncio
import os
import traceback
from uuid import UUID

import psycopg
import pytest
from qtasks_postgres import PostgresLink
from server import PostgresServer

from qtasks import EnqueueUnknownError, QueueConfig, QueueTasks
from qtasks.errors import ConfigError, FatalError, TransientError


@pytest.fixture(scope="module")
def own_server():
    """A server that may be killed."""
    with PostgresServer() as started:
        yield started


async def until(look):
    """What `look` gives, as soon as it raises no more."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await look()
            except TransientError:
                await asyncio.sleep(0.05)


async def test_what_was_acknowledged_outlives_a_crash_of_the_server(own_server):
    app = QueueTasks(url=own_server.url(), config=QueueConfig(durability="fsync"))
    async with app:
        task = await app.add_task("ship", args=(1,))
        own_server.kill()
        with pytest.raises(TransientError):
            await app.storage.get_many([task.uuid])
        own_server.start()
        (record,) = await until(lambda: app.storage.get_many([task.uuid]))
        assert record.args == (1,)


async def test_a_worker_goes_on_when_the_server_is_back(own_server):
    app, ran = QueueTasks(url=own_server.url()), []

    @app.task(name="ship")
    async def ship(number: int) -> None:
        ran.append(number)

    async with app:
        serving = asyncio.create_task(app.serve())
        await (await ship.add_task(1)).wait_result(30)
        own_server.kill()
        own_server.start()
        uuid = (await until(lambda: app.storage.scan(None, 1))).records[0].uuid
        assert (await app.get(uuid)).returning is None
        second = await until(lambda: add_known(app))
        await second.wait_result(60)
        await app.stop()
        await serving
    assert ran == [1, 2]


async def add_known(app):
    """Adds a task that may be there already, for its uuid is always the same."""
    try:
        return await app.add_task("ship", args=(2,), uuid=UUID(int=2))
    except EnqueueUnknownError as error:
        raise TransientError(str(error)) from error


async def test_a_server_without_fsync_is_refused_where_fsync_is_asked_for(server):
    app = QueueTasks(url=server.url(), config=QueueConfig(durability="fsync"))
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        try:
            while connection.execute("SHOW fsync").fetchone() != ("off",):
                pass
            with pytest.raises(FatalError, match="fsync = off"):
                await app.open()
        finally:
            connection.execute("ALTER SYSTEM RESET fsync")
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SHOW fsync").fetchone() != ("on",):
                pass


async def test_a_schema_of_another_version_is_refused(server):
    url = server.url()
    async with QueueTasks(url=url):
        pass
    schema = PostgresLink(url).target.schema
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute(f"UPDATE {schema}.meta SET version = 99")
    with pytest.raises(FatalError, match="version 99"):
        await QueueTasks(url=url).open()


def test_nobody_there(server):
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:1/"):
        asyncio.run(QueueTasks(url="postgresql://nobody:secret@127.0.0.1:1/x").open())


@pytest.mark.parametrize(
    "url", ["postgresql://h/d?schema=Drop Table", "postgresql://h/d?schema=", "postgresql://h/d?wings=1"]
)
def test_urls_that_say_nothing(url):
    with pytest.raises(ConfigError):
        PostgresLink(url)


def test_no_password_is_told():
    link = PostgresLink("postgresql://ada:secret@h/d?password=more")
    assert "secret" not in link.target.label
    assert "more" not in link.target.label


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_opens_its_own_connections(server):
    app = QueueTasks(url=server.url())

    async def parent() -> None:
        async with app:
            task = await app.add_task("ship", args=(1,))
            if (child := os.fork()) == 0:
                os._exit(in_a_child(task.uuid))
            assert os.waitpid(child, 0)[1] == 0
            assert (await app.get(task.uuid)).args == (1,), "the child ended the parent's session"

    def in_a_child(uuid) -> int:
        async def look() -> int:
            app.starter.forget()
            async with app:
                return 0 if (await app.get(uuid)).args == (1,) else 1

        try:
            asyncio._set_running_loop(None)
            return asyncio.new_event_loop().run_until_complete(look())
        except BaseException:
            traceback.print_exc()
            return 2

    asyncio.run(parent())
