"""What the three memory components share: one space with a lock, and in it one state per app."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from qtasks.components.memory.entries import Entries
from qtasks.components.memory.records import Records

_numbers = itertools.count(1)


@dataclass(slots=True)
class ConfigValue:
    """A value of the global config: JSON, its version, and when it is gone (Unix seconds)."""

    data: bytes
    version: int
    expires_at: float | None


class Waiters:
    """Coroutines of any event loop that wait for something to change in the space."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def register(self) -> asyncio.Future[None]:
        """A future that the next `wake` resolves. Called under the lock of the space."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[future] = loop
        return future

    def forget(self, future: asyncio.Future[None]) -> None:
        """Drops a future that is not waited for any more."""
        self._waiting.pop(future, None)

    def wake(self) -> None:
        """Resolves all waiting futures, each on its own loop. Called under the lock of the space."""
        waiting, self._waiting = self._waiting, {}
        for future, loop in waiting.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def wait_first(future: asyncio.Future[None], timeout: float | None) -> None:
    """Waits until the future is resolved or `timeout` seconds are over; a timeout is no error."""
    await asyncio.wait((future,), timeout=timeout)


@dataclass(slots=True)
class AppState:
    """All that one app keeps in a space."""

    entries: Entries = field(default_factory=Entries)
    records: Records = field(default_factory=Records)
    config: dict[str, dict[str, ConfigValue]] = field(default_factory=dict)
    config_version: int = 0
    exclusive: tuple[str, float] | None = None
    work: Waiters = field(default_factory=Waiters)
    settled: dict[Any, Waiters] = field(default_factory=dict)

    def announce(self, uuids: Iterable[Any]) -> None:
        """Wakes those who wait for one of these tasks to finish."""
        if self.settled:
            for uuid in uuids:
                waiters = self.settled.pop(uuid, None)
                if waiters is not None:
                    waiters.wake()


class MemorySpace:
    """A store in this process. Components that are given the same space work on the same data.

    Attributes:
        lock: guards everything in it; the lease keeper's thread takes it too.
        locality: names the space.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.locality = f"memory:{next(_numbers)}"
        self._apps: dict[str, AppState] = {}

    def app(self, name: str) -> AppState:
        """The state of one app, made when it is first asked for."""
        try:
            return self._apps[name]
        except KeyError:
            with self.lock:
                return self._apps.setdefault(name, AppState())

    def hold_exclusive(self, app: str, owner: str, ttl: float, now: float) -> bool:
        """As `Broker.hold_exclusive`; `now` in Unix seconds."""
        state = self.app(app)
        with self.lock:
            held = state.exclusive
            if held is not None and held[0] != owner and held[1] > now:
                return False
            state.exclusive = (owner, now + ttl)
            return True

    def release_exclusive(self, app: str, owner: str) -> None:
        """As `Broker.release_exclusive`."""
        state = self.app(app)
        with self.lock:
            if state.exclusive is not None and state.exclusive[0] == owner:
                state.exclusive = None
