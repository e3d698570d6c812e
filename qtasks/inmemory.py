"""An application in memory whose clock is moved, not waited for: for tests, and for trying things out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtasks.backends import backend_from_url
from qtasks.components.delivery import delivery_of
from qtasks.errors import NotStartedError
from qtasks.schemas import TaskStatusEnum

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.config import QueueConfig

START = 1_800_000_000.0
"""What the virtual clock shows at first, Unix seconds."""
LONGEST = 366 * 86_400.0
"""Seconds that a wait for tasks to end may move the clock at most."""
STEP = 1.0
"""Seconds by which the clock is moved where an entry waits longer than its record says."""
LOOK = 0.002
"""Seconds between two looks at what is left to do."""


class VirtualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = START) -> None:
        self._now = now

    def __call__(self) -> float:
        """The time, Unix seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves the clock forward."""
        self._now += seconds


def memory_app(
    name: str = "kit", *, clock: VirtualClock | None = None, config: QueueConfig | None = None,
    plugins: Any = (),
) -> QueueTasks:  # fmt: skip
    """An application over a memory backend of its own.

    Parameters:
        name: its name.
        clock: what time it is for the application and its components; the real one if `None`.
        config: its settings; the default is that of the environment.
        plugins: as for `QueueTasks`.
    """
    from qtasks.app import QueueTasks

    app = QueueTasks(name, "memory://", config=config, plugins=plugins)
    if clock is not None:
        set_clock(app, clock)
    return app


@contextmanager
def in_memory(app: QueueTasks, clock: VirtualClock | None = None) -> Iterator[QueueTasks]:
    """Puts a fresh memory backend in the place of an application's own, and back again at the end. Tasks, plugins and
    settings stay, so `task.add_task(…)` adds to this one. The application's own store is not touched.

    Parameters:
        app: the application; it must not be started.
        clock: what time it is meanwhile; the real one if `None`.

    Raises:
        RuntimeError: it is started.
    """
    if is_started(app):
        raise RuntimeError(f"application {app.name!r} is started: put it in memory before that")
    kept = (app.broker, app.storage, app.global_config, app.delivery)
    clocks = [(part, part.clock) for part in (app, *_components(app))]
    backend = backend_from_url("memory://")
    config = app.config.model_copy(update={"durability": "none"})  # memory has no other
    for component in (backend.broker, backend.storage, backend.global_config):
        component.bind(app.pm, app_name=app.name, config=config)
    _use(app, backend.broker, backend.storage, backend.global_config)
    app.delivery = delivery_of(app.broker, app.storage)
    if clock is not None:
        set_clock(app, clock)
    try:
        yield app
    finally:
        _use(app, *kept[:3])
        app.delivery = kept[3]
        for part, own in clocks:
            part.clock = own


def _use(app: QueueTasks, broker: Any, storage: Any, global_config: Any) -> None:
    app.broker, app.storage, app.global_config = broker, storage, global_config
    broker.storage = storage


def is_started(app: QueueTasks) -> bool:
    """Whether the application has been opened, and not closed."""
    try:
        app.starter.check_started()
    except NotStartedError:
        return False
    return True


def set_clock(app: QueueTasks, clock: Callable[[], float]) -> None:
    """Gives an application, and each of its components, this clock."""
    for part in (app, *_components(app)):
        part.clock = clock


def _components(app: QueueTasks) -> tuple[Any, ...]:
    return (
        app.broker, app.storage, app.global_config, app.worker, app.task_executor, app.starter, app.stats,
    )  # fmt: skip


async def run_until_idle(app: QueueTasks, clock: VirtualClock, *, longest: float = LONGEST) -> None:
    """Runs the worker until nothing is ready, delayed or running in its queues. Where all that is left waits
    for its time, a retry say, the clock is moved there.

    Parameters:
        app: the application; it has been opened, and its clock is `clock`.
        longest: seconds of that clock after which it is given up.

    Raises:
        RuntimeError: there is still something left after `longest`.
    """
    until = clock() + longest
    serving = asyncio.ensure_future(app.serve(until_idle=True))
    try:
        while not serving.done():
            await asyncio.wait([serving], timeout=LOOK)
            if await _all_wait(app):
                if clock() > until:
                    raise RuntimeError(f"tasks are still put off after {longest:.0f} s of the virtual clock")
                ahead = await _next_due(app) - clock()
                clock.advance(ahead if ahead > 0 else STEP)
                await app.broker.push_many([])  # a hint: the worker looks again
        await serving
    finally:
        if not serving.done():
            await app.stop()
            await asyncio.wait([serving])


async def _all_wait(app: QueueTasks) -> bool:
    sizes = [size for queue, size in (await app.broker.size()).items() if queue in app.worker.queues]
    return any(size.delayed for size in sizes) and not any(size.ready or size.leased for size in sizes)


async def _next_due(app: QueueTasks) -> float:
    due: list[float] = []
    cursor: str | None = None
    while True:
        records, cursor = await app.storage.scan(cursor, 500)
        due += [record.available_at for record in records if record.status is TaskStatusEnum.NEW]
        if cursor is None:
            return min(due, default=app.clock())
