"""Faults of the memory storage, each with the check that must see it."""

from __future__ import annotations

from dataclasses import replace

from qtasks.components.memory import MemoryStorage
from qtasks.components.memory.records import Records
from qtasks.components.primitives import (
    Added,
    AddVerdict,
    Page,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.schemas import TaskStatusEnum
from tests.conformance.mutants.table import mutant

# --- Storage: the fence ------------------------------------------------------------------------------


@mutant("loses the fence at the start", "STORAGE-22")
class _(Records):
    def start(self, handle, now):
        row = self._rows.get(handle.uuid)
        if row is not None and row.open:
            row.record.epoch = 0
        return super().start(handle, now)


@mutant("loses the fence at the settle", "STORAGE-23")
class _(Records):
    def settle(self, settle, json):
        row = self._rows.get(settle.handle.uuid)
        if row is not None:
            token = settle.handle._replace(epoch=row.record.epoch, owner=row.record.owner)
            settle = replace(settle, handle=token)
        return super().settle(settle, json)


@mutant("settles for any owner", "STORAGE-30")
class _(Records):
    def settle(self, settle, json):
        row = self._rows.get(settle.handle.uuid)
        if row is not None:
            settle = replace(settle, handle=settle.handle._replace(owner=row.record.owner))
        return super().settle(settle, json)


@mutant("a token starts twice", "STORAGE-24")
class _(Records):
    def start(self, handle, now):
        row = self._rows.get(handle.uuid)
        if row is not None and row.record.epoch == handle.epoch and row.record.status is TaskStatusEnum.NEW:
            row.record.epoch -= 1
        return super().start(handle, now)


@mutant("changes a result", "STORAGE-29")
class _(Records):
    def settle(self, settle, json):
        verdict = super().settle(settle, json)
        if verdict is SettleVerdict.ALREADY_MINE:
            self._change(self._rows[settle.handle.uuid], settle.changes, json)
        return verdict


@mutant("forgets who settled", "STORAGE-29")
class _(Records):
    def settle(self, settle, json):
        verdict = super().settle(settle, json)
        return SettleVerdict.REJECTED if verdict is SettleVerdict.ALREADY_MINE else verdict


@mutant("puts a task back by the worker's clock", "STORAGE-32")
class _(Records):
    def settle(self, settle, json):
        if settle.nack is not None:
            due = settle.changes["updated_at"] + settle.nack.delay
            settle = replace(settle, changes={**settle.changes, "available_at": due})
        return super().settle(settle, json)


@mutant("runs what is not due", "STORAGE-26")
class _(Records):
    def start(self, handle, now):
        return super().start(handle, now + 1e9)


@mutant("starts what is over", "STORAGE-25")
class _(Records):
    def start(self, handle, now):
        verdict = super().start(handle, now)
        return StartVerdict(Start.CONFLICT) if verdict.kind is Start.TERMINAL else verdict


@mutant("buries above the fence", "STORAGE-44")
class _(Records):
    def bury(self, buried, now, expires_at):
        return super().bury(buried._replace(epoch=10**9), now, expires_at)


@mutant("leaves the token of what it buried", "STORAGE-43")
class _(Records):
    def bury(self, buried, now, expires_at):
        row = self._rows.get(buried.uuid)
        owner = row.record.owner if row else ""
        done = super().bury(buried, now, expires_at)
        if row is not None:
            row.record.owner = owner
        return done


@mutant("an update touches the fence", "STORAGE-46")
class _(Records):
    def update(self, uuid, changes, json):
        if uuid in self._rows and "owner" in changes:
            self._rows[uuid].record.owner = changes["owner"]
        return super().update(uuid, changes, json)


# --- Storage: records --------------------------------------------------------------------------------


@mutant("is not idempotent: adding again replaces", "STORAGE-05")
class _(Records):
    def add(self, record, json):
        there = self._rows.get(record.uuid)
        if there is not None and there.open and there.record.digest == record.digest:
            there.json.update(json)
        return super().add(record, json)


@mutant("takes a conflict for the same", "STORAGE-05")
class _(Records):
    def find(self, record):
        found = super().find(record)
        return AddVerdict(Added.SAME, found.uuid) if found and found.kind is Added.CONFLICT else found


@mutant("keeps a unique key for ever", "STORAGE-08")
class _(Records):
    def _ended(self, row):
        key, row.record.unique_key = row.record.unique_key, None
        super()._ended(row)
        row.record.unique_key = key


@mutant("unique keys without case", "STORAGE-09")
class _(Records):
    def find(self, record):
        key = record.unique_key
        alike = [k for k in self._unique if key is not None and k.lower() == key.lower()]
        if alike and record.uuid not in self._rows:
            return AddVerdict(Added.EXISTS, self._unique[alike[0]])
        return super().find(record)


@mutant("takes a false result for none", "STORAGE-03")
class _(Records):
    def settle(self, settle, json):
        if not settle.changes.get("returning"):
            json = {name: data for name, data in json.items() if name != "returning"}
        return super().settle(settle, json)


@mutant("adds the follow-ups of a rejected settle", "STORAGE-33")
class _(MemoryStorage):
    async def settle_many(self, settles):
        verdicts = await super().settle_many(settles)
        for settle in settles:
            await self.add_many(settle.then)
        return verdicts


@mutant("loses a request to cancel", "STORAGE-41")
class _(MemoryStorage):
    async def cancel_requested_many(self, uuids):
        return [False for _ in uuids]


@mutant("shares what it keeps", "STORAGE-04")
class _(MemoryStorage):
    async def get_many(self, uuids):
        cache = self.__dict__.setdefault("_cache", {})
        found = await super().get_many(uuids)
        return [cache.setdefault(uuid, record) for uuid, record in zip(uuids, found, strict=True)]


@mutant("purges what is open", "STORAGE-48")
class _(Records):
    def purge(self, before, dead_max):
        for row in [row for row in self._rows.values() if row.open and before > row.record.created_at]:
            self._drop(row)
        return super().purge(before, dead_max)


@mutant("pages by number", "STORAGE-57")
class _(Records):
    def scan(self, cursor, limit):
        rows = [row for row in reversed(self._log) if not row.gone]
        begin = int(cursor or 0)
        more = str(begin + limit) if begin + limit < len(rows) else None
        return Page([row.copy() for row in rows[begin : begin + limit]], more)


@mutant("a scan of the open leaves out what runs", "STORAGE-58")
class _(Records):
    def scan_open(self, cursor, limit, created_before):
        page = super().scan_open(cursor, limit, created_before)
        return Page([each for each in page.records if each.status is TaskStatusEnum.NEW], page.cursor)


@mutant("does not tell who waits of a burial", "STORAGE-67")
class _(MemoryStorage):
    async def bury_many(self, buried, *, expires_at):
        with self.space.lock:
            return [self._state.records.bury(each, self.clock(), expires_at) for each in buried]


@mutant("appends items at the end", "STORAGE-71")
class _(Records):
    def append_items(self, handle, index, items):
        return super().append_items(handle, len(self._items.get(handle.uuid, ())), items)


@mutant("takes a durability that it has not", "STORAGE-88")
class _(MemoryStorage):
    async def start(self):
        await self.open()
        await self.pm.hook.storage_start(storage=self)


@mutant("ignores a replacement", "STORAGE-102")
class _(MemoryStorage):
    async def get(self, uuid, task):
        await self.pm.hook.storage_get(storage=self, uuid=uuid, result=task)
        return task


@mutant("changes the caller's fields", "STORAGE-104")
class _(MemoryStorage):
    async def update(self, uuid, kw):
        kw.update(await self.pm.hook.storage_update(storage=self, uuid=uuid, kw=kw))
        return kw


@mutant("forgets the dead in its counts", "STORAGE-120")
class _(Records):
    def counts(self):
        return super().counts() | {"dead": 0}
