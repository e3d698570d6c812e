"""`qtasks top`: queues, workers, rates and failures, live."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qtasks.app import QueueTasks
from qtasks.cli.session import session
from qtasks.components.stats import InspectStats


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
    console = Console()
    rates = Rates()
    rates.take(await app.stats.inspect())
    if once or not console.is_terminal:
        await asyncio.sleep(interval)
        console.print(screen(rates, await app.stats.inspect()))
        return
    with Live(screen(rates, await app.stats.inspect()), console=console, screen=True) as live:
        while True:
            await asyncio.sleep(interval)
            live.update(screen(rates, await app.stats.inspect()))


class Rates:
    """Tasks per second of each worker, from how many it has ended since the last look."""

    def __init__(self) -> None:
        self._ended: dict[str, int] = {}
        self._at = time.monotonic()

    def take(self, stats: InspectStats) -> dict[str, float]:
        """The rates since the last call, by worker."""
        now = time.monotonic()
        seconds = max(now - self._at, 1e-6)
        ended = {owner: sum(worker["executed"].values()) for owner, worker in stats.workers.items()}
        rates = {owner: (count - self._ended.get(owner, count)) / seconds for owner, count in ended.items()}
        self._ended, self._at = ended, now
        return rates


def screen(rates: Rates, stats: InspectStats) -> Group:
    """What is shown at one moment."""
    per_worker = rates.take(stats)
    records = ", ".join(f"{count} {status}" for status, count in stats.records.items())
    head = Text.assemble((stats.app["name"], "bold"), f"  {sum(per_worker.values()):.1f} tasks/s  {records}")
    queues = _table("queue", "ready", "delayed", "leased")
    for name, size in stats.queues.items():
        queues.add_row(name, *(str(size[state]) for state in ("ready", "delayed", "leased")))
    workers = _table("worker", "queues", "running", "tasks/s", "success", "error", "retry", "cancel")
    for owner, worker in stats.workers.items():
        ended: dict[str, Any] = worker["executed"]
        workers.add_row(
            owner, ", ".join(worker["queues"]), f"{worker['running']}/{worker['concurrency']}",
            f"{per_worker[owner]:.1f}", *(str(ended.get(end, 0)) for end in ("success", "error", "retry", "cancel")),
        )  # fmt: skip
    return Group(head, queues, workers)


def _table(*columns: str) -> Table:
    table = Table(expand=True)
    for column in columns:
        table.add_column(column)
    return table
