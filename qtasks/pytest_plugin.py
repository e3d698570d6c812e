"""Fixtures for the tests of applications; pytest finds them through the entry point `pytest11`.

It is loaded in every run of pytest where qtasks is installed, so it imports nothing of it until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qtasks import QueueTasks
    from qtasks.inmemory import VirtualClock
    from qtasks.recorder import Recorder


class IdleWorker:
    """Runs the worker of an application until there is nothing left to do."""

    def __init__(self, app: QueueTasks, clock: VirtualClock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self) -> None:
        """Runs all tasks that wait, those too that they add; where one waits for its time (a delay, a retry), the
        clock is moved there. Opens the application if that was not done.

        Raises:
            RuntimeError: tasks are still put off after a year of the clock.
        """
        from qtasks.inmemory import is_started, run_until_idle

        if is_started(self._app):
            await run_until_idle(self._app, self._clock)
        else:
            async with self._app:
                await run_until_idle(self._app, self._clock)


@pytest.fixture
def qtasks_clock() -> VirtualClock:
    """What time it is for `qtasks_app`. It stands still; `advance(seconds)` moves it."""
    from qtasks.inmemory import VirtualClock

    return VirtualClock()


@pytest.fixture
def qtasks_source() -> QueueTasks:
    """The application that is tested: override this with a fixture that returns yours. By default a bare one."""
    from qtasks import QueueTasks

    return QueueTasks("test", "memory://")


@pytest.fixture
def qtasks_app(qtasks_source: QueueTasks, qtasks_clock: VirtualClock) -> Iterator[QueueTasks]:
    """`qtasks_source` over an empty memory backend and on the virtual clock, for the time of the test: with its tasks
    and its plugins, and without a touch of its own store. Open it with `async with`."""
    from qtasks.inmemory import in_memory

    with in_memory(qtasks_source, qtasks_clock) as app:
        yield app


@pytest.fixture
def qtasks_worker(qtasks_app: QueueTasks, qtasks_clock: VirtualClock) -> IdleWorker:
    """`await qtasks_worker()` runs everything there is to do, delays and retries included, without waiting."""
    return IdleWorker(qtasks_app, qtasks_clock)


@pytest.fixture
def qtasks_triggers(qtasks_app: QueueTasks) -> Iterator[Recorder]:
    """Records each trigger that `qtasks_app` fires, with its values as the plugins before it left them:
    `.names()`, `.fired`; what `.returns[trigger]` says is returned, so it replaces values, too."""
    from qtasks.recorder import recorder

    made = recorder()
    name = qtasks_app.add_plugin(made, name="qtasks-triggers")
    yield made
    qtasks_app.pm.unregister(name)
