"""What one task does must not end, or stall, the worker for the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from qtasks.app import QueueTasks
from qtasks.config import QueueConfig
from qtasks.markers import hookimpl

URLS = ["memory://", "sqlite"]


class Replaces:
    """Replaces the fields that a retry writes."""

    def __init__(self, kw: dict[str, Any]) -> None:
        self.kw = kw

    @hookimpl
    def storage_update(self, kw: dict[str, Any]) -> dict[str, Any] | None:
        return {"kw": self.kw} if kw["status"] == "new" else None


@pytest.fixture(params=URLS)
def make_app(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[..., QueueTasks]:
    url = request.param if request.param != "sqlite" else f"sqlite:///{tmp_path / 'queue.db'}"
    return lambda **settings: QueueTasks(url=url, config=QueueConfig(**settings))


async def test_a_result_that_cannot_be_written_ends_its_task_only(
    make_app: Callable[..., QueueTasks],
) -> None:
    app = make_app()

    @app.task
    async def surrogate() -> str:
        return "\ud800"

    @app.task
    async def fine() -> int:
        return 1

    async with app:
        bad, good = await surrogate.add_task(), await fine.add_task()
        async with asyncio.timeout(20):
            await app.serve(until_idle=True)
        seen = await app.get(bad.uuid)
        assert seen is not None
        assert seen.status == "error"
        assert "cannot be written as JSON" in (seen.traceback or "")
        assert (await app.wait_result(good.uuid, 1)).returning == 1


@pytest.mark.parametrize("kw", [{"extra": {"a": object()}}, {"no_such_field": 1}], ids=["value", "name"])
async def test_a_retry_that_a_plugin_spoilt_ends_its_task_only(
    make_app: Callable[..., QueueTasks], kw: dict[str, Any]
) -> None:
    app = make_app(release_delay=0.01)
    app.add_plugin(Replaces(kw), name="spoiler")

    @app.task(retry=1, retry_delay=0.01)
    async def fails() -> None:
        raise ValueError("no")

    async with app:
        task = await fails.add_task()
        async with asyncio.timeout(20):
            await app.serve(until_idle=True)
        seen = await app.get(task.uuid)
        assert seen is not None
        assert seen.status == "error"


async def test_a_thread_that_hangs_does_not_hold_up_a_task_that_must_run_alone(
    make_app: Callable[..., QueueTasks],
) -> None:
    app = make_app(concurrency=3, max_deliveries=3, lease=2.0)
    release = threading.Event()

    @app.task(max_time=0.1)
    def hangs() -> None:
        release.wait(30)

    @app.task
    async def suspect() -> int:
        return 2

    async with app:
        alone = await suspect.add_task()
        (handle,) = await app.broker.claim(1, ["default"], "lost", 1.0)
        assert handle.uuid == alone.uuid
        hanging = await hangs.add_task()
        serving = asyncio.create_task(app.serve())
        try:
            assert (await app.wait_result(hanging.uuid, 10)).status == "error"
            assert (await app.wait_result(alone.uuid, 10)).returning == 2
        finally:
            release.set()
            await app.stop()
            await serving
