"""What any worker does for all: sweeps expired leases, reconciles the two stores, purges, shows that it lives."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from qtasks.components.delivery import push_item
from qtasks.components.global_config import STATUS
from qtasks.components.primitives import Buried
from qtasks.errors import FatalError, TransientError

if TYPE_CHECKING:
    from qtasks.components.worker.worker import Worker
    from qtasks.schemas import TaskRecord

log = logging.getLogger("qtasks.worker")

LIMIT = 1000
PAGE = 100
STATUS_EVERY = 3
REST = 20.0
"""Times the duration of a page that the reconciler rests after it: it takes a twentieth of the time, at most."""


class Restorer:
    """Runs beside the worker. Every pass is repeated until it succeeds; none needs a lock (R8)."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._app = worker.app
        self._config = worker.config

    async def sweep_forever(self) -> None:
        """Sweeps every lease/4, jittered."""
        while True:
            await self._guarded(self.sweep)
            await asyncio.sleep(self._config.lease / 4 * random.uniform(0.5, 1.0))

    async def reconcile_forever(self) -> None:
        """Reconciles and purges every `reconcile_interval`; at once where the broker forgot everything."""
        alone = not self._app.broker.capabilities.shared
        if alone:  # what waits there can be claimed only when it is pushed
            await self._guarded(lambda: self.reconcile(0.0, rest=0.0))
        else:
            await self._guarded(lambda: self.reconcile(self._config.reconcile_age))
        while True:
            await asyncio.sleep(self._config.reconcile_interval * random.uniform(0.75, 1.25))
            await self._guarded(lambda: self.reconcile(self._config.reconcile_age))
            await self._guarded(self._app.storage.delete_finished_tasks)

    async def status_forever(self) -> None:
        """Shows that this server lives."""
        while True:
            await self._guarded(self._show)
            await asyncio.sleep(self._config.status_ttl / STATUS_EVERY)

    async def _show(self) -> None:
        await self._app.global_config.set_status(
            self._worker.owner, self._worker.status(), self._config.status_ttl
        )

    async def leave(self) -> None:
        """Takes the sign of life back, so that `ping` knows at once."""
        await self._guarded(lambda: self._app.global_config.delete(STATUS, self._worker.owner))

    async def _guarded(self, step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except TransientError as error:
            log.warning("the backend is away, trying again: %s", error)
        except FatalError:
            raise
        except Exception:
            log.exception("a pass of the restorer failed; it is made again")

    async def sweep(self) -> None:
        """Puts tasks of lost workers back, and writes off those whose deliveries are used up."""
        restored = 0
        while True:
            report = await self._app.broker.sweep(LIMIT, self._config.max_deliveries)
            restored += len(report.restored)
            await self.write_off(report.buried)
            if len(report.restored) + len(report.buried) < LIMIT:
                break
        if restored:
            log.warning("%d tasks of lost workers are queued again", restored)
            await self._app.broker.running_older_tasks(self._worker)

    async def write_off(self, buried: Sequence[Buried]) -> None:
        """Writes buried entries to the storage as ERROR, then lets the broker forget them."""
        if not buried:
            return
        expires_at = self._app.clock() + self._config.dead_ttl
        await self._app.storage.bury_many(buried, expires_at=expires_at)
        await self._app.broker.discard_many([item.uuid for item in buried])

    async def reconcile(self, age: float, rest: float = REST) -> None:
        """Pushes open records that the broker does not know, and finishes burials.

        Parameters:
            age: seconds; younger records may still be on their way into the broker.
            rest: how long it rests after a page, as a multiple of what the page took. A million waiting tasks
                must not hold up those that run; this pass then takes minutes.
        """
        await self.write_off(await self._app.broker.buried(LIMIT))
        repaired = len(await self._app.broker.audit(LIMIT))
        cursor: str | None = None
        before = self._app.clock() - age
        while True:
            began = time.monotonic()
            page = await self._app.storage.scan_open(cursor, PAGE, before)
            known = await self._app.broker.contains_many([record.uuid for record in page.records])
            missing = [record for record, found in zip(page.records, known, strict=True) if not found]
            if missing:
                missing = await self._still_open(missing)
                await self._app.broker.push_many([push_item(record) for record in missing])
                repaired += len(missing)
            if (cursor := page.cursor) is None:
                break
            await asyncio.sleep(rest * (time.monotonic() - began))
        if repaired:
            log.warning("%d tasks were missing from the broker and are queued again", repaired)
            await self._app.broker.running_older_tasks(self._worker)
            self._worker.wake()

    async def _still_open(self, records: list[TaskRecord]) -> list[TaskRecord]:
        """Those of the records that are no longer in the broker because they have ended since are left alone."""
        now = await self._app.storage.get_many([record.uuid for record in records])
        return [record for record in now if record is not None and not record.status.terminal]
