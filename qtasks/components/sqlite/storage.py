"""The storage on an SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
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
from qtasks.components.sqlite import records
from qtasks.components.sqlite.member import CAPABILITIES, SQLiteMember
from qtasks.components.sqlite.rows import COLUMNS, STATUS_OF, record_of
from qtasks.components.storage import Storage
from qtasks.schemas import TaskRecord

PART = 500
"""Values in one IN (…)."""


class SQLiteStorage(SQLiteMember, Storage):
    """Keeps records in one SQLite file, for any number of processes on one machine."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    async def add_many(self, records_: Sequence[TaskRecord]) -> list[AddVerdict]:
        return await self._write(lambda db, app: [records.add(db, app, record) for record in records_])

    async def start_many(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        now = self.clock()
        expires_at = now + self.config.dead_ttl
        return await self._write(
            lambda db, app: [records.start(db, app, handle, now, expires_at) for handle in handles]
        )

    async def settle_many(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        def job(db: Any, app: int) -> list[SettleVerdict]:
            verdicts = []
            for item in settles:
                verdict = records.settle(db, app, item)
                if verdict is not SettleVerdict.REJECTED:
                    for record in item.then:
                        records.add(db, app, record)
                verdicts.append(verdict)
            return verdicts

        return await self._write(job)

    async def bury_many(self, buried: Sequence[Buried], *, expires_at: float) -> list[bool]:
        now = self.clock()
        return await self._write(
            lambda db, app: [records.bury(db, app, item, now, expires_at) for item in buried]
        )

    async def cancel_many(
        self, uuids: Sequence[UUID], reason: str, *, expires_at: float
    ) -> list[CancelVerdict]:
        now = self.clock()
        return await self._write(
            lambda db, app: [records.cancel(db, app, uuid, reason, now, expires_at) for uuid in uuids]
        )

    async def cancel_requested_many(self, uuids: Sequence[UUID]) -> list[bool]:
        asked: set[bytes] = set()
        for start in range(0, len(uuids), PART):
            part = [uuid.bytes for uuid in uuids[start : start + PART]]
            rows = await self._read(
                "SELECT uuid FROM tasks WHERE app = ? AND status = 1 AND cancel_requested = 1 "
                f"AND uuid IN ({', '.join('?' * len(part))})",
                *part,
            )
            asked.update(uuid for (uuid,) in rows)
        return [uuid.bytes in asked for uuid in uuids]

    async def update_many(self, updates: Sequence[Update]) -> list[bool]:
        return await self._write(lambda db, app: [records.update(db, app, item) for item in updates])

    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        found: dict[bytes, tuple[Any, ...]] = {}
        for start in range(0, len(uuids), PART):
            part = [uuid.bytes for uuid in uuids[start : start + PART]]
            rows = await self._read(
                f"SELECT {COLUMNS} FROM tasks WHERE app = ? AND status IS NOT NULL "
                f"AND uuid IN ({', '.join('?' * len(part))})",
                *part,
            )
            found.update((row[0], row) for row in rows)
        result = []
        for uuid in uuids:
            row = found.get(uuid.bytes)
            result.append(None if row is None else await self._readable(row))
        return result

    async def _readable(self, row: tuple[Any, ...]) -> TaskRecord | None:
        """The record; a corrupt one is written off first."""
        try:
            return record_of(row)
        except ValueError as error:
            uuid, reason, now = UUID(bytes=row[0]), str(error), self.clock()
            expires_at = now + self.config.dead_ttl

            def job(db: Any, app: int) -> TaskRecord | None:
                records.write_off(db, app, uuid, reason, now, expires_at)
                return records.get(db, app, uuid)

            return await self._write(job)

    async def _page(
        self, where: str, limit: int, cursor: str | None, *params: Any, descending: bool = True
    ) -> Page:
        """One page by `seq`; a record that stays during the scan appears once, since its `seq` stays too."""
        after = "" if cursor is None else f" AND seq {'<' if descending else '>'} {int(cursor)}"
        rows = await self._read(
            f"SELECT seq, {COLUMNS} FROM tasks WHERE app = ? AND {where}{after} "
            f"ORDER BY seq {'DESC' if descending else 'ASC'} LIMIT ?",
            *params, limit,
        )  # fmt: skip
        page = [await self._readable(row[1:]) for row in rows]
        last = str(rows[-1][0]) if len(rows) == limit else None
        return Page([record for record in page if record is not None], last)

    async def scan(self, cursor: str | None, limit: int) -> Page:
        return await self._page("status IS NOT NULL", limit, cursor)

    async def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        return await self._page(
            "status <= 1 AND created_at < ?", limit, cursor, created_before, descending=False
        )

    async def scan_dead(self, cursor: str | None, limit: int) -> Page:
        """By the time of death: a cursor is `finished_at:seq`."""
        where, params = "dead = 1", []
        if cursor is not None:
            died, _, seq = cursor.partition(":")
            where, params = "dead = 1 AND (finished_at, seq) < (?, ?)", [float(died), int(seq)]
        rows = await self._read(
            f"SELECT seq, finished_at, {COLUMNS} FROM tasks WHERE app = ? AND {where} "
            "ORDER BY finished_at DESC, seq DESC LIMIT ?",
            *params, limit,
        )  # fmt: skip
        page = [await self._readable(row[2:]) for row in rows]
        last = f"{rows[-1][1]!r}:{rows[-1][0]}" if len(rows) == limit else None
        return Page([record for record in page if record is not None], last)

    async def delete_many(self, uuids: Sequence[UUID]) -> list[bool]:
        return await self._write(
            lambda db, app: [records.forget(db, app, "uuid = ?", (uuid.bytes,)) == 1 for uuid in uuids]
        )

    async def purge(self, before: float, dead_max: int) -> int:
        def job(db: Any, app: int) -> int:
            gone = records.forget(db, app, "expires_at IS NOT NULL AND expires_at < ?", (before,))
            return gone + records.forget(
                db,
                app,
                "dead = 1 AND seq NOT IN (SELECT seq FROM tasks WHERE app = ? AND dead = 1 "
                "ORDER BY finished_at DESC, seq DESC LIMIT ?)",
                (app, dead_max),
            )

        return await self._write(job)

    async def counts(self) -> dict[str, int]:
        rows = await self._read(
            "SELECT status, count(*), total(dead) FROM tasks WHERE app = ? AND status IS NOT NULL GROUP BY status"
        )
        counts = dict.fromkeys((status.value for status in STATUS_OF.values()), 0)
        counts["dead"] = 0
        for status, count, dead in rows:
            counts[STATUS_OF[status].value] = count
            counts["dead"] += int(dead)
        return counts

    async def flush(self) -> None:
        def job(db: Any, app: int) -> None:
            db.execute("DELETE FROM items WHERE app = ?", (app,))
            db.execute("DELETE FROM tasks WHERE app = ? AND state IS NULL", (app,))
            rows = db.execute("SELECT seq FROM tasks WHERE app = ? AND status IS NOT NULL", (app,)).fetchall()
            for (seq,) in rows:
                records.drop_record(db, seq)

        await self._write(job)

    async def get_settled(self, uuid: UUID) -> TaskRecord | None:
        record = (await self.get_many([uuid]))[0]
        if record is None:
            raise LookupError(f"there is no task {uuid}")
        return record if record.status.terminal else None

    async def wait_settled(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        return await self.engine.wait_settled(self._app, uuid, timeout, lambda: self.get_settled(uuid))

    async def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[Any]) -> bool:
        encoded = [encode(item).decode() for item in items]
        return await self._write(lambda db, app: records.append_items(db, app, handle, index, encoded))

    async def read_items(self, uuid: UUID, start: int, limit: int) -> list[Any]:
        rows = await self._read(
            "SELECT value FROM items WHERE app = ? AND uuid = ? AND number >= ? ORDER BY number LIMIT ?",
            uuid.bytes, start, limit,
        )  # fmt: skip
        return [decode(value) for (value,) in rows]
