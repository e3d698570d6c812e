"""What the components of one backend share: the connections to one Redis, for one app."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from typing import Any, Literal

from redis.exceptions import NoScriptError, RedisError

from qtasks.components.redis import checks
from qtasks.components.redis.durable import DurableLane
from qtasks.components.redis.faults import Disconnected, backend_error, wants_relocation
from qtasks.components.redis.mux import Multiplexer
from qtasks.components.redis.notify import Notifier
from qtasks.components.redis.protocol import Lost, Reply, Wire
from qtasks.components.redis.scripts import Calls, pack, script
from qtasks.components.redis.target import Target, async_connection, locate, parse_url
from qtasks.config import QueueConfig
from qtasks.errors import ConfigError, FatalError, InvalidNameError, NotStartedError, WrongLoopError

_log = logging.getLogger("qtasks.redis")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")
SCHEMA = b"1"
"""The version of the layout of the keys, kept in `meta`."""
CLOSING = 0.5
"""Seconds that the server has to answer who closes: a word that is left there hands nothing over without a listener."""


class RedisLink:
    """The connections of one backend, opened by its first component and closed by its last.

    Parameters:
        target: where Redis is, as a URL or taken apart.
    """

    def __init__(self, target: Target | str) -> None:
        self.target = parse_url(target) if isinstance(target, str) else target
        self.app_name = ""
        self.calls = Calls("")
        self.address: tuple[str, int] | None = None
        self.durability: Literal["none", "fsync", "replica"] = "none"
        self._users: set[object] = set()
        self._process = os.getpid()
        self._opening: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mux: Multiplexer | None = None
        self._lane: DurableLane | None = None
        self._notifier: Notifier | None = None
        self._queues: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target.masked})"

    # --- Opening ----------------------------------------------------------------------------------

    async def open(self, user: object, app_name: str, config: QueueConfig) -> None:
        """Connects, for the first of the components; checks the server and says what could lose tasks.

        Raises:
            TransientError: the server is away.
            FatalError: it cannot be used, or (`config.strict`) could lose tasks.
            InvalidNameError, ConfigError: of the app's name; or another app uses this link.
        """
        if not _NAME.fullmatch(app_name):
            raise InvalidNameError(f"The name of an app is [A-Za-z0-9_-]{{1,48}}, not {app_name!r}")
        if self._users and app_name != self.app_name:
            raise ConfigError(
                f"{self!r} serves the app {self.app_name!r} already: {app_name!r} needs one of its own"
            )
        if self._process != os.getpid() or (self._loop is not None and self._loop.is_closed()):
            # Whoever opened it has gone without closing it, or is the parent process: the connections belong to
            # that loop.
            self._forget()
        if not self._users or self._opening is None:
            self._opening = asyncio.Lock()
            self._loop = asyncio.get_running_loop()
        elif self._loop is not asyncio.get_running_loop():
            raise WrongLoopError(f"{self!r} is open in another event loop already")
        self._users.add(user)
        try:
            async with self._opening:
                if self._mux is None:
                    await self._connect_all(app_name, config)
        except BaseException:
            await self.close(user)
            raise

    async def _connect_all(self, app_name: str, config: QueueConfig) -> None:
        self.app_name = app_name
        self.calls = Calls(f"qtasks:{{{app_name}}}:")
        self.durability = config.durability
        mux = Multiplexer(self._connection, self.target.timeout)
        try:
            await mux.open()
            self._mux = mux
            server = checks.Server.read(await self.command("INFO"))
            for message in server.judge(config.durability, self.target.masked, strict=config.strict):
                _log.warning("%s", message)
            await self._check_schema()
            if config.durability != "none":
                # The wait itself takes up to the timeout; servers end it with some delay.
                lane = Multiplexer(self._connection, self.target.timeout + 2.0)
                self._lane = DurableLane(lane, config.durability, self.target.timeout)
                await self._lane.open()
        except BaseException as error:
            self._mux = self._lane = None
            await mux.close()
            if isinstance(error, RedisError | OSError):
                raise backend_error(error, self.target.masked) from error
            raise
        self._notifier = Notifier(self._connection, self.calls.prefix, self.target.timeout)

    async def _check_schema(self) -> None:
        key = f"{self.calls.prefix}meta"
        version = None
        while version is None:  # somebody may empty the server between the two
            if await self.command("HSETNX", key, "schema", SCHEMA):
                return
            version = await self.command("HGET", key, "schema")
        if version != SCHEMA:
            raise FatalError(
                f"The data of app {self.app_name!r} at {self.target.masked} has layout {version.decode()}; "
                f"this version of qtasks reads {SCHEMA.decode()}. Use the version that wrote "
                "it, or another app name."
            )

    def _forget(self) -> None:
        """Lets go of what another process or a loop that has ended opened, without touching it: a socket and the
        registrations of a loop are shared with the parent after a fork."""
        self._process = os.getpid()
        self._users.clear()
        self._loop = self._opening = None
        self._mux = self._lane = self._notifier = None

    async def close(self, user: object) -> None:
        """Disconnects, for the last of the components."""
        if self._process != os.getpid():
            self._forget()
        self._users.discard(user)
        if self._users:
            return
        notifier, lane, mux = self._notifier, self._lane, self._mux
        if notifier is not None and mux is not None and notifier.used:
            try:
                async with asyncio.timeout(CLOSING):
                    await mux.call(pack([b"HDEL", self.calls.key("wake"), notifier.channel]))
            except (RedisError, OSError, TimeoutError) as error:
                _log.debug("the wake-up of this process is left registered: %s", error)
        self._notifier = self._lane = self._mux = None
        for part in (notifier, lane, mux):
            if part is not None:
                await part.close()

    async def _connection(self, reply: Reply, lost: Lost) -> Wire:
        target = self.target
        if target.kind in ("sentinel", "cluster"):
            self.address = await asyncio.to_thread(locate, target, self.calls.prefix)
        elif target.hosts:
            self.address = target.hosts[0]
        connection = async_connection(target, self.address)
        try:
            async with asyncio.timeout(target.connect_timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
            return Wire(connection, reply, lost)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise Disconnected(f"no connection within {target.connect_timeout:g} s") from None
            raise

    # --- Commands ---------------------------------------------------------------------------------

    @property
    def notifier(self) -> Notifier:
        """Tells of work and of results."""
        self._open_mux()
        assert self._notifier is not None
        return self._notifier

    async def command(self, *args: str | bytes) -> Any:
        """One command, for the few that are no scripts.

        Raises:
            BackendError: as all of a backend's errors.
        """
        packed = pack([arg.encode() if isinstance(arg, str) else arg for arg in args])
        try:
            return await self._open_mux().call(packed)
        except (RedisError, OSError) as error:
            raise backend_error(error, self.target.masked) from error

    async def run(
        self,
        name: str,
        args: Sequence[bytes],
        queues: tuple[str, ...] = (),
        *,
        durable: bool = False,
        tells: bool = False,
    ) -> Any:
        """Runs a script, in one round trip.

        Parameters:
            name: of the script.
            args: what it is given after the names of the queues.
            queues: the queues whose keys it needs.
            durable: whether the reply waits for the durability that is configured.
            tells: whether somebody waits for what it tells, see `Multiplexer.tell`. What waits to be durable does
                without.

        Raises:
            TransientError: the connection was lost, or the server cannot serve now.
            FatalError: the server refuses.
        """
        mux = self._open_mux()
        data = self.calls(name, args, queues)
        lane = self._lane if durable else None
        call = lane.call if lane is not None else mux.tell if tells else mux.call
        try:
            try:
                return await call(data)
            except NoScriptError:
                # It was not carried out, so it may be sent again: after a restart, a failover, SCRIPT FLUSH.
                await mux.call(pack([b"SCRIPT", b"LOAD", script(name).body]))
                return await call(data)
        except (RedisError, OSError) as error:
            if wants_relocation(error):
                await self._relocate(lane)
            raise backend_error(error, self.target.masked) from error

    async def erase(self, *keys: str) -> None:
        """Deletes these fixed keys of the app, which a flush leaves, and what says that the app is here."""
        await self.command("UNLINK", f"{self.calls.prefix}meta", *map(self.calls.key, keys))

    async def run_on_all(self, name: str, args: Sequence[bytes]) -> list[Any]:
        """Runs a script that must see every queue; gives its reply without the first word."""
        while True:
            reply = await self.run(name, args, self._queues)
            if reply[0] != b"STALE":
                return list(reply[1:])
            self._queues = tuple(sorted(queue.decode() for queue in reply[1]))

    async def _relocate(self, lane: DurableLane | None) -> None:
        """The writes go to another server now: it is looked for with the next command."""
        await self._open_mux().reset()
        if lane is not None:
            await lane.reset()

    def _open_mux(self) -> Multiplexer:
        if self._mux is None:
            raise NotStartedError(f"{self!r} is not open: use it inside `async with app:`, or after open()")
        if self._loop is not asyncio.get_running_loop():
            raise WrongLoopError(
                f"{self!r} was opened in another event loop: use it there, or open one of its own"
            )
        return self._mux
