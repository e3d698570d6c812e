"""The broker on an SQLite file, and the co-located steps with the storage on the same one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from qtasks.components.broker import Broker, Colocated, LeaseKeeper
from qtasks.components.delivery import not_started, push_item
from qtasks.components.primitives import (
    Added,
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
    Start,
    SweepReport,
)
from qtasks.components.sqlite import entries, records
from qtasks.components.sqlite.engine import translated
from qtasks.components.sqlite.member import CAPABILITIES, SQLiteMember
from qtasks.components.sqlite.schema import BURIED, prepare
from qtasks.schemas import TaskRecord

NO_RECORD = "the storage has no record of this task"


class SQLiteLeaseKeeper(LeaseKeeper):
    """Renews leases over a connection of its own."""

    def __init__(self, path: Path, app: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._app = app
        self._clock = clock
        self._db: sqlite3.Connection | None = None

    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        try:
            db = self._connected()
            try:
                db.execute("BEGIN IMMEDIATE")
                until = self._clock() + lease
                held = [entries.extend(db, self._app, handle, until) for handle in handles]
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        return [HoldVerdict.HELD if one else HoldVerdict.LOST for one in held]

    def _connected(self) -> sqlite3.Connection:
        # Made by the thread that uses it, as sqlite3 asks for.
        if self._db is None:
            self._db = sqlite3.connect(self._path, isolation_level=None)
            prepare(self._db, fsync=False, cache_kib=1024)
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class SQLiteBroker(SQLiteMember, Broker, Colocated):
    """Delivers tasks over one SQLite file, to any number of processes on one machine."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    async def push_many(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        now = self.clock()
        return await self._write(lambda db, app: [entries.push(db, app, item, now) for item in items])

    async def claim(self, n: int, queues: Sequence[str], owner: str, lease: float) -> list[DeliveryHandle]:
        now = self.clock()
        claimed = await self._write(
            lambda db, app: entries.claim(db, app, n, queues, owner, now + lease, now)
        )
        return [handle for handle, _ in claimed]

    async def extend_many(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        until = self.clock() + lease
        held = await self._write(
            lambda db, app: [entries.extend(db, app, handle, until) for handle in handles]
        )
        return [HoldVerdict.HELD if one else HoldVerdict.LOST for one in held]

    async def ack_many(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        return await self._write(lambda db, app: [entries.ack(db, app, handle) for handle in handles])

    async def nack_many(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        now = self.clock()
        return await self._write(lambda db, app: [entries.nack(db, app, nack, now) for nack in nacks])

    async def bury_many(self, handles: Sequence[DeliveryHandle], reason: str) -> list[DropVerdict]:
        return await self._write(
            lambda db, app: [entries.bury(db, app, handle, reason) for handle in handles]
        )

    async def sweep(self, limit: int, max_deliveries: int) -> SweepReport:
        now = self.clock()
        return await self._write(lambda db, app: entries.sweep(db, app, limit, max_deliveries, now))

    async def audit(self, limit: int) -> list[UUID]:
        return await self._write(lambda db, app: entries.audit(db, app, limit))

    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        return await self._write(
            lambda db, app: [
                db.execute(
                    "SELECT 1 FROM tasks WHERE app = ? AND uuid = ? AND state IS NOT NULL", (app, uuid.bytes)
                ).fetchone()
                is not None
                for uuid in uuids
            ]
        )

    async def discard_many(self, uuids: Sequence[UUID]) -> None:
        await self._write(lambda db, app: entries.discard_all(db, app, uuids))

    async def wait_for_work(self, queues: Sequence[str], timeout: float) -> None:
        changed = self.engine.next_change()
        due = await self._read("SELECT min(due_at) FROM tasks WHERE app = ? AND state <= 1")
        if due[0][0] is not None:
            left = due[0][0] - self.clock()
            if left <= 0:
                marks = ", ".join("?" * len(queues))
                ready = await self._read(
                    f"SELECT 1 FROM tasks WHERE app = ? AND state <= 1 AND due_at <= ? AND queue IN ({marks}) "
                    "LIMIT 1",
                    self.clock(), *queues,
                )  # fmt: skip
                if ready:
                    return
            else:
                timeout = min(timeout, left)
        await asyncio.wait([changed], timeout=timeout)

    async def size(self) -> dict[str, QueueSize]:
        rows = await self._read(
            "SELECT queue, CASE WHEN state = 1 AND due_at <= ?2 THEN 0 ELSE state END AS now, count(*) FROM tasks "
            "WHERE app = ?1 AND state IS NOT NULL GROUP BY queue, now",
            self.clock(),
        )
        return entries.sizes(rows)

    async def buried(self, limit: int) -> list[Buried]:
        rows = await self._read(
            "SELECT uuid, entry_epoch, reason FROM tasks WHERE app = ? AND state = ? ORDER BY seq LIMIT ?",
            BURIED, limit,
        )  # fmt: skip
        return [Buried(UUID(bytes=uuid), epoch, reason or "") for uuid, epoch, reason in rows]

    async def flush(self) -> None:
        await self._write(entries.flush)

    def lease_keeper(self) -> LeaseKeeper:
        self.engine.check()
        return SQLiteLeaseKeeper(self.path, self._app, self.clock)

    # --- Co-located with the storage on the same file ---------------------------------------

    async def add_and_push(self, records_: Sequence[TaskRecord], max_queue: int | None) -> list[AddVerdict]:
        now = self.clock()
        return await self._write(
            lambda db, app: [_add_and_push(db, app, record, now, max_queue) for record in records_]
        )

    async def claim_and_start(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        now = self.clock()
        expires_at = now + self.config.dead_ttl
        grace = self.config.missing_grace

        def step(db: sqlite3.Connection, app: int) -> list[tuple[DeliveryHandle, TaskRecord]]:
            claimed = []
            for handle, _ in entries.claim(db, app, n, queues, owner, now + lease, now):
                verdict = records.start(db, app, handle, now, expires_at)
                if verdict.kind is Start.STARTED and verdict.record is not None:
                    claimed.append((handle, verdict.record))
                elif verdict.kind is Start.TERMINAL:
                    entries.ack(db, app, handle)  # R7
                elif verdict.kind is Start.MISSING and now > handle.available_at + grace:
                    entries.bury(db, app, handle, NO_RECORD)
                else:
                    entries.nack(db, app, not_started(handle, verdict), now)
            return claimed

        return await self._write(step)

    async def settle_and_ack(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        now = self.clock()
        return await self._write(lambda db, app: [_settle_and_ack(db, app, item, now) for item in settles])


def _add_and_push(
    db: sqlite3.Connection, app: int, record: TaskRecord, now: float, max_queue: int | None
) -> AddVerdict:
    if max_queue is not None and not _room(db, app, record, max_queue):
        return AddVerdict(Added.FULL, record.uuid)
    verdict = records.add(db, app, record)
    if verdict.kind in (Added.ADDED, Added.SAME):
        entries.push(db, app, push_item(record), now)
    return verdict


def _room(db: sqlite3.Connection, app: int, record: TaskRecord, max_queue: int) -> bool:
    waiting: int = db.execute(
        "SELECT count(*) FROM tasks WHERE app = ? AND queue = ? AND state <= 1", (app, record.queue)
    ).fetchone()[0]
    if waiting < max_queue:
        return True
    # What is there already takes no more room.
    known = db.execute("SELECT 1 FROM tasks WHERE app = ? AND uuid = ?", (app, record.uuid.bytes)).fetchone()
    return known is not None


def _settle_and_ack(db: sqlite3.Connection, app: int, item: Settle, now: float) -> SettleVerdict:
    verdict = records.settle(db, app, item)
    if verdict is SettleVerdict.REJECTED:
        return verdict  # R6
    for record in item.then:
        if records.add(db, app, record).kind in (Added.ADDED, Added.SAME):
            entries.push(db, app, push_item(record), now)
    if item.nack is not None:
        entries.nack(db, app, item.nack, now)
    else:
        entries.ack(db, app, item.handle)
    return verdict
