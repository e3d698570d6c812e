"""An application in memory whose clock is moved, not waited for: for tests, and for trying things out."""

from __future__ import annotations

import asyncio
from typing import Any

from qtasks import QueueConfig, QueueTasks, TaskStatusEnum
from qtasks.testing.bench import KitFailure, VirtualClock

LONGEST = 366 * 86_400.0
"""Seconds that a wait for tasks to end may move the clock at most."""
LOOK = 0.002
"""Seconds between two looks at what is left to do."""


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
    app = QueueTasks(name, "memory://", config=config, plugins=plugins)
    if clock is not None:
        set_clock(app, clock)
    return app


def set_clock(app: QueueTasks, clock: VirtualClock) -> None:
    """Gives an application, and each of its components, this clock."""
    app.clock = clock
    for component in (
        app.broker, app.storage, app.global_config, app.worker, app.task_executor, app.starter, app.stats,
    ):  # fmt: skip
        component.clock = clock


async def run_until_idle(app: QueueTasks, clock: VirtualClock, *, longest: float = LONGEST) -> None:
    """Runs the worker until nothing is ready, delayed or running in its queues. Where all that is left waits
    for its time, a retry say, the clock is moved there.

    Parameters:
        app: the application; it has been opened, and its clock is `clock`.
        longest: seconds of that clock after which it is given up.

    Raises:
        KitFailure: there is still something left after `longest`.
    """
    until = clock() + longest
    serving = asyncio.ensure_future(app.serve(until_idle=True))
    try:
        while not serving.done():
            await asyncio.wait([serving], timeout=LOOK)
            if await _all_wait(app):
                if clock() > until:
                    raise KitFailure(f"tasks are still put off after {longest:.0f} s of the virtual clock")
                clock.advance(max(await _next_due(app) - clock(), LOOK))
                await app.broker.push_many([])  # a hint: the worker looks again
        await serving
    finally:
        if not serving.done():
            await app.stop()
            await asyncio.wait([serving])


async def _all_wait(app: QueueTasks) -> bool:
    sizes = (await app.broker.size()).values()
    return any(size.delayed for size in sizes) and not any(size.ready or size.leased for size in sizes)


async def _next_due(app: QueueTasks) -> float:
    due: list[float] = []
    cursor: str | None = None
    while True:
        records, cursor = await app.storage.scan(cursor, 500)
        due += [record.available_at for record in records if record.status is TaskStatusEnum.NEW]
        if cursor is None:
            return min(due, default=app.clock())
