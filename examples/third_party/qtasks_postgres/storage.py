"""The storage: records in the table of tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from qtasks import Capabilities, Storage, decode
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    CancelVerdict,
    DeliveryHandle,
    Page,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
    Update,
)
from qtasks.schemas import TaskRecord
from qtasks_postgres import exclusive, steps
from qtasks_postgres.part import Part
from qtasks_postgres.rows import COLUMNS, STATUSES, changed_columns, json_text, record_of, shown_record
from qtasks_postgres.settled import Settled
from qtasks_postgres.transaction import current, execute

log = logging.getLogger("qtasks.postgres")

_PURGED: Final = 500
_GET = f"SELECT {COLUMNS} FROM tasks WHERE app = %s AND uuid = ANY (%s) AND status IS NOT NULL"
_BURY = """
    WITH done AS (
        UPDATE tasks t SET
            status = 3, dead = true, owner = '""', traceback = v.reason, finished_at = moment(), updated_at = moment(),
            expires_at = %s
        FROM items(%s::json) v
        WHERE t.app = %s AND t.uuid = v.uuid AND t.status + 0 <= 1 AND t.epoch <= v.epoch RETURNING t.app, t.uuid
    ), told AS (
        SELECT count(*) FROM (SELECT tell_ended(app, array_agg(uuid)) FROM done GROUP BY app) each
    )
    SELECT uuid FROM done, told
    """
_COUNTS = """
    SELECT status, count(*), count(*) FILTER (WHERE dead) FROM tasks
    WHERE app = %s AND status IS NOT NULL GROUP BY status
    """
_ITEMS = "SELECT value FROM items WHERE app = %s AND uuid = %s AND number >= %s ORDER BY number LIMIT %s"
_FLUSH = "SELECT drop_records(%s, ARRAY(SELECT seq FROM tasks WHERE app = %s AND status IS NOT NULL))"


class PostgresStorage(Part, Storage):
    """Keeps records in a table.

    Parameters:
        link: shared with the broker and the global config of the same application.
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

    _settled: Settled | None = None

    async def close(self) -> None:
        settled, self._settled = self._settled, None
        if settled is not None and self.link.ours:
            settled.close()
        await super().close()

    async def add_many(self, records: Sequence[TaskRecord]) -> list[AddVerdict]:
        return await self._submit("add", self._add, [steps.new_task(record) for record in records], _uuid)

    async def _add(self, items: Sequence[steps.NewTask]) -> list[AddVerdict]:
        rows = await self.link.run(steps.ADD, steps.add_values(self._opened(), items, push=False))
        return steps.add_verdicts(items, rows)

    async def start_many(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        return await self._submit("start", self._start, handles, _uuid)

    async def _start(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        batch = [
            {
                "uuid": each.uuid,
                "epoch": each.epoch,
                "owner": json_text(each.owner),
                "deliveries": each.deliveries,
            }
            for each in handles
        ]
        rows = await self._rows("SELECT * FROM start_tasks(%s, %s::json)", json_text(batch), binary=True)
        found = {row[2]: row for row in rows}
        verdicts = []
        for handle in handles:
            row = found.get(handle.uuid)
            verdict = StartVerdict(Start.MISSING) if row is None else _judged(*row)
            if verdict is None:
                verdict = await self._bury_unreadable(handle)
            verdicts.append(verdict)
        return verdicts

    async def _bury_unreadable(self, handle: DeliveryHandle) -> StartVerdict:
        """One record that cannot be read must not stop the others: it ends, and is listed among the dead."""
        log.error("task %s is buried: its record cannot be read", handle.uuid)
        expires_at = self.clock() + self.config.dead_ttl
        reason = "the stored record cannot be read"
        await self.bury_many([Buried(handle.uuid, handle.epoch, reason)], expires_at=expires_at)
        return StartVerdict(Start.TERMINAL)

    async def settle_many(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        items = [steps.settling(settle) for settle in settles]
        return await self._submit("settle", self._settle, items, _uuid, steps.rejected)

    async def _settle(self, items: Sequence[steps.Settling]) -> list[SettleVerdict]:
        values = steps.settle_values(self._opened(), items, entries=False)
        return steps.settle_verdicts(items, await self.link.run(steps.SETTLE, values))

    async def bury_many(self, buried: Sequence[Buried], *, expires_at: float) -> list[bool]:
        if not buried:
            return []
        # Of several burials of one task the highest epoch counts: the record need not be above it.
        highest = {each.uuid: each for each in sorted(buried, key=lambda each: each.epoch)}
        batch = [
            {"uuid": each.uuid, "epoch": each.epoch, "reason": json_text(each.reason)}
            for each in highest.values()
        ]
        rows = await self.link.run(_BURY, (expires_at, json_text(batch), self._opened()))
        done = {uuid for (uuid,) in rows}
        return [each is highest[each.uuid] and each.uuid in done for each in buried]

    async def cancel_many(
        self, uuids: Sequence[UUID], reason: str, *, expires_at: float
    ) -> list[CancelVerdict]:
        items = [(uuid, json_text(reason), expires_at) for uuid in uuids]
        return await self._submit("cancel", self._cancel, items, lambda item: item[0])

    async def _cancel(self, items: Sequence[tuple[UUID, str, float]]) -> list[CancelVerdict]:
        batch = [
            {"uuid": uuid, "reason": reason, "expires_at": expires_at} for uuid, reason, expires_at in items
        ]
        rows = await self._rows("SELECT * FROM cancel_tasks(%s, %s::json)", json_text(batch))
        verdicts = {uuid: CancelVerdict(verdict) for uuid, verdict in rows}
        return [verdicts.get(uuid, CancelVerdict.MISSING) for uuid, _, _ in items]

    async def cancel_requested_many(self, uuids: Sequence[UUID]) -> list[bool]:
        statement = "SELECT uuid FROM tasks WHERE app = %s AND uuid = ANY (%s) AND status + 0 = 1 AND cancel_requested"
        asked = {uuid for (uuid,) in await self._rows(statement, list(uuids))}
        return [uuid in asked for uuid in uuids]

    async def update_many(self, updates: Sequence[Update]) -> list[bool]:
        items = [(update.uuid, changed_columns(update.changes)) for update in updates]
        return await self._submit("update", self._update, items, lambda item: item[0], _not_done)

    async def _update(self, items: Sequence[tuple[UUID, dict[str, Any]]]) -> list[bool]:
        batch = [{"uuid": uuid, "c": changes} for uuid, changes in items]
        rows = await self._rows("SELECT update_tasks(%s, %s::json)", json_text(batch))
        done = {uuid for (uuid,) in rows}
        return [uuid in done for uuid, _ in items]

    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        connection = current()
        if connection is not None:  # the caller's transaction sees what it has added
            return _in_order(
                uuids, await execute(connection, self.link.target, _GET, (self._opened(), list(uuids)))
            )
        return await self._submit("get", self._get, uuids, lambda uuid: uuid)

    async def _get(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        return _in_order(uuids, await self._rows(_GET, list(uuids), binary=True))

    async def scan(self, cursor: str | None, limit: int) -> Page:
        where = "status IS NOT NULL AND seq < %s ORDER BY seq DESC"
        return await self._page(where, (2**62 if cursor is None else int(cursor),), limit)

    async def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        where = "status <= 1 AND seq > %s AND created_at < %s ORDER BY seq"
        return await self._page(where, (0 if cursor is None else int(cursor), created_before), limit)

    async def scan_dead(self, cursor: str | None, limit: int) -> Page:
        order = "ORDER BY finished_at DESC, seq DESC"
        if cursor is None:
            return await self._page(f"dead {order}", (), limit, dead=True)
        moment, _, seq = cursor.partition("/")
        where = f"dead AND (finished_at, seq) < (%s, %s) {order}"
        return await self._page(where, (float.fromhex(moment), int(seq)), limit, dead=True)

    async def _page(self, where: str, values: tuple[Any, ...], limit: int, *, dead: bool = False) -> Page:
        statement = f"SELECT seq, {COLUMNS} FROM tasks WHERE app = %s AND {where} LIMIT %s"
        rows = await self._rows(statement, *values, limit + 1, binary=True)
        page = [shown_record(row[1:]) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(page, None)
        seq = rows[limit - 1][0]
        return Page(page, f"{float(page[-1].finished_at or 0.0).hex()}/{seq}" if dead else str(seq))

    async def delete_many(self, uuids: Sequence[UUID]) -> list[bool]:
        left = {uuid for (uuid,) in await self._rows("SELECT delete_tasks(%s, %s)", list(uuids))}
        done = []
        for uuid in uuids:
            done.append(uuid in left)
            left.discard(uuid)  # named twice, it is deleted once
        return done

    async def purge(self, before: float, dead_max: int) -> int:
        deleted = 0
        while True:
            ((step,),) = await self._rows("SELECT purge_tasks(%s, %s, %s, %s)", before, dead_max, _PURGED)
            if step == 0:
                return deleted
            deleted += step

    async def counts(self) -> dict[str, int]:
        found = dict.fromkeys((status.value for status in STATUSES), 0)
        found["dead"] = 0
        for status, number, dead in await self._rows(_COUNTS):
            found[STATUSES[status].value] = number
            found["dead"] += dead
        return found

    async def flush(self) -> None:
        await self._rows(_FLUSH, self._opened())

    async def get_settled(self, uuid: UUID) -> TaskRecord | None:
        (record,) = await self.get_many([uuid])
        if record is None:
            raise LookupError(f"there is no task {uuid}")
        return record if record.status.terminal else None

    async def wait_settled(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        if timeout is not None and timeout <= 0:
            return await self.get_settled(uuid)
        if self._settled is None:
            self._settled = Settled(self.link, self._opened())
        return await self._settled.wait(uuid, timeout)

    async def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[Any]) -> bool:
        values = [json_text(item) for item in items]
        statement = "SELECT append_items(%s, %s, %s, %s, %s, %s::text[])"
        ((done,),) = await self._rows(
            statement, handle.uuid, handle.epoch, json_text(handle.owner), index, values
        )
        return bool(done)

    async def read_items(self, uuid: UUID, start: int, limit: int) -> list[Any]:
        return [decode(value) for (value,) in await self._rows(_ITEMS, uuid, start, limit)]

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return await exclusive.hold(self._rows, owner, ttl)

    async def release_exclusive(self, owner: str) -> None:
        await exclusive.release(self._rows, owner)


def _in_order(uuids: Sequence[UUID], rows: Sequence[Any]) -> list[TaskRecord | None]:
    """The records in these rows, `None` for those that are not there."""
    found = {row[0]: row for row in rows}
    return [shown_record(found[uuid]) if uuid in found else None for uuid in uuids]


def _uuid(item: Any) -> UUID:
    uuid: UUID = item.uuid
    return uuid


def _judged(kind: str, seconds: float, *row: Any) -> StartVerdict | None:
    """The verdict in a row of `start_tasks`; `None` where the record cannot be read."""
    if kind == "started":
        try:
            return StartVerdict(Start.STARTED, record_of(row))
        except ValueError:
            return None
    if kind == "conflict":
        return StartVerdict(Start.CONFLICT, epoch=row[-2])
    return StartVerdict(Start.NOT_DUE, delay=seconds) if kind == "not due" else StartVerdict(Start(kind))


def _not_done(item: tuple[UUID, dict[str, Any]], error: Exception) -> bool:
    log.error("the record of task %s cannot be changed: %s", item[0], error)
    return False
