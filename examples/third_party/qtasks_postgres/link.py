"""The connections of one process to one schema, shared by the components of one event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from qtasks.errors import FatalError, NotStartedError, WrongLoopError
from qtasks_postgres.faults import about_an_item, backend_error, lost_a_race
from qtasks_postgres.listener import Listener
from qtasks_postgres.schema import install
from qtasks_postgres.target import Target, target_of

CONNECTIONS: Final = 4
"""Connections of one process at most, beside one that listens and one of the lease keeper."""
CONNECT_TIMEOUT: Final = 10.0
TRUSTED: Final = 1.0
"""Seconds after its last use for which a connection is taken to be alive."""
RACES: Final = 20

_inherited: list[object] = []

_PLANS: Final = (
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
)
"""As for the functions in schema.sql: plans for full tables, whatever the statistics say."""


def prepared(schema: str, durability: str) -> sql.Composed:
    """What holds for a connection of ours."""
    commit = sql.SQL("; SET synchronous_commit = on" if durability != "none" else "")
    return sql.SQL("SET search_path = {}, pg_temp; {}{}").format(
        sql.Identifier(schema), sql.SQL(_PLANS), commit
    )


class PostgresLink:
    """Where broker, storage and global config of one application keep their data.

    Parameters:
        url: `postgresql://user:password@host:port/database?schema=qtasks`, with whatever libpq knows behind
            the question mark.

    Raises:
        ConfigError: it is not such a URL.
    """

    def __init__(self, url: str) -> None:
        self.target: Target = target_of(url)
        self._users = 0
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] | None = None
        self._listener: Listener | None = None
        self._used: WeakKeyDictionary[AsyncConnection[Any], float] = WeakKeyDictionary()
        self._apps: dict[str, int] = {}
        self.durability = "none"

    # --- Opening and closing --------------------------------------------------------------------

    async def acquire(self, app: str, durability: str) -> int:
        """Opens it for one more component; gives the number of the app.

        Raises:
            TransientError: the server cannot be reached.
            FatalError: it does not do.
        """
        self._forget_inherited()
        if self._loop is not asyncio.get_running_loop():
            if self._users and self._loop is not None and not self._loop.is_closed():
                self.check()
            self._users, self._pool, self._listener, self._lock = 0, None, None, asyncio.Lock()
        async with self._lock:
            try:
                if self._pool is None:
                    self.durability = durability
                    await self._open()
                number = await self._number(app)
            except psycopg.Error as error:
                if self._users == 0:
                    await self._close()
                raise backend_error(error, self.target.label) from error
            except BaseException:
                if self._users == 0:
                    await self._close()
                raise
            self._users += 1
            return number

    async def release(self) -> None:
        """Gives it back; the last one closes it."""
        self._forget_inherited()
        if self._users == 0:
            return
        if self._loop is not asyncio.get_running_loop():
            # The loop that opened it is gone, and its connections with it.
            self._users, self._pool, self._listener = 0, None, None
            return
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                await self._close()

    async def _open(self) -> None:
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        # The first connection tells what is wrong at once; the pool would try again and again.
        first = await AsyncConnection.connect(
            self.target.conninfo, autocommit=True, connect_timeout=int(CONNECT_TIMEOUT)
        )
        async with first:
            await install(first, self.target.schema)
            if self.durability != "none":
                await self._check_durable(first)
        self._pool = AsyncConnectionPool(
            self.target.conninfo, kwargs={"autocommit": True, "connect_timeout": int(CONNECT_TIMEOUT)},
            min_size=1, max_size=CONNECTIONS, open=False, timeout=CONNECT_TIMEOUT, configure=self._configure,
            check=self._check_alive, name=self.target.label,
        )  # fmt: skip
        await self._pool.open()
        self._listener = Listener(self.target)

    async def _close(self) -> None:
        pool, self._pool = self._pool, None
        listener, self._listener = self._listener, None
        self._apps.clear()
        if listener is not None:
            await listener.close()
        if pool is not None:
            await pool.close()

    async def _check_durable(self, connection: AsyncConnection[Any]) -> None:
        row = await (await connection.execute("SHOW fsync")).fetchone()
        if row is None or row[0] != "on":
            raise FatalError(
                f"durability={self.durability!r}: the server {self.target.label} runs with fsync = off and may lose "
                "what it acknowledged; set fsync = on there, or ask for durability='none'"
            )

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(prepared(self.target.schema, self.durability))

    async def _check_alive(self, connection: AsyncConnection[Any]) -> None:
        if time.monotonic() - self._used.get(connection, 0.0) > TRUSTED:
            await AsyncConnectionPool.check_connection(connection)

    async def _number(self, app: str) -> int:
        if app not in self._apps:
            async with self._connections().connection() as connection:
                await connection.execute("INSERT INTO apps (name) VALUES (%s) ON CONFLICT DO NOTHING", [app])
                row = await (
                    await connection.execute("SELECT id FROM apps WHERE name = %s", [app])
                ).fetchone()
            assert row is not None
            self._apps[app] = row[0]
        return self._apps[app]

    def _forget_inherited(self) -> None:
        """In a forked child: what the parent opened is kept, and never touched. To close it would end the
        parent's session, for both have the same socket."""
        if self._process in (0, os.getpid()):
            return
        _inherited.extend((self._pool, self._listener, self._lock))
        self._users, self._process, self._pool, self._listener = 0, 0, None, None
        self._lock, self._apps, self._used = asyncio.Lock(), {}, WeakKeyDictionary()

    @property
    def ours(self) -> bool:
        """Whether this process has it open; a parent's connections are not its child's."""
        return self._process == os.getpid()

    # --- Using it -------------------------------------------------------------------------------

    @property
    def listener(self) -> Listener:
        """Tells of notifications."""
        self.check()
        assert self._listener is not None
        return self._listener

    def check(self) -> None:
        """Sees to it that the caller may use the connections.

        Raises:
            NotStartedError: they are not open, or were opened before a fork.
            WrongLoopError: another event loop opened them.
        """
        self._forget_inherited()
        if self._users and self._loop is not asyncio.get_running_loop():
            raise WrongLoopError(
                f"{self.target.label} was opened by another event loop: close it there and open it here, or use "
                "`qtasks.sync` from another thread"
            )
        self._connections()

    def _connections(self) -> AsyncConnectionPool[AsyncConnection[Any]]:
        if self._pool is None:
            raise NotStartedError(f"{self.target.label} is not open: use it inside `async with app:`")
        return self._pool

    async def run(self, statement: str, values: Sequence[Any] = (), *, binary: bool = False) -> list[Any]:
        """The rows that a statement gives.

        It goes on to its end also when the caller is cancelled: its outcome would not be known otherwise.

        Parameters:
            statement: one statement; it is one transaction.
            values: its parameters.
            binary: whether rows come in binary form, which is faster for numbers and uuids.

        Raises:
            TransientError: the server is away; it is not known whether the statement was done.
            FatalError: the server refuses it.
            psycopg.DataError, psycopg.IntegrityError: a value does not fit.
        """
        self.check()
        return await asyncio.shield(asyncio.ensure_future(self._run(statement, values, binary)))

    async def _run(self, statement: str, values: Sequence[Any], binary: bool) -> list[Any]:
        for _ in range(RACES):
            try:
                async with self._connections().connection() as connection:
                    cursor = await connection.execute(statement.encode(), values, binary=binary)
                    rows = await cursor.fetchall() if cursor.description is not None else []
                    self._used[connection] = time.monotonic()
                    return rows
            except (psycopg.Error, OSError) as error:
                if lost_a_race(error):
                    continue
                if about_an_item(error):
                    raise
                raise backend_error(error, self.target.label) from error
        raise backend_error(
            psycopg.errors.DeadlockDetected("it lost every race for its rows"), self.target.label
        )
