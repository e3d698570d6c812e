"""schedule: adds tasks at the times of cron expressions and intervals; each time has one task, whoever dies."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qtasks import TaskCancelError, TaskRejected, UuidConflictError, hookimpl
from qtasks.errors import TaskDeclarationError

if TYPE_CHECKING:
    from qtasks import QueueTasks, Worker

log = logging.getLogger("qtasks.schedule")

NAME: Final = "schedule"
"""Under which a declaration has its schedules in `extra`, and the global config the last time of each."""
NAMESPACE: Final = UUID("2d0aee4c-8d0e-5a0e-9f0c-0b6c3f5a7d11")
"""Of the uuids of scheduled tasks."""
LATE = 60.0
"""Seconds by which a time may be late and is not missed yet, for `catch_up="skip"`; and by which clocks may differ."""
LOOK = 30.0
"""Seconds after which the clock is looked at again at the latest: it may have been set."""
AGAIN = 1.0
"""Seconds after which a time is tried again that could not be stored."""
BACK = 60.0
"""Seconds that are looked back at first for what was missed; all times of that span are gone through."""

CatchUp = Literal["skip", "one", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scheduled:
    """What cron expressions and intervals have in common.

    Parameters:
        key: tells several schedules of one task apart; it is part of the identity of their tasks.
        args, kwargs: the arguments of the task (JSON).
        catch_up: what happens with times that went by while no worker ran: `"one"` adds one task for the last of them,
            `"skip"` none unless it is late by less than a minute, `"all"` one for each, the last `most` of them.
        most: see `catch_up`.
    """

    qtasks_plugin: ClassVar[str] = NAME

    key: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    catch_up: CatchUp = "one"
    most: int = 100

    def _check(self) -> None:
        if self.catch_up not in get_args(CatchUp):
            raise TaskDeclarationError(
                f"catch_up is one of {', '.join(get_args(CatchUp))}, not {self.catch_up!r}"
            )
        if self.most < 1:
            raise TaskDeclarationError(f"most is at least 1, not {self.most!r}")

    def after(self, moment: float) -> float | None:
        """The first time after a moment (Unix seconds), the same from wherever one looks; `None` if there is none."""
        raise NotImplementedError

    def missed(self, last: float, now: float) -> list[float]:
        """The times after `last` up to `now` for which a task is to be added."""
        if self.catch_up == "all":
            return self._latest(last, now, self.most)
        latest = self._latest(last, now, 1)
        return latest if self.catch_up == "one" or (latest and now - latest[0] <= LATE) else []

    def _latest(self, last: float, now: float, count: int) -> list[float]:
        # After a long silence most times are passed over: look back as far as is needed, not further.
        back = BACK
        while True:
            begin = max(last, now - back)
            found = deque(self._between(begin, now), maxlen=count)
            if len(found) == count or begin == last:
                return list(found)
            back *= 10

    def _between(self, begin: float, end: float) -> Iterator[float]:
        moment = self.after(begin)
        while moment is not None and moment <= end:
            yield moment
            moment = self.after(moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Every(_Scheduled):
    """Times that lie `seconds` apart, counted from 1970-01-01 UTC, so that all workers mean the same ones.

    Raises:
        TaskDeclarationError: the interval or an option is not usable.
    """

    seconds: float

    def __post_init__(self) -> None:
        self._check()
        if not 0.01 <= self.seconds < math.inf:
            raise TaskDeclarationError(f"an interval is at least 0.01 seconds, not {self.seconds!r}")

    def after(self, moment: float) -> float | None:
        count = math.floor(moment / self.seconds)
        while (tick := round(count * self.seconds, 6)) <= moment:
            count += 1
        return tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron(_Scheduled):
    """The times of a cron expression: five fields, or six with seconds first, by cronsim.

    Where the clock is put forward, a job at a fixed time that does not exist runs at the first minute that does;
    where it is put back, it runs once. A job with a star in its minutes or hours goes by the time that passes (as in
    Debian's cron).

    Parameters:
        tz: the IANA name of the time zone that it is read in.

    Raises:
        TaskDeclarationError: the expression, the zone or an option is not valid.
    """

    expression: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        self._check()
        try:
            self.after(0.0)
        except ImportError as error:
            raise TaskDeclarationError(
                "cron expressions need cronsim: pip install 'qtasks[schedule]'"
            ) from error
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise TaskDeclarationError(
                f"{self.tz!r} is not a time zone (on a machine without zones, install tzdata)"
            ) from error
        except Exception as error:
            raise TaskDeclarationError(f"{self.expression!r} is not a cron expression: {error}") from error

    def after(self, moment: float) -> float | None:
        from cronsim import CronSim

        # UTC itself, not a zone of that name: for it there is nothing to be mended.
        zone = UTC if self.tz == "UTC" else ZoneInfo(self.tz)
        for found in CronSim(self.expression, datetime.fromtimestamp(moment, zone)):
            # In the hour that comes twice, the one that it finds may be over.
            if (tick := found.timestamp()) > moment:
                return tick
        return None


class SchedulePlugin:
    """Lets every worker process add the tasks that are due; the first one to come adds it, for the others it is there.

    The uuid of a task is made of application, task, key and time, so a time has one task even if a worker dies between
    adding it and writing down that it did. `app.cron` and `app.every` register this plugin by themselves.
    """

    qtasks_name = "schedule"

    def __init__(self) -> None:
        self._running: asyncio.Task[None] | None = None

    @hookimpl
    def worker_start(self, worker: Worker) -> None:
        """Begins to watch the clock."""
        jobs = [
            Job(worker.app, task, schedule)
            for task, declared in worker.app.tasks.items()
            for schedule in _schedules(task, declared.extra.get(NAME, ()))
        ]
        if jobs:
            self._running = asyncio.create_task(_watch(worker.app, jobs), name="qtasks-schedule")

    @hookimpl
    async def worker_stop(self) -> None:
        """Ends that."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None


def _schedules(task: str, declared: Any) -> tuple[_Scheduled, ...]:
    found = tuple(declared) if isinstance(declared, list | tuple) else (declared,)
    for schedule in found:
        if not isinstance(schedule, _Scheduled):
            raise TypeError(f"task {task!r}: extra['schedule'] has Cron(...) or Every(...), not {schedule!r}")
    if len({schedule.key for schedule in found}) < len(found):
        raise ValueError(f"task {task!r} has several schedules of one key: give each a key of its own")
    return found


class Job:
    """One schedule of one task, as a worker process sees it."""

    def __init__(self, app: QueueTasks, task: str, schedule: _Scheduled) -> None:
        self.app = app
        self.task = task
        self.schedule = schedule
        # The name of a task may have colons: with one in the key, two schedules could be called the same.
        self.name = f"{task}:{schedule.key.replace('%', '%25').replace(':', '%3A')}"
        self.next = 0.0
        self._warned = False

    async def look(self) -> None:
        """Adds what is due by now, and finds out when to look again."""
        now = self.app.clock()
        if now < self.next:
            return
        last, version = await self.app.global_config.get_versioned(NAME, self.name)
        if not version:
            # Times before the first start of the schedule are nobody's.
            await self.app.global_config.set(NAME, self.name, now, if_version=0)
            last = now
        if last > now + LATE and not self._warned:
            self._warned = True
            log.warning(
                "%s is done for the next %.0f s by this clock: until then nothing is added. Some worker's clock is or "
                "was wrong; if this one is right, delete the mark: app.global_config.delete(%r, %r)",
                self.name, last - now, NAME, self.name,
            )  # fmt: skip
        for tick in self.schedule.missed(last, now):
            await self._add(tick, now)
        latest = self.schedule._latest(last, now, 1)
        if latest:
            await self._done(latest[0])
        self.next = self.schedule.after(now) or math.inf

    def uuid(self, tick: float) -> UUID:
        """The identity of the task for one time."""
        return uuid5(NAMESPACE, json.dumps([self.app.name, self.task, self.schedule.key, f"{tick:.6f}"]))

    async def _add(self, tick: float, now: float) -> None:
        moment = datetime.fromtimestamp(tick, UTC)
        schedule = self.schedule
        try:
            await self.app.add_task(
                self.task,
                args=schedule.args,
                kwargs=schedule.kwargs,
                uuid=self.uuid(tick),
                # Where this clock is ahead of the store's, the task waits for its time.
                eta=moment if now - tick < LATE else None,
                extra={NAME: {"key": schedule.key, "time": moment.isoformat()}},
            )
        except UuidConflictError:
            pass  # a worker whose code has other arguments was here first
        except (TaskCancelError, TaskRejected) as refused:
            log.info("%s at %s was refused: %s", self.name, moment, refused)

    async def _done(self, tick: float) -> None:
        """Writes down that all times up to this one are dealt with. It only ever goes forward."""
        config = self.app.global_config
        while True:
            last, version = await config.get_versioned(NAME, self.name)
            if version and last >= tick:
                return
            if await config.set(NAME, self.name, tick, if_version=version) is not None:
                return


async def _watch(app: QueueTasks, jobs: list[Job]) -> None:
    while True:
        for job in jobs:
            try:
                await job.look()
            except Exception as error:  # one job must not stop the others, nor itself
                log.warning("%s is tried again: %s", job.name, error)
                job.next = app.clock() + AGAIN
        now = app.clock()
        await asyncio.sleep(max(0.0, min(min(job.next for job in jobs) - now, LOOK)))
