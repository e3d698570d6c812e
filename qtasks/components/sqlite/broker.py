"""The SQLite broker: entries in a file, and the co-located steps with the SQLite storage."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from qtasks.components.broker import Broker, Colocated, LeaseKeeper
from qtasks.components.delivery import push_item
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    Capabilities,
    DeliveryHandle,
    DropVerdict,
    HoldVerdict,
    Nack,
    PushItem,
    PushVerdict,
    QueueSize,
    Settle,
    SettleVerdict,
    SweepReport,
)
from qtasks.components.sqlite import entries, exclusive, records, steps
from qtasks.components.sqlite.file import SQLitePart
from qtasks.components.sqlite.keeper import SQLiteLeaseKeeper
from qtasks.components.sqlite.packed import unpacked
from qtasks.components.sqlite.sql import select_in
from qtasks.errors import TransientError
from qtasks.schemas import TaskRecord

log = logging.getLogger("qtasks.sqlite")


class SQLiteBroker(SQLitePart, Broker, Colocated):
    """Delivers tasks to the processes of one machine through a file.

    Parameters:
        path: the file; made if it does not exist.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True, shared=True, fsync=True, streams=True, colocated=True
    )

    async def push_many(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        return await self._submit(entries.push, items)

    async def claim(self, n: int, queues: Sequence[str], owner: str, lease: float) -> list[DeliveryHandle]:
        return await self._do(entries.claim, entries.Claim(n, tuple(queues), owner, lease))

    async def extend_many(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        items = [entries.Extend(handle, lease) for handle in handles]
        return await self._submit(entries.extend, items, _lost(HoldVerdict.LOST))

    async def ack_many(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        return await self._submit(entries.ack, handles, _lost(DropVerdict.LOST))

    async def nack_many(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        return await self._submit(entries.nack, nacks, _lost(DropVerdict.LOST))

    async def bury_many(self, handles: Sequence[DeliveryHandle], reason: str) -> list[DropVerdict]:
        items = [entries.Bury(handle, reason) for handle in handles]
        return await self._submit(entries.bury, items, _lost(DropVerdict.LOST))

    async def sweep(self, limit: int, max_deliveries: int) -> SweepReport:
        return await self._do(entries.sweep, entries.Sweep(limit, max_deliveries))

    async def audit(self, limit: int) -> list[UUID]:
        """Nothing to repair: SQLite changes a row and its indexes in one transaction."""
        return []

    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        keys = [uuid.bytes for uuid in uuids]

        def look(connection: sqlite3.Connection) -> set[bytes]:
            return {
                row[0]
                for row in select_in(connection, self._number, "uuid", "uuid", keys, " AND state IS NOT NULL")
            }

        there = await self._opened().read(look)
        return [key in there for key in keys]

    async def discard_many(self, uuids: Sequence[UUID]) -> None:
        await self._submit(entries.discard, uuids)

    async def wait_for_work(self, queues: Sequence[str], timeout: float) -> None:
        watch = self._opened().watch
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            change = watch.register()
            try:
                now = self.clock()
                due = watch.next_due(self._number, queues, now)
                left = deadline - loop.time()
                if due is not None:
                    left = min(left, due - now)
                if left <= 0:
                    return
                await asyncio.wait((change,), timeout=left)
            finally:
                change.cancel()

    async def size(self) -> dict[str, QueueSize]:
        return await self._opened().read(partial(_size, app=self._number, now=self.clock()))

    async def buried(self, limit: int) -> list[Buried]:
        rows = await self._opened().read(
            lambda connection: connection.execute(
                "SELECT uuid, entry_epoch, reason FROM tasks WHERE app = ? AND state = 3 ORDER BY seq LIMIT ?",
                (self._number, limit),
            ).fetchall()
        )
        return [Buried(UUID(bytes=uuid), epoch, reason) for uuid, epoch, reason in rows]

    async def flush(self) -> None:
        await self._do(entries.flush, None)

    def lease_keeper(self) -> LeaseKeeper:
        self._opened()
        return SQLiteLeaseKeeper(self.path, self._context())

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return await self._do(exclusive.hold, exclusive.Hold(owner, ttl))

    async def release_exclusive(self, owner: str) -> None:
        await self._do(exclusive.release, owner)

    async def add_and_push(self, records_: Sequence[TaskRecord], max_queue: int | None) -> list[AddVerdict]:
        items = [records.new_task(record, push_item(record), max_queue) for record in records_]
        return await self._submit(records.add, items)

    async def claim_and_start(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        claimed = await self._do(steps.claim_and_start, entries.Claim(n, tuple(queues), owner, lease))
        started: list[tuple[DeliveryHandle, TaskRecord]] = []
        rows, damaged = claimed.rows, list[Settle]()
        for pack in claimed.packs:
            try:
                started += unpacked(pack, claimed.epoch, owner, claimed.now)
            except ValueError:
                rows += await self._opened().read(partial(steps.started_rows, app=self._number, pack=pack))
        for row in rows:
            try:
                started.append(steps.started_task(row, claimed, owner))
            except steps.UnreadableError as error:
                log.error("task %s is buried: %s", error.handle.uuid, error)
                damaged.append(steps.buried_settle(error, claimed.now, self.config.dead_ttl))
        if damaged:
            await self._bury(damaged)
        return started

    async def _bury(self, damaged: Sequence[Settle]) -> None:
        try:
            await self.settle_and_ack(damaged)
        except TransientError as error:
            # What has been started with them must not be lost; they come again when their lease has run out.
            log.warning("%d records that cannot be read are not buried yet: %s", len(damaged), error)

    async def settle_and_ack(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        items = [steps.settle_row(settle, push=True) for settle in settles]
        return await self._submit(steps.settle_and_ack, items, steps.rejected)


def _lost(verdict: Any) -> Any:
    """The verdict for an item that the file does not take: its lease runs out, and it is delivered again."""

    def judge(item: Any, error: BaseException) -> Any:
        log.error("an entry cannot be written, its lease will run out: %r: %r", error, item)
        return verdict

    return judge


def _size(connection: sqlite3.Connection, app: int, now: float) -> dict[str, QueueSize]:
    found: dict[str, list[int]] = {}
    for position, where, values in (
        (0, "state = 0", ()),
        (0, "state = 1 AND due_at <= ?", (now,)),
        (1, "state = 1 AND due_at > ?", (now,)),
        (2, "state = 2", ()),
    ):
        for queue, count in connection.execute(
            f"SELECT queue, count(*) FROM tasks WHERE app = ? AND {where} GROUP BY queue", (app, *values)
        ):
            found.setdefault(queue, [0, 0, 0])[position] += count
    return {queue: QueueSize(*counts) for queue, counts in sorted(found.items())}
