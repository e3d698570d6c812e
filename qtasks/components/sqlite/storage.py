"""The SQLite storage: records in a file."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from qtasks.codec import decode, encode
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    CancelVerdict,
    Capabilities,
    DeliveryHandle,
    Page,
    Settle,
    SettleVerdict,
    StartVerdict,
    Update,
)
from qtasks.components.sqlite import exclusive, records, steps
from qtasks.components.sqlite.file import SQLitePart
from qtasks.components.sqlite.rows import RECORD_COLUMNS, STATUS, Changes, shown_record
from qtasks.components.sqlite.sql import select_in
from qtasks.components.storage import Storage
from qtasks.schemas import TaskRecord

log = logging.getLogger("qtasks.sqlite")

_PURGED: Final = 500


class SQLiteStorage(SQLitePart, Storage):
    """Keeps records in a file, for the processes of one machine.

    Parameters:
        path: the file; made if it does not exist.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True, shared=True, fsync=True, streams=True, colocated=True
    )

    async def add_many(self, records_: Sequence[TaskRecord]) -> list[AddVerdict]:
        return await self._submit(records.add, [records.new_task(record) for record in records_])

    async def start_many(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        return await self._submit(records.start, handles)

    async def settle_many(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        items = [steps.settle_row(settle, push=False) for settle in settles]
        return await self._submit(steps.settle, items, steps.rejected)

    async def bury_many(self, buried: Sequence[Buried], *, expires_at: float) -> list[bool]:
        items = [records.BuryRecord(item, expires_at) for item in buried]
        return await self._submit(records.bury, items, _not_done)

    async def cancel_many(
        self, uuids: Sequence[UUID], reason: str, *, expires_at: float
    ) -> list[CancelVerdict]:
        items = [records.Cancel(uuid, reason, expires_at) for uuid in uuids]
        return await self._submit(records.cancel, items)

    async def cancel_requested_many(self, uuids: Sequence[UUID]) -> list[bool]:
        keys = [uuid.bytes for uuid in uuids]
        rows = await self._select("uuid", keys, " AND status = 1 AND cancel_requested = 1")
        asked = {row[0] for row in rows}
        return [key in asked for key in keys]

    async def update_many(self, updates: Sequence[Update]) -> list[bool]:
        items = [records.UpdateRow(update.uuid, Changes(update.changes)) for update in updates]
        return await self._submit(records.update, items, _not_done)

    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        keys = [uuid.bytes for uuid in uuids]
        rows = {row[0]: row for row in await self._select(RECORD_COLUMNS, keys, " AND status IS NOT NULL")}
        return [shown_record(rows[key]) if key in rows else None for key in keys]

    async def scan(self, cursor: str | None, limit: int) -> Page:
        where = "status IS NOT NULL AND seq < ? ORDER BY seq DESC"
        return await self._page(where, (_seq(cursor, 2**62),), limit)

    async def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        where = "status <= 1 AND seq > ? AND created_at < ? ORDER BY seq"
        return await self._page(where, (_seq(cursor, 0), created_before), limit)

    async def scan_dead(self, cursor: str | None, limit: int) -> Page:
        order = "ORDER BY finished_at DESC, seq DESC"
        if cursor is None:
            return await self._page(f"dead = 1 {order}", (), limit, dead=True)
        moment, _, seq = cursor.partition("/")
        where = f"dead = 1 AND (finished_at, seq) < (?, ?) {order}"
        return await self._page(where, (float.fromhex(moment), int(seq)), limit, dead=True)

    async def delete_many(self, uuids: Sequence[UUID]) -> list[bool]:
        return await self._submit(records.delete, uuids)

    async def purge(self, before: float, dead_max: int) -> int:
        deleted = 0
        while step := await self._do(records.purge, records.Purge(before, dead_max, _PURGED)):
            deleted += step
        return deleted

    async def counts(self) -> dict[str, int]:
        def count(connection: sqlite3.Connection) -> dict[str, int]:
            found = {status.value: 0 for status in STATUS.values()}
            for status, number in connection.execute(
                "SELECT status, count(*) FROM tasks WHERE app = ? AND status IS NOT NULL GROUP BY status",
                (self._number,),
            ):
                found[STATUS[status].value] = number
            (found["dead"],) = connection.execute(
                "SELECT count(*) FROM tasks WHERE app = ? AND dead = 1", (self._number,)
            ).fetchone()
            return found

        return await self._opened().read(count)

    async def flush(self) -> None:
        await self._do(records.flush, None)

    async def get_settled(self, uuid: UUID) -> TaskRecord | None:
        (record,) = await self.get_many([uuid])
        if record is None:
            raise LookupError(f"there is no task {uuid}")
        return record if record.status.terminal else None

    async def wait_settled(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        record = await self.get_settled(uuid)
        if record is not None or (timeout is not None and timeout <= 0):
            return record
        return await self._opened().settled.wait(self._number, uuid.bytes, timeout)

    async def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[Any]) -> bool:
        values = tuple(encode(item) for item in items)
        return await self._do(records.append, records.Append(handle, index, values))

    async def read_items(self, uuid: UUID, start: int, limit: int) -> list[Any]:
        rows = await self._opened().read(
            lambda connection: connection.execute(
                "SELECT value FROM items WHERE app = ? AND uuid = ? AND number >= ? ORDER BY number LIMIT ?",
                (self._number, uuid.bytes, start, limit),
            ).fetchall()
        )
        return [decode(value) for (value,) in rows]

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return await self._do(exclusive.hold, exclusive.Hold(owner, ttl))

    async def release_exclusive(self, owner: str) -> None:
        await self._do(exclusive.release, owner)

    async def _select(self, columns: str, keys: Sequence[bytes], where: str) -> list[Any]:
        number = self._number
        return await self._opened().read(
            lambda connection: list(select_in(connection, number, columns, "uuid", keys, where))
        )

    async def _page(self, where: str, values: tuple[Any, ...], limit: int, *, dead: bool = False) -> Page:
        statement = where.replace(" ORDER BY", " AND app = ? ORDER BY") + " LIMIT ?"
        rows = await self._opened().read(
            lambda connection: connection.execute(
                f"SELECT seq, {RECORD_COLUMNS} FROM tasks WHERE {statement}",
                (*values, self._number, limit + 1),
            ).fetchall()
        )
        page = [shown_record(row[1:]) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(page, None)
        seq = rows[limit - 1][0]
        return Page(page, f"{float(page[-1].finished_at or 0.0).hex()}/{seq}" if dead else str(seq))


def _seq(cursor: str | None, first: int) -> int:
    return first if cursor is None else int(cursor)


def _not_done(item: Any, error: BaseException) -> bool:
    log.error("a record cannot be changed: %r: %r", error, item)
    return False
