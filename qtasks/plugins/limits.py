"""limits: how many tasks of a key run at a time, and how many begin in a time, across all workers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakValueDictionary

from qtasks import QTasksError, TaskContext, TaskDefer, current_task, hookimpl
from qtasks.errors import TransientError
from qtasks.plugins.keys import digest

if TYPE_CHECKING:
    from qtasks import GlobalConfig, TaskExecSchema, Worker

log = logging.getLogger("qtasks.limits")

NAME: Final = "limits"
"""Under which a declaration has its limits in `extra`, and the global config their state."""
HORIZON = 10.0
"""Seconds ahead that the line of waiting tasks is planned. Who comes later comes back at a random time before that."""
SHORTEST, LONGEST = 0.005, 1.0
"""Seconds between two tasks that ask for a place at most often and at least."""
AWAY = 1.0
"""Seconds for which a task is put back while the store does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a task declares: `@app.task(extra={"limits": Limit(concurrency=3)})`, or a list of them.

    Parameters:
        concurrency: tasks that run at the same time at most.
        rate, per: tasks that begin in `per` seconds at most, on average.
        burst: how many of them may begin at once after a quiet time; the default is `rate`, at least 1.
        key: called with the task's arguments; each value that it gives (JSON) is limited by itself.
        name: tasks whose limits have the same name share it; the default is the task's name.

    Raises:
        ValueError: it limits nothing, or a number is not above 0.
    """

    qtasks_plugin: ClassVar[str] = NAME

    concurrency: int | None = None
    rate: float | None = None
    per: float = 1.0
    burst: int | None = None
    key: Callable[..., Any] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.concurrency is None and self.rate is None:
            raise ValueError("a Limit needs concurrency, rate, or both")
        for what in ("concurrency", "rate", "per", "burst"):
            value = getattr(self, what)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{what} is a finite number above 0, not {value!r}")

    def clashes(self, other: Limit) -> bool:
        """Whether the two would count in the same place, if they shared a state."""
        return None not in (self.concurrency, other.concurrency) or None not in (self.rate, other.rate)

    @property
    def interval(self) -> float:
        """Seconds between two beginnings, on average; 0 without a rate."""
        return 0.0 if self.rate is None else self.per / self.rate

    @property
    def tolerance(self) -> float:
        """Seconds by which a burst may run ahead of the average."""
        burst = self.burst if self.burst is not None else max(1, int(self.rate or 1))
        return (burst - 1) * self.interval


@dataclass(slots=True)
class State:
    """What all workers know of one limit and key. Times are Unix seconds.

    Attributes:
        places: until when each running task has its place, by token.
        full_at: when the bucket is full of tokens again (the theoretical arrival time of GCRA).
        line: until when the tries of waiting tasks are planned.
    """

    places: dict[str, float] = field(default_factory=dict)
    full_at: float = 0.0
    line: float = 0.0

    @classmethod
    def read(cls, value: Any) -> State:
        """What is stored; a worker of a newer version may have written more."""
        known = value if isinstance(value, Mapping) else {}
        return cls(**{each.name: known[each.name] for each in fields(cls) if each.name in known})

    def admit(
        self, limit: Limit, now: float, token: str, lease: float, *, waited: bool, spacing: float
    ) -> float | None:
        """Takes a place and a token, and gives `None`; or gives the time at which to try again.

        Parameters:
            lease: seconds for which a place is kept without being renewed.
            waited: whether the task has been due later than it was added: it goes before those that are new.
            spacing: seconds between the tries of two tasks that wait.
        """
        self.places = {token: until for token, until in self.places.items() if until > now}
        free_at = self.full_at - limit.tolerance if limit.rate is not None else now
        if limit.concurrency is not None and len(self.places) >= limit.concurrency:
            free_at = max(free_at, now + spacing)
        if free_at <= now and (waited or self.line <= now):
            if limit.concurrency is not None:
                self.places[token] = now + lease
            self.full_at = max(self.full_at, now) + limit.interval
            return None
        at = max(free_at, self.line)
        if at > now + HORIZON:
            return now + random.uniform(HORIZON / 2, HORIZON)
        self.line = at + max(spacing, limit.interval)
        return at

    def lasts(self, now: float) -> float:
        """Seconds after which it says nothing any more. Workers whose clocks are behind may need it longer."""
        return max(self.full_at, self.line, *self.places.values(), now) - now + 60.0


class Place:
    """What one run has, or may have, in one limit.

    Attributes:
        taken: set before the store is asked, so that what a cancelled run may have got is given back too.
    """

    def __init__(self, limit: Limit, config: GlobalConfig, key: str, token: str, lease: float) -> None:
        self.limit = limit
        self.config = config
        self.key = key
        self.token = token
        self.lease = lease
        self.taken = False
        self.since = 0.0

    async def change(self, change: Callable[[State], Any]) -> Any:
        """Changes the state by compare-and-set. Where the change gives `False`, nothing is written."""
        while True:
            value, version = await self.config.get_versioned(NAME, self.key)
            state = State.read(value)
            result = change(state)
            if result is False:
                return result
            written = {"places": state.places, "full_at": state.full_at, "line": state.line}
            ttl = state.lasts(self.config.clock())
            if await self.config.set(NAME, self.key, written, ttl=ttl, if_version=version) is not None:
                return result
            await asyncio.sleep(random.uniform(0, 0.005))

    def renew(self, state: State) -> bool:
        """Keeps the place for another lease; `False` where it is lost."""
        if self.token not in state.places:
            return False
        state.places[self.token] = self.config.clock() + self.lease
        return True

    def refund(self, state: State) -> bool:
        """Gives the token of a rate back; `False` where there is none."""
        state.full_at -= self.limit.interval
        return self.limit.rate is not None

    def leave(self, state: State) -> bool:
        """Gives the place back; `False` where there is none."""
        return state.places.pop(self.token, None) is not None


class LimitsPlugin:
    """Puts back the tasks that are over a limit (`TaskDefer`): they block no slot, and it counts neither as a failure
    nor as a delivery.

    A running task's place is renewed every third of the application's `lease`, and free when the lease of a worker
    that died is over.
    """

    qtasks_name = "limits"

    def __init__(self) -> None:
        self._held: set[Place] = set()
        # One try at a time for each key in this process: the others would only lose the compare-and-set.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._seconds: dict[Limit, float] = {}
        self._renewing: asyncio.Task[None] | None = None

    @hookimpl
    def worker_start(self, worker: Worker) -> None:
        """Begins to renew."""
        self._renewing = asyncio.create_task(self._renew_forever(worker.config.lease), name="qtasks-limits")

    @hookimpl
    async def worker_stop(self) -> None:
        """Ends that. What still runs, in a thread, loses its place when its lease is over."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing

    @hookimpl(after=("validation", "chain"), before=("depends",))
    async def task_executor_args_replace(
        self, task_func: TaskExecSchema, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> None:
        """Just before the run, so that no place is taken for a task that another plugin stops."""
        declared = task_func.extra.get(NAME)
        if declared is None:
            return
        limits = declared if isinstance(declared, list | tuple) else (declared,)
        context, entered = current_task(), list[Place]()
        try:
            for limit, key in _keyed(limits, context, args, kw):
                entered.append(await self._enter(context, limit, key))
        except TaskDefer:
            # It did not begin: the tokens that it took are for others. Its places are left when the run is closed.
            for place in entered:
                await self._changed(place, place.refund, "a token of %r is lost: %s")
            raise
        except TransientError as error:
            log.warning("task %s is put back: its limits cannot be read: %s", context.uuid, error)
            raise TaskDefer(AWAY) from error

    async def _enter(self, context: TaskContext, limit: Limit, key: str) -> Place:
        app, handle = context.app, context.handle
        place = Place(limit, app.global_config, key, f"{handle.uuid}/{handle.epoch}", app.config.lease)
        if limit.concurrency is not None:
            context.resources.push_async_callback(self._leave, place)
        spacing = min(max(self._seconds.get(limit, 0.0) / (2 * (limit.concurrency or 1)), SHORTEST), LONGEST)
        waited = context.available_at > context.task_broker.created_at
        lock = self._locks.get(key) or self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            place.taken = True
            now = app.clock()
            retry_at: float | None = await place.change(
                lambda state: state.admit(
                    limit, app.clock(), place.token, place.lease, waited=waited, spacing=spacing
                )
            )
        if retry_at is not None:
            place.taken = False
            raise TaskDefer(max(retry_at - app.clock(), 0.001))
        place.since = now
        if limit.concurrency is not None:
            self._held.add(place)
        return place

    async def _leave(self, place: Place) -> None:
        if not place.taken:
            return
        place.taken = False
        self._held.discard(place)
        if place.since:
            seconds = max(0.0, place.config.clock() - place.since)
            self._seconds[place.limit] = 0.8 * self._seconds.get(place.limit, seconds) + 0.2 * seconds
        await self._changed(place, place.leave, "a place in %r is given back when its lease is over: %s")

    async def _changed(self, place: Place, change: Callable[[State], bool], otherwise: str) -> None:
        try:
            await place.change(change)
        except QTasksError as error:
            log.warning(otherwise, place.key, error)

    async def _renew_forever(self, lease: float) -> None:
        while True:
            await asyncio.sleep(lease / 3)
            for place in list(self._held):
                try:
                    held = await place.change(place.renew)
                except QTasksError as error:
                    log.warning("a place in %r could not be renewed: %s", place.key, error)
                    continue
                if place.taken and held is False:
                    self._held.discard(place)
                    log.error("a place in %r was lost; its task runs beyond the limit", place.key)


def _keyed(
    limits: Sequence[Any], context: TaskContext, args: tuple[Any, ...], kw: dict[str, Any]
) -> list[tuple[Limit, str]]:
    """The limits of a task, each with the key of its state."""
    found: list[tuple[Limit, str, str]] = []
    for limit in limits:
        task = context.task_func.name
        if not isinstance(limit, Limit):
            raise TypeError(f"task {task!r}: extra['limits'] has Limit(...), not {limit!r}")
        key = limit.name or task
        if limit.key is not None:
            key += f":{digest(limit.key(*args, **kw), context.app.config)}"
        # Two rates of one key, or the two accounts of a transfer that are the same: each counts for itself.
        same = sum(key == other and limit.clashes(each) for each, other, _ in found)
        found.append((limit, key, f"{key}:{same}" if same else key))
    return [(limit, own) for limit, _, own in found]
