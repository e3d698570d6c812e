"""Faults that come through the front door: a plugin that fails at any trigger, names and values that are hostile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING
from uuid import uuid4

from qtasks.errors import BackendError, EnqueueUnknownError, InvalidNameError

from ..check import client

if TYPE_CHECKING:
    from ..run import Experiment

NAMES = (
    "", " ", "a b", "x\n", "x\0", "../x", "a" * 201, "ü", "{chaos}", "chaos}", "*", "a\tb", "'; DROP TABLE tasks; --",
    "%s", "$(id)", "\N{RIGHT-TO-LEFT OVERRIDE}x",
)  # fmt: skip
TEXTS = (*NAMES, "qtasks:{chaos}:rec", "\\", "]", "?", ":" * 300, "\N{PILE OF POO}", '"', "\x7f")
STRUCK = 20
"""Incidents after which a saboteur goes."""
NEIGHBOURS = ("chaos2", "chao", "chaos-", "CHAOS")


def sabotage(experiment: Experiment, drawn: random.Random) -> None:
    """A worker and a producer with a plugin that raises, hangs or returns junk at any trigger take the places of
    others until it has struck often."""
    number = drawn.randrange(len(experiment.workers))
    experiment.stop(experiment.workers[number])
    experiment.sabotaged = True
    saboteur = experiment.worker(CHAOS_SABOTAGE=drawn.random())
    experiment.restart_producer(CHAOS_SABOTAGE=drawn.random())
    experiment.await_workers(saboteur)
    experiment.more()
    before, until = len(experiment.site.lines("sabotage")), time.monotonic() + 15
    while len(experiment.site.lines("sabotage")) < before + STRUCK and time.monotonic() < until:
        time.sleep(0.05)
    experiment.restart_producer()
    experiment.stop(saboteur)
    experiment.workers[number] = experiment.worker()


def hostile_names(experiment: Experiment, drawn: random.Random) -> None:
    """Names outside the grammar are refused, values may be anything, and a neighbour's flush is its own (I7)."""
    try:
        asyncio.run(_hostile(experiment, drawn))
    except (BackendError, EnqueueUnknownError) as error:
        # Another fault is at work still; what was checked until here is checked.
        experiment.site.noted("producer-errors", type(error).__name__)


async def _hostile(experiment: Experiment, drawn: random.Random) -> None:
    site = experiment.site
    async with client(site) as app:
        for name in drawn.sample(NAMES, 6):
            await _refused(experiment, f"task {name!r}", app.add_task(name))
            await _refused(experiment, f"queue {name!r}", app.add_task("work", queue=name))
            await _refused(experiment, f"app {name!r}", _named(experiment, name))
        for text in drawn.sample(TEXTS, 6):
            unique = f"{text}{uuid4()}"
            task = await app.add_task("work", args=(0.0,), extra={text: text}, unique_key=unique)
            site.noted("acked", task.uuid, "work")
            await app.global_config.set(text, text, text)
            if await app.global_config.get(text, text) != text:
                experiment.broken.append(f"I7: the config does not give {text!r} back")
    await _neighbours(experiment, drawn.choice(NEIGHBOURS))


async def _neighbours(experiment: Experiment, name: str) -> None:
    async with client(experiment.site, "chaos_") as bystander:
        kept = await bystander.add_task("work", args=(0.0,))
        async with client(experiment.site, name) as other:
            await other.add_task("work", args=(0.0,))
            await other.flush_all()
            if await other.get(kept.uuid) is not None:
                experiment.broken.append(f"I7: app {name!r} sees a task of app 'chaos_'")
        if await bystander.get(kept.uuid) is None:
            experiment.broken.append(f"I7: the flush of app {name!r} took a task of app 'chaos_'")


async def _named(experiment: Experiment, name: str) -> None:
    client(experiment.site, name)


async def _refused(experiment: Experiment, what: str, asked: Awaitable[object]) -> None:
    try:
        await asked
    except InvalidNameError:
        return
    experiment.broken.append(f"I7: the {what} was taken")
