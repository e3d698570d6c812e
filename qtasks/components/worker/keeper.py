"""Keeps the leases of running tasks alive, from a thread that work on the event loop cannot starve."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from qtasks.components.broker import LeaseKeeper
from qtasks.components.primitives import DeliveryHandle, HoldVerdict
from qtasks.errors import BackendError

if TYPE_CHECKING:
    from qtasks.components.worker.worker import Worker

log = logging.getLogger("qtasks.worker")

STALL = 1.0
"""Seconds without a tick after which the loop counts as stalled."""


class Keeper:
    """Every lease/3 it renews what this worker holds, as long as the event loop has ticked within the last
    lease: a loop that is blocked for longer must lose its tasks to others."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._lease = worker.config.lease
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._backend: LeaseKeeper = worker.app.broker.lease_keeper()
        self._stop = threading.Event()
        self._tick = time.monotonic()
        self._reported = 0.0
        self._ticker = self._loop.call_soon(self._on_tick)
        self._thread = threading.Thread(target=self._run, name="qtasks-lease-keeper", daemon=True)
        self._thread.start()

    def _on_tick(self) -> None:
        self._tick = time.monotonic()
        self._ticker = self._loop.call_later(min(self._lease / 10, STALL / 4), self._on_tick)

    async def close(self, deadline: float) -> None:
        """Stops the thread; leases that are still held run out by themselves. Until that loop time it is waited for: it
        may wait for a backend that does not answer."""
        self._stop.set()
        self._ticker.cancel()
        left = max(0.0, deadline - self._loop.time())
        await self._loop.run_in_executor(None, self._thread.join, left)

    def _run(self) -> None:
        next_pass = time.monotonic() + self._lease / 3
        try:
            while not self._stop.wait(min(STALL / 2, self._lease / 12)):
                now = time.monotonic()
                stalled = now - self._tick
                self._watch(stalled)
                if now < next_pass:
                    continue
                next_pass = now + self._lease / 3
                if stalled < self._lease:
                    self._renew()
        finally:
            self._backend.close()

    def _renew(self) -> None:
        handles = self._worker.held()
        if not handles:
            return
        try:
            verdicts = self._backend.extend(handles, self._lease)
        except BackendError as error:
            log.warning("the leases of %d tasks could not be renewed, trying again: %s", len(handles), error)
            return
        lost = [
            handle for handle, verdict in zip(handles, verdicts, strict=True) if verdict is HoldVerdict.LOST
        ]
        if lost:
            self._tell(lost)

    def _tell(self, lost: list[DeliveryHandle]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._worker.lost, lost)
        except RuntimeError:
            log.debug("the loop is closed; %d lost leases are not reported", len(lost))

    def _watch(self, stalled: float) -> None:
        tick = self._tick  # names the stall: it is told once
        if stalled >= STALL and tick != self._reported:
            self._reported = tick
            frame = sys._current_frames().get(self._loop_thread)
            where = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else "(unknown)"
            log.warning("the event loop has been blocked for %.1f s; it is in:\n%s", stalled, where)
