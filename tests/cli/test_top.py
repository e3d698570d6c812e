"""`qtasks top`: rates from records and signs of life, workers, and what failed for good."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from qtasks import QueueTasks
from qtasks.cli.top import Look, Rates, look, screen
from qtasks.components.stats import InspectStats
from qtasks.inmemory import VirtualClock, in_memory, run_until_idle
from qtasks.schemas import Task, TaskStatusEnum


def seen(at: float, *, success: int = 0, error: int = 0, worker: dict[str, Any] | None = None) -> Look:
    stats = InspectStats(
        app={"name": "shop", "broker": "B", "storage": "S", "global_config": "G", "version": "0"},
        queues={"mail": {"ready": 3, "delayed": 2, "leased": 1}},
        records={"new": 5, "success": success, "error": error, "cancel": 0, "dead": 0},
        workers={} if worker is None else {"w1": worker}, tasks=[], plugins=[], plugin_errors={},
    )  # fmt: skip
    return Look(stats, [], at, 1000.0 + at)


def sign(at: float, **executed: int) -> dict[str, Any]:
    return {
        "started_at": 1000.0, "updated_at": 1000.0 + at, "concurrency": 4, "queues": ["mail"], "running": 2,
        "executed": executed,
    }  # fmt: skip


def text(shown: Any) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def test_the_rate_is_what_ended_between_two_looks() -> None:
    rates = Rates()
    assert rates.take(seen(0, success=10)) == {"success": 0.0, "error": 0.0, "cancel": 0.0}
    assert rates.take(seen(2, success=30, error=4)) == {"success": 10.0, "error": 2.0, "cancel": 0.0}
    assert rates.take(seen(3, success=5, error=4))["success"] == 0.0, "results that expire are no work"


def test_the_rate_of_a_worker_is_that_between_its_signs_of_life() -> None:
    rates = Rates()
    for at, worker in ((0, sign(0, success=0)), (1, sign(0, success=0)), (2, sign(0, success=0))):
        rates.take(seen(at, worker=worker))
        assert rates.of_worker("w1") is None
    rates.take(seen(11, worker=sign(10, success=90, error=10)))
    assert rates.of_worker("w1") == pytest.approx(10.0)
    rates.take(seen(12, worker=sign(10, success=90, error=10)))
    assert rates.of_worker("w1") == pytest.approx(10.0), "no new sign is no standstill"


def test_the_screen_has_queues_workers_and_rates() -> None:
    rates = Rates()
    rates.take(seen(0, worker=sign(0, success=0)))
    shown = text(screen(rates, seen(10, success=50, worker=sign(10, success=50, retry=3))))
    for words in ("shop", "5.0 tasks/s", "5.0 success/s", "5 new", "mail", "w1", "2/4", "50", "0 s ago"):
        assert words in shown


async def test_the_newest_failures_are_shown_with_their_reasons() -> None:
    clock = VirtualClock()
    app = QueueTasks(url="memory://")

    @app.task(name="breaks")
    async def breaks(n: int) -> None:
        raise RuntimeError(f"\x1b[31mno {n}")

    with in_memory(app, clock):
        async with app:
            for n in range(7):
                await app.add_task("breaks", args=(n,))
            await run_until_idle(app, clock)
            clock.advance(3600)
            found = await look(app)
            assert len(found.failed) == 5
            shown = text(screen(Rates(), found))
    assert "RuntimeError: \\x1b[31mno" in shown
    assert "1 h" in shown


def test_a_failure_without_a_time_is_shown_too() -> None:
    moment = datetime.fromtimestamp(0, UTC)
    task = Task(
        uuid=UUID(int=1), task_name="t", status=TaskStatusEnum.ERROR, created_at=moment, updated_at=moment,
        available_at=moment,
    )  # fmt: skip
    one = seen(0)
    assert str(UUID(int=1)) in text(screen(Rates(), Look(one.stats, [task], one.at, one.now)))
