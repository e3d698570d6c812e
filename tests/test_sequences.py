"""The sequences of triggers in docs/flow.md are those of real runs, on every backend.

The runs are recorded by a plugin that implements all triggers; `global_config_set_status`, which fires
beside everything else, is left out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qtasks.app import QueueTasks
from qtasks.context import TaskContext
from qtasks.errors import TaskCancelError, TaskDefer, TaskRejected
from qtasks.manager import PluginManager
from qtasks.markers import hookimpl

from .apps import BACKENDS, WAIT, assert_quiet, ended, make_app, serving

FLOW = Path(__file__).parents[1] / "docs" / "flow.md"
BESIDE = "global_config_set_status"


def blocks() -> dict[str, list[str]]:
    """The sequences by name, as the page has them."""
    found = re.findall(
        r"<!-- flow: (.+?) -->\n```text\n(.*?)```", FLOW.read_text(encoding="utf-8"), re.DOTALL
    )
    return {name: text.split() for name, text in found}


class Recorder:
    """Keeps the order in which triggers fire."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.fired = asyncio.Event()

    def note(self, trigger: str) -> None:
        """Called by every trigger."""
        if trigger != BESIDE:
            self.seen.append(trigger)
            self.fired.set()

    def take(self) -> list[str]:
        """What fired since the last time."""
        seen, self.seen = self.seen, []
        return seen

    async def until(self, trigger: str, times: int = 1) -> None:
        """Returns when a trigger has fired so often since `take`."""
        async with asyncio.timeout(WAIT):
            while self.seen.count(trigger) < times:
                self.fired.clear()
                await self.fired.wait()

    def plugin(self) -> object:
        """A plugin that implements every trigger, every second one as `async def`."""

        def of(trigger: str, asynchronous: bool) -> Callable[..., Any]:
            def plain(self_: object) -> None:
                self.note(trigger)

            async def waiting(self_: object) -> None:
                self.note(trigger)
                await asyncio.sleep(0)

            return hookimpl(specname=trigger)(waiting if asynchronous else plain)

        triggers = sorted(PluginManager().triggers)
        assert len(triggers) == 52
        methods = {trigger: of(trigger, number % 2 == 1) for number, trigger in enumerate(triggers)}
        return type("Recording", (), methods)()


class Steering:
    """Raises what it is told in `worker_execute_before`, once."""

    def __init__(self) -> None:
        self.control: Exception | None = None

    @hookimpl
    def worker_execute_before(self) -> None:
        control, self.control = self.control, None
        if control is not None:
            raise control


class Run:
    """An application with a recorder, and the tasks that the sequences need."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.recorder = Recorder()
        self.steering = Steering()
        self.app: QueueTasks = make_app(backend, folder)
        self.app.add_plugin(self.recorder.plugin(), name="recorder")
        self.app.add_plugin(self.steering, name="steering")
        self.running = asyncio.Event()
        self._declare()

    def _declare(self) -> None:
        app, running = self.app, self.running
        failures = iter([ValueError("the first time only")])

        @app.task(name="success")
        async def success() -> int:
            return 1

        @app.task(name="generator")
        def generator() -> Iterator[int]:
            yield from range(3)

        @app.task(name="stream", stream=True)
        async def stream() -> AsyncIterator[int]:
            yield 1

        @app.task(name="progress", echo=True)
        async def progress(context: TaskContext) -> None:
            await context.progress(0.5)

        @app.task(name="error")
        async def error() -> None:
            raise ValueError("always")

        @app.task(name="trigger_error", echo=True)
        async def trigger_error(context: TaskContext) -> None:
            context.plugin_error("help")

        @app.task(name="retry", retry=1, retry_delay=0.01)
        async def retry() -> None:
            for failure in failures:
                raise failure

        @app.task(name="cancel")
        async def cancel() -> None:
            running.set()
            await asyncio.Event().wait()

    async def one(self, name: str, steer: Exception | None = None) -> list[str]:
        """What fires for one task from its claim to its end."""
        task = await self.app.add_task(name)
        self.recorder.take()
        self.steering.control = steer
        async with serving(self.app):
            if name == "cancel":
                await self.running.wait()
                await task.cancel()
            await ended(self.app, task.uuid)
            await self.recorder.until("worker_execute_after", 2 if name == "retry" else 1)
        return self.recorder.take()


def within(seen: list[str], page: dict[str, list[str]]) -> list[str]:
    """What a served task fired, without the start and stop of its worker."""
    start, stop = page["worker start"], page["worker stop"]
    assert seen[: len(start)] == start
    assert seen[-len(stop) :] == stop
    return seen[len(start) : -len(stop)]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_task(backend: str, tmp_path: Path) -> None:
    """Success, generator, stream, progress, error, trigger error, retry, cancel, veto (both kinds) and defer."""
    page, run = blocks(), Run(backend, tmp_path)
    async with run.app:
        for name in ("success", "generator", "stream", "error", "trigger error", "retry", "cancel"):
            assert within(await run.one(name.replace(" ", "_")), page) == page[name], name
        code = page["success"].index("task_executor_args_replace") + 1
        with_progress = [*page["success"][:code], *page["progress"], *page["success"][code:]]
        assert within(await run.one("progress"), page) == with_progress
        for veto in (TaskCancelError("no"), TaskRejected("no")):
            assert within(await run.one("success", veto), page) == page["veto"]
        assert within(await run.one("success", TaskDefer(0.01)), page) == page["defer"]
        await assert_quiet(run.app)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_restored_task(backend: str, tmp_path: Path) -> None:
    """Another worker started it and was lost: its lease is over at once."""
    page, run = blocks(), Run(backend, tmp_path)
    async with run.app:
        task = await run.app.add_task("success")
        assert len(await run.app.delivery.claim(1, ("default",), "f" * 16, 1e-6)) == 1
        run.recorder.take()
        async with serving(run.app):
            await ended(run.app, task.uuid)
            await run.recorder.until("worker_execute_after")
        assert within(run.recorder.take(), page) == page["restore"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_application(backend: str, tmp_path: Path) -> None:
    """Start, the calls of a client, and shutdown with the worker still running."""
    page, run = blocks(), Run(backend, tmp_path)
    app, take = run.app, run.recorder.take

    async def calls(name: str, call: Callable[[], Awaitable[object]]) -> None:
        await call()
        assert take() == page[name], name

    async with app:
        assert take() == page["start"]
        task = await app.add_task("success")
        assert take() == page["add"]
        await calls("get", lambda: app.get(task.uuid))
        await calls("get all", app.get_all)
        await calls("ping", app.ping)
        await calls("inspect", app.stats.inspect)
        await calls("purge", app.storage.delete_finished_tasks)
        await app.cancel(task.uuid)
        assert take() == [], "a waiting task that is cancelled fires nothing"
        await calls("get", task.wait_result)
        await calls("flush", app.flush_all)
        async with serving(app):
            await run.recorder.until("broker_listen_start")
        assert take() == page["worker start"] + page["worker stop"]
    assert take() == page["stop"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_serve_starts_and_stops_what_is_not_running(backend: str, tmp_path: Path) -> None:
    """The whole life of `app.serve()`, with one task in it."""
    page, run = blocks(), Run(backend, tmp_path)
    async with run.app:
        await run.app.add_task("success")
    run.recorder.take()
    await run.app.serve(until_idle=True)
    life = page["start"] + page["worker start"] + page["success"] + page["worker stop"] + page["stop"]
    assert run.recorder.take() == life


def test_every_trigger_is_in_a_sequence() -> None:
    """But those that only a caller of the global config fires, and the sign of life."""
    alone = {
        name
        for name in PluginManager().triggers
        if name.startswith("global_config_") and "st" not in name[14:]
    }
    listed = {trigger for block in blocks().values() for trigger in block}
    assert listed | alone | {BESIDE} == set(PluginManager().triggers)
    assert not listed & alone
