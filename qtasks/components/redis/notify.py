"""Being told: of work, and of results. One connection of its own, one channel per process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from uuid import UUID

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from qtasks.components.redis.protocol import Connect, Wire
from qtasks.components.redis.scripts import pack

_log = logging.getLogger("qtasks.redis")
RECONNECT_FIRST, RECONNECT_LONGEST = 0.05, 5.0
QUIET = 20.0
"""Seconds between two looks at the connection. If nothing was heard in them, it is probed: a half-open one tells of
nothing. Whoever waits for a result then looks for itself, should it not have been told."""


class Notifier:
    """Listens on the channel of this process. Connected when it is first needed, and again when it is lost.

    Parameters:
        connect: connects; it is given what takes the messages, and what is told that the connection is lost.
        prefix: of the app's keys and channels.
        timeout: seconds that an answer may take.

    Attributes:
        channel: where this process is told.
        work: is set when work may be there.
        handed: each is given what add_plain.lua tells, and knows what is its own.
        generation: goes up with each connection; what was registered before may have gone unheard.
        awaits: whether the results of what this process adds are waited for, as far as the last one tells.
        early: the last that was told of a task for which nobody waits: it may be one whose enqueue is not answered yet.
    """

    def __init__(self, connect: Connect, prefix: str, timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._wake = f"{prefix}wake".encode()
        self.channel = f"{prefix}tell:{os.urandom(8).hex()}".encode()
        self.work = asyncio.Event()
        self.handed: set[Callable[[bytes], None]] = set()
        self.generation = 0
        self.awaits = False
        self.early: bytes | None = None
        self._waiters: dict[bytes, set[asyncio.Future[bytes | None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.Event = asyncio.Event()
        self._failure: RedisError | None = None
        self._answer: asyncio.Future[None]
        self._heard = False
        self._expected: tuple[bytes, asyncio.Future[bytes | None]] | None = None
        self._wire: Wire | None = None
        self._lost: asyncio.Future[None] | None = None
        self._fences: dict[bytes, asyncio.Future[None]] = {}

    @property
    def used(self) -> bool:
        """Whether anybody has asked to be told."""
        return self._task is not None

    @property
    def listening(self) -> bool:
        """Whether it hears now."""
        return self._listening.is_set()

    def start(self) -> None:
        """Begins to listen, in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="qtasks-redis-notify")

    async def ensure(self, timeout: float) -> bool:
        """Waits until it hears, at most `timeout` seconds; gives whether it does.

        Raises:
            RedisError: the server refuses: the user may not subscribe.
        """
        self.start()
        if not self._listening.is_set() and timeout > 0:
            try:
                async with asyncio.timeout(timeout):
                    await self._listening.wait()
            except TimeoutError:
                pass
        if self._failure is not None:
            raise self._failure
        return self._listening.is_set()

    def register(self, uuid: bytes) -> asyncio.Future[bytes | None]:
        """A future for the finished record of a task; `None` says: look again."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(uuid, set()).add(future)
        return future

    @property
    def expects(self) -> bool:
        """Whether the result of a task that is added now will most likely be waited for, and can be told of."""
        return self.awaits and self.listening

    def unexpect(self) -> None:
        """Drops what is expected: what was told of it need not hold any longer, as another task may have its uuid.
        Nobody has waited for it, so the next one is not expected."""
        if self._expected is not None:
            self.forget(*self._expected)
            self._expected = None
            self.awaits = False

    def expect(self, uuid: bytes, told: bytes | None) -> None:
        """The result of this task will be told here: the step that added it has left word. One at a time.

        Parameters:
            told: `early` as it was before that step. What was told by then is of an earlier task with this uuid.
        """
        self.unexpect()
        future = self.register(uuid)
        self._expected = uuid, future
        if self.early is not None and self.early is not told and self.early[:16] == uuid:
            future.set_result(self.early[16:] or None)

    def expected(self, uuid: bytes) -> asyncio.Future[bytes | None] | None:
        """The future of the result of this task, if it is expected. It is as one of `register`."""
        self.awaits = True
        if self._expected is None or self._expected[0] != uuid:
            return None
        _, future = self._expected
        self._expected = None
        return future

    def forget(self, uuid: bytes, future: asyncio.Future[bytes | None]) -> None:
        """Drops a future that is not waited for any more."""
        futures = self._waiters.get(uuid)
        if futures is not None:
            futures.discard(future)
            if not futures:
                del self._waiters[uuid]

    async def caught_up(self) -> None:
        """Returns when it has heard all that was told before, or can hear none of it any more.

        Raises:
            TimeoutError: the server does not answer.
        """
        if self._wire is None or not self.listening:
            return
        fence = os.urandom(8).hex().encode()
        answered = self._fences[fence] = asyncio.get_running_loop().create_future()
        self._wire.write(pack([b"PING", fence]))
        try:
            async with asyncio.timeout(self._timeout):
                await answered
        finally:
            self._fences.pop(fence, None)

    def renew(self) -> None:
        """Gives its connection up: nothing more is heard before the next one has taken back the word that this process
        has left with the server."""
        self._listening.clear()
        if self._wire is not None:
            self._wire.abort()
        if self._lost is not None and not self._lost.done():
            self._lost.set_exception(RedisConnectionError("it was given up"))

    async def close(self) -> None:
        """Stops listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._look_again()

    async def _run(self) -> None:
        pause = RECONNECT_FIRST
        while True:
            wire: Wire | None = None
            lost = self._lost = asyncio.get_running_loop().create_future()
            try:
                wire = await self._connect(self._told, lost.set_exception)
                if self.generation:
                    # Who left word over the connection before may be about to stop: tasks that it is handed wait for
                    # their lease then. Who still rests claims again.
                    await self._ask(wire, [b"HDEL", self._wake, self.channel], lost)
                await self._ask(wire, [b"SUBSCRIBE", self.channel], lost)
                self.generation += 1
                self._failure = None
                self._wire = wire
                self._listening.set()
                self._look_again()
                pause = RECONNECT_FIRST
                await self._listen(wire, lost)
            except (NoPermissionError, AuthenticationError) as error:
                self._failure = error
                self._listening.set()
                self._listening.clear()
            except (RedisError, OSError, TimeoutError) as error:
                _log.debug("notifications are interrupted: %s", error)
            except Exception as error:
                _log.exception("notifications are interrupted by an error of qtasks", exc_info=error)
            finally:
                self._listening.clear()
                self._wire = self._lost = None
                fences, self._fences = self._fences, {}
                for fence in fences.values():
                    if not fence.done():
                        fence.set_result(None)
                if wire is not None:
                    await wire.close()
            self._look_again()
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_LONGEST)

    async def _listen(self, wire: Wire, lost: asyncio.Future[None]) -> None:
        """Until the connection is lost, which this raises. What is told meanwhile does not wake it."""
        while True:
            self._heard = False
            await asyncio.wait([lost], timeout=QUIET)
            if lost.done():
                lost.result()
            if not self._heard:
                await self._ask(wire, [b"PING"], lost)
            self._look_again()

    async def _ask(self, wire: Wire, command: Sequence[bytes], lost: asyncio.Future[None]) -> None:
        """Sends a command and waits for its answer, or for whatever is told first."""
        self._answer = asyncio.get_running_loop().create_future()
        wire.write(pack(command))
        asked: list[asyncio.Future[None]] = [self._answer, lost]
        done, _ = await asyncio.wait(asked, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError(f"no answer to {command[0].decode()}")
        for each in done:
            each.result()

    def _told(self, message: object) -> None:
        self._heard = True
        if not self._answer.done():
            if isinstance(message, Exception):
                self._answer.set_exception(message)
            else:
                self._answer.set_result(None)
        if not isinstance(message, list) or message[0] != b"message":
            if isinstance(message, list) and len(message) == 2:  # a PING's
                fence = self._fences.pop(message[1], None)
                if fence is not None and not fence.done():
                    fence.set_result(None)
            return
        self._notified(message[2])

    def _notified(self, payload: bytes) -> None:
        if payload == b"w":
            self.work.set()
            return
        if payload[16:17] == b"L":  # an entry; the record of a waiting client has an F there
            for handed in self.handed:
                try:
                    handed(payload)
                except Exception as error:  # it must not cost the connection and what else is told over it
                    uuid = UUID(bytes=payload[:16])
                    _log.error("task %s was handed over and not taken; its lease ends", uuid, exc_info=error)
            return
        if payload[:16] not in self._waiters:
            self.early = payload  # of a task whose enqueue is not answered yet
        for future in self._waiters.pop(payload[:16], ()):
            if not future.done():
                future.set_result(payload[16:] or None)

    def _look_again(self) -> None:
        """What was published in the meantime was not heard: whoever waits reads for itself."""
        self.work.set()
        waiters, self._waiters = self._waiters, {}
        for futures in waiters.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)
