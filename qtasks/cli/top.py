"""`qtasks top`: queues, workers, rates and failures, live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import clean
from qtasks.cli.session import session
from qtasks.components.stats import InspectStats
from qtasks.schemas import Task

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

ENDS = ("success", "error", "cancel")
FAILURES = 5
"""Failures that are shown."""


def add_to(cli: typer.Typer) -> None:
    """Adds this command."""
    cli.command()(top)


def top(
    context: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, show it once, and end.")] = False,
) -> None:
    """Queues, workers, rates and failures, live; press Ctrl-C to leave."""
    session(context).ask(lambda app: _watch(app, interval, once))


async def _watch(app: QueueTasks, interval: float, once: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    rates = Rates()
    rates.take(await look(app))
    if once or not console.is_terminal:
        await asyncio.sleep(interval)
        console.print(screen(rates, await look(app)))
        return
    with Live(screen(rates, await look(app)), console=console, screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(interval)
            live.update(screen(rates, await look(app)), refresh=True)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at: monotonic seconds.
        now: the application's time, Unix seconds.
        failed: the newest dead letters.
    """

    stats: InspectStats
    failed: list[Task]
    at: float
    now: float


async def look(app: QueueTasks) -> Look:
    """Looks at an application."""
    stats = await app.stats.inspect()
    failed: list[Task] = []
    if stats.records.get("dead"):
        async for task in app.dead():
            failed.append(task)
            if len(failed) == FAILURES:
                break
    return Look(stats, failed, time.monotonic(), app.clock())


class Rates:
    """Tasks per second: of the application by how they ended, from the records; of each worker from its signs of
    life, which come every few seconds and say when they were written."""

    def __init__(self) -> None:
        self._last: Look | None = None
        self._signs: dict[str, tuple[float, int]] = {}
        self._of_worker: dict[str, float] = {}

    def take(self, seen: Look) -> dict[str, float]:
        """The rates since the look before, by how tasks ended."""
        last, self._last = self._last, seen
        for owner, worker in seen.stats.workers.items():
            self._sign(owner, worker)
        if last is None:
            return dict.fromkeys(ENDS, 0.0)
        seconds = max(seen.at - last.at, 1e-6)
        # Records that expire meanwhile are no work that was undone.
        return {
            end: max(0, seen.stats.records.get(end, 0) - last.stats.records.get(end, 0)) / seconds
            for end in ENDS
        }

    def _sign(self, owner: str, worker: Mapping[str, Any]) -> None:
        at, ended = float(worker.get("updated_at") or 0.0), sum(worker["executed"].values())
        before = self._signs.get(owner)
        if before is None or at <= before[0]:
            self._signs.setdefault(owner, (at, ended))
            return
        self._of_worker[owner] = (ended - before[1]) / (at - before[0])
        self._signs[owner] = at, ended

    def of_worker(self, owner: str) -> float | None:
        """Tasks per second that a worker ended between its last two signs of life; `None` before there are two."""
        return self._of_worker.get(owner)


def screen(rates: Rates, seen: Look) -> Group:
    """What is shown at one moment."""
    from rich.console import Group
    from rich.text import Text

    stats = seen.stats
    per_end = rates.take(seen)
    moment = datetime.fromtimestamp(seen.now, UTC).astimezone()
    head = Text.assemble(
        (stats.app["name"], "bold"), f"  {stats.app['broker']}, {stats.app['storage']}  {moment:%H:%M:%S}\n",
        (f"{sum(per_end.values()):.1f} tasks/s", "bold"), "  ",
        ", ".join(f"{rate:.1f} {end}/s" for end, rate in per_end.items()), "\n",
        ", ".join(f"{count} {status}" for status, count in stats.records.items()),
    )  # fmt: skip
    parts = [head, _queues(stats), _workers(rates, seen)]
    if seen.failed:
        parts.append(_failures(seen))
    return Group(*parts)


def _queues(stats: InspectStats) -> Table | Text:
    from rich.text import Text

    if not stats.queues:
        return Text("\nall queues are empty", style="dim")
    table = _table("queue", ready="right", delayed="right", leased="right")
    for name, size in stats.queues.items():
        table.add_row(name, *(str(size[state]) for state in ("ready", "delayed", "leased")))
    return table


def _workers(rates: Rates, seen: Look) -> Table | Text:
    from rich.text import Text

    if not seen.stats.workers:
        return Text("\nno worker is running: qtasks run", style="yellow")
    table = _table("worker", "queues", running="right", **{"tasks/s": "right"}, success="right", error="right",
                   retry="right", cancel="right", up="right", seen="right")  # fmt: skip
    for owner, worker in seen.stats.workers.items():
        ended, rate = worker["executed"], rates.of_worker(owner)
        table.add_row(
            owner, ", ".join(worker["queues"]), f"{worker['running']}/{worker['concurrency']}",
            "…" if rate is None else f"{rate:.1f}",
            *(str(ended.get(end, 0)) for end in ("success", "error", "retry", "cancel")),
            _span(seen.now - worker["started_at"]), f"{_span(seen.now - (worker.get('updated_at') or seen.now))} ago",
        )  # fmt: skip
    return table


def _failures(seen: Look) -> Table:
    from rich.text import Text

    table = _table("failed for good", "task", "because", ago="right")
    for task in seen.failed:
        lines = (task.traceback or "").strip().splitlines()
        ago = "" if task.finished_at is None else _span(seen.now - task.finished_at.timestamp())
        table.add_row(str(task.uuid), task.task_name, Text(clean(lines[-1] if lines else "")), ago)
    return table


def _span(seconds: float) -> str:
    """A duration in its largest unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _table(*columns: str, **justified: Any) -> Table:
    from rich.table import Table

    table = Table(expand=True)
    for column in columns:
        table.add_column(column, overflow="ellipsis")
    for column, justify in justified.items():
        table.add_column(column, justify=justify, no_wrap=True)
    return table
