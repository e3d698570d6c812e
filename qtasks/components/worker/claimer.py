"""The claim loop of a worker: how much it asks for, when it asks, and what it waits for in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from qtasks.components.worker.backoff import Backoff
from qtasks.errors import TransientError

if TYPE_CHECKING:
    from qtasks.components.worker.finisher import Finisher
    from qtasks.components.worker.worker import Worker

log = logging.getLogger("qtasks.worker")

IDLE_WAIT = 1.0
"""Seconds that a claim loop waits for a hint at most."""
MEASURE_TIME = 0.05
"""Seconds over which the rate for the prefetch is measured."""
PREFETCH_TIME = 0.02
"""Seconds of work that are claimed ahead."""


class Claimer:
    """Keeps the slots of a worker and its small local queue filled.

    Attributes:
        open: whether anything more is claimed.
        began: when the claim that is under way began (monotonic seconds).
        room: set when a slot may be free: the loop looks again at how much it wants.
    """

    def __init__(self, worker: Worker, finisher: Finisher) -> None:
        self._worker = worker
        self._finisher = finisher
        self.open = True
        self.began: float | None = None
        self.room = asyncio.Event()
        self._own: asyncio.Task[Any] | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._claimed = asyncio.Event()
        self._claimed.set()
        self._ended = asyncio.Event()
        self._ended.set()
        self._rate = 0.0
        self._measured = 0
        self._measured_at = time.monotonic()

    async def claim_forever(self) -> None:
        """Claims until it is closed up."""
        backoff = Backoff()
        self._own = asyncio.current_task()
        self._ended.clear()
        try:
            while self.open:
                await self._claim_once(backoff)
        finally:
            self._ended.set()

    def close_up(self) -> None:
        """Nothing more is claimed."""
        self.open = False
        self.room.set()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def ended(self) -> None:
        """Returns when the loop has ended. A claim that is under way goes on: its tasks would be stuck until their
        lease ends."""
        await self._ended.wait()

    def give_up(self) -> None:
        """Ends the loop, whatever it waits for: the backend may never answer, and the process has to end (I10)."""
        if not self._ended.is_set() and self._own is not None:
            log.error("the backend does not answer: what was claimed last is left to its lease")
            self._own.cancel()

    async def answered(self) -> None:
        """Returns when no claim is under way."""
        await self._claimed.wait()

    async def _claim_once(self, backoff: Backoff) -> None:
        await self._finisher.room()
        if not self.open:
            return
        wanted = self._demand()
        if wanted <= 0:
            self.room.clear()
            await self.room.wait()
            return
        # No await since the demand was known: a task that runs alone now waits for this claim.
        self.began = time.monotonic()
        self._claimed.clear()
        worker = self._worker
        try:
            claimed = await worker.app.delivery.claim(
                wanted, worker.queues, worker.owner, worker.config.lease
            )
            if claimed:
                worker.take(claimed)
            self._claim_ended()
            backoff.reset()
            if len(claimed) < wanted and self.open:
                if not claimed:
                    worker.progressed()
                await self._rest(worker.app.broker.wait_for_work(worker.queues, IDLE_WAIT))
        except TransientError as error:
            log.warning("the backend is away, trying again: %s", error)
            self._claim_ended()
            if self.open:
                await self._rest(backoff.wait())
        finally:
            self._claim_ended()

    def _claim_ended(self) -> None:
        self.began = None
        self._claimed.set()

    def _demand(self) -> int:
        worker = self._worker
        if worker.runs_alone:
            return 0
        self._measure()
        most = worker.config.claim_batch
        return min(worker.free + min(most, int(self._rate * PREFETCH_TIME)), most)

    def _measure(self) -> None:
        """Takes the rate at which tasks end; without one, nothing is claimed ahead."""
        now = time.monotonic()
        seconds = now - self._measured_at
        if seconds >= MEASURE_TIME:
            ended = self._worker.ended
            self._rate = (ended - self._measured) / seconds
            self._measured, self._measured_at = ended, now

    async def _rest(self, ends: Coroutine[Any, Any, None]) -> None:
        """Waits for it, or until the claims are closed up."""
        own = self._waiting = asyncio.current_task()
        try:
            await ends
        except asyncio.CancelledError:
            # `close_up` ends the wait; whoever else cancels means the whole loop.
            if self.open or own is None or own.uncancel():
                raise
        finally:
            self._waiting = None
