"""The broker: entries in the table of tasks, and the co-located steps with the storage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar
from uuid import UUID

from psycopg import AsyncConnection, Connection

from qtasks import Broker, Capabilities, Colocated, decode
from qtasks.components.broker import LeaseKeeper
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
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
from qtasks.errors import CapabilityError
from qtasks.schemas import TaskRecord
from qtasks_postgres import exclusive, steps
from qtasks_postgres.keeper import EXTEND, PostgresLeaseKeeper, extend_values, verdicts
from qtasks_postgres.part import Part
from qtasks_postgres.rows import json_text, record_of
from qtasks_postgres.transaction import current, execute, using

log = logging.getLogger("qtasks.postgres")

_HELD = "t.app = %s AND t.uuid = v.uuid AND t.state + 0 = 2 AND t.entry_epoch = v.epoch AND t.entry_owner = v.owner"
_ACK = f"""
    WITH gone AS (
        DELETE FROM tasks t USING items(%s::json) v WHERE {_HELD} AND t.status IS NULL RETURNING t.uuid
    ), kept AS (
        UPDATE tasks t SET state = NULL FROM items(%s::json) v WHERE {_HELD} AND t.status IS NOT NULL RETURNING t.uuid
    )
    SELECT uuid FROM gone UNION ALL SELECT uuid FROM kept
    """
_NACK = f"""
    WITH back AS (
        UPDATE tasks t SET
            state = (v.delay > 0)::integer, due_at = extract(epoch FROM clock_timestamp())::float8 + v.delay,
            entry_deliveries = v.back, restored = false
        FROM items(%s::json) v WHERE {_HELD} RETURNING t.uuid, v.delay
    ), told AS (
        SELECT raise_epochs(%s, %s), tell_work(%s, (SELECT every(delay <= 0) FROM back))
    )
    SELECT back.uuid FROM back, told
    """
_BURY = (
    f"UPDATE tasks t SET state = 3, reason = v.reason FROM items(%s::json) v WHERE {_HELD} RETURNING t.uuid"
)
_SWEEP = """
    WITH lost AS (
        SELECT seq FROM tasks WHERE app = %s AND state = 2 AND lease_until <= moment()
        ORDER BY lease_until LIMIT %s FOR UPDATE SKIP LOCKED
    ), found AS (
        UPDATE tasks t SET
            state = CASE WHEN t.entry_deliveries >= %s THEN 3 ELSE 0 END,
            due_at = moment(), restored = true,
            reason = '"the worker was lost ' || t.entry_deliveries || ' times while it ran this task"'
        FROM lost WHERE t.seq = lost.seq RETURNING t.app, t.uuid, t.state, t.entry_epoch, t.reason
    ), told AS (
        SELECT count(tell_work(app, true)) FROM (SELECT DISTINCT app FROM found WHERE state = 0) restored
    )
    SELECT uuid, state, entry_epoch, reason FROM found, told
    """
_DISCARD = """
    WITH gone AS (
        DELETE FROM tasks WHERE app = %s AND uuid = ANY (%s) AND state IS NOT NULL AND status IS NULL
    )
    UPDATE tasks SET state = NULL WHERE app = %s AND uuid = ANY (%s) AND state IS NOT NULL AND status IS NOT NULL
    """
_SIZE = """
    SELECT entry_queue,
        count(*) FILTER (WHERE state = 0 OR state = 1 AND due_at <= moment()),
        count(*) FILTER (WHERE state = 1 AND due_at > moment()),
        count(*) FILTER (WHERE state = 2)
    FROM tasks WHERE app = %s AND state IN (0, 1, 2) GROUP BY entry_queue ORDER BY entry_queue
    """
_FLUSH = """
    WITH gone AS (DELETE FROM tasks WHERE app = %s AND status IS NULL)
    UPDATE tasks SET state = NULL WHERE app = %s AND status IS NOT NULL AND state IS NOT NULL
    """
_NEXT_DUE = """
    SELECT greatest(0, due_at - moment()) FROM tasks
    WHERE app = %s AND state = 1 AND entry_queue = ANY (%s) ORDER BY due_at LIMIT 1
    """


def _token(handle: DeliveryHandle, **more: Any) -> dict[str, Any]:
    return {"uuid": handle.uuid, "epoch": handle.epoch, "owner": json_text(handle.owner), **more}


class PostgresBroker(Part, Broker, Colocated):
    """Delivers tasks through a table: `FOR UPDATE SKIP LOCKED` lets workers claim side by side.

    Parameters:
        link: shared with the storage and the global config of the same application.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        shared=True,
        fsync=True,
        notifications=True,
        streams=True,
        colocated=True,
        transactional_enqueue=True,
    )

    async def push_many(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        return await self._submit("push", self._push, items, lambda item: item.uuid)

    async def _push(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        batch = [
            {"uuid": item.uuid, "queue": item.queue, "priority": item.priority, "due_at": item.available_at}
            for item in items
        ]
        above = max(item.min_epoch for item in items)
        rows = await self._rows("SELECT push_entries(%s, %s::json, %s)", json_text(batch), above)
        pushed = {uuid for (uuid,) in rows}
        return [PushVerdict.PUSHED if item.uuid in pushed else PushVerdict.ALREADY_THERE for item in items]

    async def claim(self, n: int, queues: Sequence[str], owner: str, lease: float) -> list[DeliveryHandle]:
        self._seen = self.link.listener.work_seen(self._opened())
        rows = await self._rows(
            "SELECT * FROM claim_entries(%s, %s, %s, %s, %s)",
            n,
            list(dict.fromkeys(queues)),
            json_text(owner),
            lease,
        )
        return [
            DeliveryHandle(uuid, epoch, owner, deliveries, restored, queue, priority, pushed_at)
            for uuid, epoch, deliveries, restored, queue, priority, pushed_at in rows
        ]

    async def extend_many(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        return await self._submit(
            "extend",
            self._extend,
            [(handle, lease) for handle in handles],
            lambda item: (item[0].uuid, item[1]),
        )

    async def _extend(self, items: Sequence[tuple[DeliveryHandle, float]]) -> list[HoldVerdict]:
        rows = await self.link.run(EXTEND, extend_values(self._opened(), items))
        return verdicts([handle for handle, _ in items], rows)

    async def ack_many(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        return await self._submit("ack", self._ack, handles, lambda handle: handle.uuid)

    async def _ack(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        number, batch = self._opened(), json_text([_token(handle) for handle in handles])
        return _dropped(handles, await self.link.run(_ACK, (batch, number, batch, number)))

    async def nack_many(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        return await self._submit("nack", self._nack, nacks, lambda nack: nack.handle.uuid)

    async def _nack(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        number = self._opened()
        batch = json_text([_token(nack.handle, delay=nack.delay, back=nack.deliveries) for nack in nacks])
        above = max(nack.min_epoch for nack in nacks)
        rows = await self.link.run(_NACK, (batch, number, number, above, number))
        return _dropped([nack.handle for nack in nacks], rows)

    async def bury_many(self, handles: Sequence[DeliveryHandle], reason: str) -> list[DropVerdict]:
        items = [(handle, json_text(reason)) for handle in handles]
        return await self._submit("bury", self._bury, items, lambda item: item[0].uuid)

    async def _bury(self, items: Sequence[tuple[DeliveryHandle, str]]) -> list[DropVerdict]:
        batch = json_text([_token(handle, reason=reason) for handle, reason in items])
        rows = await self.link.run(_BURY, (batch, self._opened()))
        return _dropped([handle for handle, _ in items], rows)

    async def sweep(self, limit: int, max_deliveries: int) -> SweepReport:
        report = SweepReport([], [])
        for uuid, state, epoch, reason in await self._rows(_SWEEP, limit, max_deliveries):
            if state == 0:
                report.restored.append(uuid)
            else:
                report.buried.append(Buried(uuid, epoch, decode(reason)))
        return report

    async def audit(self, limit: int) -> list[UUID]:
        """Nothing to repair: PostgreSQL changes a row and its indexes in one transaction."""
        self._opened()
        return []

    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        rows = await self._rows(
            "SELECT uuid FROM tasks WHERE app = %s AND uuid = ANY (%s) AND state IS NOT NULL", list(uuids)
        )
        there = {uuid for (uuid,) in rows}
        return [uuid in there for uuid in uuids]

    async def discard_many(self, uuids: Sequence[UUID]) -> None:
        await self._rows(_DISCARD, list(uuids), self._opened(), list(uuids))

    async def wait_for_work(self, queues: Sequence[str], timeout: float) -> None:
        number, listener = self._opened(), self.link.listener
        seen = self._seen
        if not await listener.start(timeout):
            return
        rows = await self._rows(_NEXT_DUE, list(queues))
        await listener.work(number, seen, min(timeout, rows[0][0]) if rows else timeout)

    async def size(self) -> dict[str, QueueSize]:
        return {queue: QueueSize(*counts) for queue, *counts in await self._rows(_SIZE)}

    async def buried(self, limit: int) -> list[Buried]:
        rows = await self._rows(
            "SELECT uuid, entry_epoch, reason FROM tasks WHERE app = %s AND state = 3 ORDER BY seq LIMIT %s",
            limit,
        )
        return [Buried(uuid, epoch, decode(reason)) for uuid, epoch, reason in rows]

    async def flush(self) -> None:
        await self._rows(_FLUSH, self._opened())

    def lease_keeper(self) -> LeaseKeeper:
        return PostgresLeaseKeeper(self.link.target, self._opened())

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return await exclusive.hold(self._rows, owner, ttl)

    async def release_exclusive(self, owner: str) -> None:
        await exclusive.release(self._rows, owner)

    # --- Co-located -----------------------------------------------------------------------------

    def in_transaction(self, connection: Any) -> AbstractContextManager[None]:
        if not isinstance(connection, AsyncConnection | Connection):
            raise TypeError(f"in_transaction takes a psycopg connection, not {type(connection).__name__}")
        if self.storage.locality != self.locality:
            raise CapabilityError(
                f"{type(self.storage).__name__} keeps its records elsewhere ({self.storage.locality}): a task can be "
                "added in a transaction only where broker and storage are in its database"
            )
        return using(connection)

    async def add_and_push(self, records: Sequence[TaskRecord], max_queue: int | None) -> list[AddVerdict]:
        connection = current()
        if connection is None:
            items = [steps.new_task(record, max_queue) for record in records]
            return await self._submit("add", self._add, items, lambda item: item.uuid)
        verdicts: list[AddVerdict] = []
        for record in records:  # each sees those before it, in the transaction that is the caller's to end
            items = [steps.new_task(record, max_queue)]
            values = steps.add_values(self._opened(), items, push=True)
            rows = await execute(connection, self.link.target, steps.ADD, values)
            verdicts += steps.add_verdicts(items, rows)
        return verdicts

    async def _add(self, items: Sequence[steps.NewTask]) -> list[AddVerdict]:
        rows = await self.link.run(steps.ADD, steps.add_values(self._opened(), items, push=True))
        return steps.add_verdicts(items, rows)

    async def claim_and_start(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        self._seen = self.link.listener.work_seen(self._opened())
        rows = await self._rows(
            "SELECT * FROM claim_and_start(%s, %s, %s, %s, %s, %s)", n, list(dict.fromkeys(queues)), json_text(owner),
            lease, self.config.missing_grace, binary=True,
        )  # fmt: skip
        started: list[tuple[DeliveryHandle, TaskRecord]] = []
        for deliveries, restored, queue, priority, pushed_at, *row in rows:
            epoch = row[-2]
            handle = DeliveryHandle(row[0], epoch, owner, deliveries, restored, queue, priority, pushed_at)
            try:
                started.append((handle, record_of(row)))
            except ValueError as error:
                await self._bury_unreadable(handle, error)
        return started

    async def _bury_unreadable(self, handle: DeliveryHandle, error: ValueError) -> None:
        """One record that cannot be read must not stop the others: it ends, and is listed among the dead."""
        log.error("task %s is buried: its record cannot be read: %s", handle.uuid, error)
        reason = f"the stored record cannot be read: {error}"
        await self.bury_many([handle], reason)

    async def settle_and_ack(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        items = [steps.settling(settle) for settle in settles]
        return await self._submit("settle", self._settle, items, lambda item: item.uuid, steps.rejected)

    async def _settle(self, items: Sequence[steps.Settling]) -> list[SettleVerdict]:
        values = steps.settle_values(self._opened(), items, entries=True)
        return steps.settle_verdicts(items, await self.link.run(steps.SETTLE, values))

    _seen = 0


def _dropped(handles: Sequence[DeliveryHandle], rows: Sequence[tuple[UUID]]) -> list[DropVerdict]:
    """The verdicts on handles of different tasks, where these were done."""
    done = {uuid for (uuid,) in rows}
    return [DropVerdict.DONE if handle.uuid in done else DropVerdict.LOST for handle in handles]
