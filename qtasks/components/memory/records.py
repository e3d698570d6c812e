"""The storage's half of the memory backend: records under rules R4 and R5.

A record is kept with its JSON fields encoded, so that nothing mutable is shared with a caller and
a value without a JSON form fails here as it does in every other store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any
from uuid import UUID

from qtasks.codec import decode, encode
from qtasks.components.primitives import (
    FENCED_FIELDS,
    Added,
    AddVerdict,
    Buried,
    CancelVerdict,
    DeliveryHandle,
    Page,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.components.rules import STATUS_OF_OUTCOME, may_settle, may_start
from qtasks.schemas import TaskRecord, TaskStatusEnum, make_record

JSON_FIELDS = ("args", "kwargs", "extra", "returning", "progress")
RECORD_FIELDS = frozenset(field.name for field in fields(TaskRecord))

Encodings = dict[str, bytes]

_COMPACT_FROM = 1000


class Row:
    """A record: plain fields in `record`, the JSON fields that are set in `json`."""

    __slots__ = ("death", "gone", "json", "record", "seq")

    def __init__(self, record: TaskRecord, json: Encodings, seq: int) -> None:
        self.record = record
        self.json = json
        self.seq = seq
        self.death = 0
        self.gone = False

    @property
    def open(self) -> bool:
        """Whether the task is not finished."""
        return not self.gone and not self.record.status.terminal

    def copy(self) -> TaskRecord:
        """A record of its own for the caller."""
        record = bare_copy(self.record)
        for name, data in self.json.items():
            value = decode(data)
            setattr(record, name, tuple(value) if name == "args" else value)
        return record


def bare_copy(record: TaskRecord) -> TaskRecord:
    """A copy without the JSON fields. (`dataclasses.replace` takes several times as long.)"""
    return make_record(
        uuid=record.uuid, task_name=record.task_name, queue=record.queue, priority=record.priority,
        created_at=record.created_at, updated_at=record.updated_at, available_at=record.available_at,
        status=record.status, attempt=record.attempt, deliveries=record.deliveries, retry=record.retry,
        digest=record.digest, unique_key=record.unique_key, result_ttl=record.result_ttl,
        replay_of=record.replay_of, started_at=record.started_at, finished_at=record.finished_at,
        expires_at=record.expires_at, traceback=record.traceback, cancel_reason=record.cancel_reason,
        cancel_requested=record.cancel_requested, dead=record.dead, epoch=record.epoch, owner=record.owner,
    )  # fmt: skip


def encode_record(record: TaskRecord) -> Encodings:
    """The JSON fields of a record that are not empty."""
    json: Encodings = {}
    if record.args:
        json["args"] = encode(record.args)
    if record.kwargs:
        json["kwargs"] = encode(record.kwargs)
    if record.extra:
        json["extra"] = encode(record.extra)
    if record.returning is not None:
        json["returning"] = encode(record.returning)
    if record.progress is not None:
        json["progress"] = encode(record.progress)
    return json


def encode_changes(changes: Mapping[str, Any]) -> Encodings:
    """The JSON fields among changes.

    Raises:
        ValueError: a name is not that of a field.
    """
    if unknown := changes.keys() - RECORD_FIELDS:
        raise ValueError(f"a task record has no field {', '.join(sorted(unknown))}")
    return {name: encode(changes[name]) for name in JSON_FIELDS if name in changes}


class Records:
    """All records of one app. The caller holds the lock of the space."""

    def __init__(self) -> None:
        self._rows: dict[UUID, Row] = {}
        self._unique: dict[str, UUID] = {}
        self._items: dict[UUID, list[bytes]] = {}
        self._seq = 0
        self._deaths = 0
        self._dead: dict[int, Row] = {}
        # In the order of their seq; rows that are gone are taken out when they are half of it.
        self._log: list[Row] = []
        self._gone = 0
        self._expiring: list[tuple[float, int, Row]] = []

    def get(self, uuid: UUID) -> TaskRecord | None:
        """A copy of the record."""
        row = self._rows.get(uuid)
        return None if row is None else row.copy()

    def peek(self, uuid: UUID) -> TaskRecord | None:
        """The record without its JSON fields; not to be changed."""
        row = self._rows.get(uuid)
        return None if row is None else row.record

    def find(self, record: TaskRecord) -> AddVerdict | None:
        """The verdict on adding a record that is not to be added; `None` if it may be."""
        row = self._rows.get(record.uuid)
        if row is not None:
            same = row.record.digest == record.digest
            return AddVerdict(Added.SAME if same else Added.CONFLICT, record.uuid)
        if record.unique_key is not None:
            holder = self._unique.get(record.unique_key)
            if holder is not None:
                return AddVerdict(Added.EXISTS, holder)
        return None

    def add(self, record: TaskRecord, json: Encodings) -> AddVerdict:
        """As `Storage.add_many` for one record, with its JSON fields encoded."""
        found = self.find(record)
        if found is not None:
            return found
        self._seq += 1
        row = self._rows[record.uuid] = Row(bare_copy(record), json, self._seq)
        self._log.append(row)
        if record.status.terminal:
            self._ended(row)
        elif record.unique_key is not None:
            self._unique[record.unique_key] = record.uuid
        return AddVerdict(Added.ADDED, record.uuid)

    def start(self, handle: DeliveryHandle, now: float) -> StartVerdict:
        """As `Storage.start_many` for one delivery."""
        row = self._rows.get(handle.uuid)
        if row is None:
            return StartVerdict(Start.MISSING)
        record = row.record
        kind = may_start(record.status, record.epoch, record.owner, record.available_at, handle, now)
        if kind is Start.STARTED:
            if record.epoch != handle.epoch:
                record.status = TaskStatusEnum.PROCESS
                record.epoch, record.owner = handle.epoch, handle.owner
                record.started_at = record.updated_at = now
                record.deliveries = handle.deliveries
            return StartVerdict(kind, row.copy())
        if kind is Start.CONFLICT:
            return StartVerdict(kind, epoch=record.epoch)
        if kind is Start.NOT_DUE:
            return StartVerdict(kind, delay=record.available_at - now)
        return StartVerdict(kind)

    def settle(self, settle: Settle, json: Encodings) -> SettleVerdict:
        """As `Storage.settle_many` for one delivery, without `then`."""
        row = self._rows.get(settle.handle.uuid)
        if row is None:
            return SettleVerdict.REJECTED
        record = row.record
        verdict = may_settle(record.status, record.epoch, record.owner, settle.handle)
        if verdict is SettleVerdict.ACCEPTED:
            self._change(row, settle.changes, json)
            record.status = STATUS_OF_OUTCOME[settle.outcome]
            if record.status.terminal:
                self._ended(row)
        return verdict

    def bury(self, buried: Buried, now: float, expires_at: float) -> bool:
        """As `Storage.bury_many` for one entry."""
        row = self._rows.get(buried.uuid)
        if row is None or row.record.status.terminal or row.record.epoch > buried.epoch:
            return False
        record = row.record
        record.status, record.dead, record.traceback = TaskStatusEnum.ERROR, True, buried.reason
        self._finish(row, now, expires_at)
        return True

    def cancel(self, uuid: UUID, reason: str, now: float, expires_at: float) -> CancelVerdict:
        """As `Storage.cancel_many` for one task."""
        row = self._rows.get(uuid)
        if row is None:
            return CancelVerdict.MISSING
        record = row.record
        if record.status.terminal:
            return CancelVerdict.TERMINAL
        record.cancel_reason = reason
        if record.status is TaskStatusEnum.PROCESS:
            record.cancel_requested = True
            return CancelVerdict.REQUESTED
        record.status = TaskStatusEnum.CANCEL
        self._finish(row, now, expires_at)
        return CancelVerdict.CANCELLED

    def update(self, uuid: UUID, changes: Mapping[str, Any], json: Encodings) -> bool:
        """As `Storage.update_many` for one record."""
        row = self._rows.get(uuid)
        if row is None or row.record.status.terminal:
            return False
        key = changes.get("unique_key", row.record.unique_key)
        if key is not None and self._unique.get(key, uuid) != uuid:
            return False
        self._change(row, changes, json)
        return True

    def scan(self, cursor: str | None, limit: int) -> Page:
        """As `Storage.scan`."""
        end = len(self._log) if cursor is None else bisect_left(self._log, int(cursor), key=_by_seq)
        rows = (self._log[i] for i in range(end - 1, -1, -1))
        return _page((row for row in rows if not row.gone), limit)

    def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        """As `Storage.scan_open`; the oldest first."""
        begin = 0 if cursor is None else bisect_left(self._log, int(cursor) + 1, key=_by_seq)
        rows = (self._log[i] for i in range(begin, len(self._log)))
        return _page((row for row in rows if row.open and row.record.created_at < created_before), limit)

    def scan_dead(self, cursor: str | None, limit: int) -> Page:
        """As `Storage.scan_dead`; those that died last come first."""
        before = None if cursor is None else int(cursor)
        rows = (row for row in reversed(self._dead.values()) if before is None or row.death < before)
        found = list(islice(rows, limit + 1))
        return Page(
            [row.copy() for row in found[:limit]], str(found[limit - 1].death) if len(found) > limit else None
        )

    def delete(self, uuid: UUID) -> bool:
        """Deletes a terminal record with its items."""
        row = self._rows.get(uuid)
        if row is None or row.open:
            return False
        self._drop(row)
        return True

    def purge(self, before: float, dead_max: int) -> int:
        """As `Storage.purge`."""
        deleted = 0
        while self._expiring and self._expiring[0][0] < before:
            _, _, row = heappop(self._expiring)
            if not row.gone:
                self._drop(row)
                deleted += 1
        while len(self._dead) > dead_max:
            self._drop(next(iter(self._dead.values())))
            deleted += 1
        return deleted

    def counts(self) -> dict[str, int]:
        """As `Storage.counts`."""
        found = {status.value: 0 for status in TaskStatusEnum}
        for row in self._rows.values():
            found[row.record.status.value] += 1
        return found | {"dead": len(self._dead)}

    def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[bytes]) -> bool:
        """As `Storage.append_items`. What stood at `index` and after it is replaced, so that a new run of
        the generator leaves nothing of the one before.
        """
        row = self._rows.get(handle.uuid)
        if row is None:
            return False
        record = row.record
        if may_settle(record.status, record.epoch, record.owner, handle) is not SettleVerdict.ACCEPTED:
            return False
        stored = self._items.setdefault(handle.uuid, [])
        if index > len(stored):
            return False
        stored[index:] = items
        return True

    def read_items(self, uuid: UUID, start: int, limit: int) -> list[bytes]:
        """As `Storage.read_items`, still encoded."""
        return self._items.get(uuid, [])[start : start + limit]

    def flush(self) -> None:
        """Deletes all records."""
        self.__init__()  # type: ignore[misc]

    def _change(self, row: Row, changes: Mapping[str, Any], json: Encodings) -> None:
        record = row.record
        if "unique_key" in changes and record.unique_key is not None:
            self._unique.pop(record.unique_key, None)
        for name, value in changes.items():
            if name not in FENCED_FIELDS and name not in JSON_FIELDS:
                setattr(record, name, value)
        if "unique_key" in changes and record.unique_key is not None:
            self._unique[record.unique_key] = record.uuid
        row.json.update(json)

    def _finish(self, row: Row, now: float, expires_at: float) -> None:
        """The end of a task that no worker settles; without its owner a late settle is rejected."""
        record = row.record
        record.owner = ""
        record.finished_at = record.updated_at = now
        record.expires_at = expires_at
        self._ended(row)

    def _ended(self, row: Row) -> None:
        record = row.record
        if record.unique_key is not None:
            self._unique.pop(record.unique_key, None)
        if record.expires_at is not None:
            heappush(self._expiring, (record.expires_at, row.seq, row))
        if record.dead:
            self._deaths += 1
            row.death = self._deaths
            self._dead[row.death] = row

    def _drop(self, row: Row) -> None:
        row.gone = True
        del self._rows[row.record.uuid]
        self._items.pop(row.record.uuid, None)
        self._dead.pop(row.death, None)
        self._gone += 1
        if self._gone > _COMPACT_FROM and self._gone * 2 > len(self._log):
            self._log = [kept for kept in self._log if not kept.gone]
            self._expiring = [item for item in self._expiring if not item[2].gone]
            heapify(self._expiring)
            self._gone = 0


def _by_seq(row: Row) -> int:
    return row.seq


def _page(rows: Iterable[Row], limit: int) -> Page:
    found = list(islice(rows, limit + 1))
    cursor = str(found[limit - 1].seq) if len(found) > limit else None
    return Page([row.copy() for row in found[:limit]], cursor)
