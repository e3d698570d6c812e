"""Faults of the memory backend, each with the check of the kit that must see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.components.memory.broker import MemoryLeaseKeeper
from qtasks.components.memory.entries import Entries, State
from qtasks.components.memory.records import Records
from qtasks.components.memory.space import AppState
from qtasks.components.primitives import (
    Added,
    AddVerdict,
    DropVerdict,
    HoldVerdict,
    Nack,
    Page,
    PushVerdict,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.schemas import TaskStatusEnum
from qtasks.testing import BrokerSuite, GlobalConfigSuite, PairingSuite, StorageSuite, Suite

Factory = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """A broken component, and the check that must fall short of it."""

    fault: str
    suite: type[Suite]
    check: str
    factory: Factory

    def __str__(self) -> str:
        return f"{self.check}: {self.fault}"


MUTANTS: list[Mutant] = []


def space_of(entries: type[Entries] = Entries, records: type[Records] = Records) -> type[MemorySpace]:
    """A space with broken insides."""

    class Broken(MemorySpace):
        def app(self, name: str) -> AppState:
            if name not in self._apps:
                self._apps[name] = AppState(entries=entries(), records=records())
            return super().app(name)

    return Broken


def single(component: type, space: type[MemorySpace]) -> Factory:
    return lambda like=None: component(like.space if like else space())


def pair(broker: type[MemoryBroker], space: type[MemorySpace]) -> Factory:
    def make(like=None):
        shared = like[0].space if like else space()
        return broker(shared), MemoryStorage(shared)

    return make


def mutant(fault: str, check: str) -> Callable[[type], type]:
    """Puts a broken class into the table: the suite follows from the check, the wiring from the class."""

    def decorate(broken: type) -> type:
        entries = broken if issubclass(broken, Entries) else Entries
        records = broken if issubclass(broken, Records) else Records
        space = broken if issubclass(broken, MemorySpace) else space_of(entries, records)
        kind = check.partition("-")[0]
        component = (
            broken if broken.__mro__[1].__name__.startswith("Memory") and space is not broken else None
        )
        if kind == "PAIRING":
            MUTANTS.append(Mutant(fault, PairingSuite, check, pair(component or MemoryBroker, space)))
        else:
            suite, usual = {
                "BROKER": (BrokerSuite, MemoryBroker),
                "STORAGE": (StorageSuite, MemoryStorage),
                "CONFIG": (GlobalConfigSuite, MemoryGlobalConfig),
            }[kind]
            MUTANTS.append(Mutant(fault, suite, check, single(component or usual, space)))
        return broken

    return decorate


# --- Broker: tokens and leases ------------------------------------------------------------------


@mutant("acks someone else's task", "BROKER-32")
class _(Entries):
    def ack(self, handle):
        if handle.uuid not in self._leased:
            return DropVerdict.LOST
        self._forget(handle.uuid)
        return DropVerdict.DONE


@mutant("compares the owner only", "BROKER-33")
class _(Entries):
    def _held(self, handle):
        entry = self._leased.get(handle.uuid)
        return entry if entry and entry.owner == handle.owner else None


@mutant("compares the epoch only", "BROKER-25")
class _(Entries):
    def _held(self, handle):
        entry = self._leased.get(handle.uuid)
        return entry if entry and entry.epoch == handle.epoch else None


@mutant("compares owners without case", "BROKER-58")
class _(Entries):
    def _held(self, handle):
        entry = self._leased.get(handle.uuid)
        same = entry and entry.epoch == handle.epoch and entry.owner.casefold() == handle.owner.casefold()
        return entry if same else None


@mutant("a swept token still holds", "BROKER-31")
class _(Entries):
    def ack(self, handle):
        entry = self._all.get(handle.uuid)
        if entry is None or entry.epoch != handle.epoch:
            return DropVerdict.LOST
        self._forget(handle.uuid)
        return DropVerdict.DONE


@mutant("forgets the lease", "BROKER-21")
class _(Entries):
    def claim(self, n, queues, owner, lease, now):
        return super().claim(n, queues, owner, 1e9, now)


@mutant("restores a live task", "BROKER-20")
class _(Entries):
    def sweep(self, limit, max_deliveries, now):
        return super().sweep(limit, max_deliveries, now + 1e6)


@mutant("does not mark what it restored", "BROKER-21")
class _(Entries):
    def sweep(self, limit, max_deliveries, now):
        report = super().sweep(limit, max_deliveries, now)
        for entry in self._all.values():
            entry.restored = False
        return report


@mutant("says restored for ever", "BROKER-23")
class _(Entries):
    def claim(self, n, queues, owner, lease, now):
        handles = super().claim(n, queues, owner, lease, now)
        for handle in handles:
            self._all[handle.uuid].restored = handle.restored
        return handles


@mutant("never buries", "BROKER-30")
class _(Entries):
    def sweep(self, limit, max_deliveries, now):
        return super().sweep(limit, 10**9, now)


@mutant("sweeps without a limit", "BROKER-28")
class _(Entries):
    def sweep(self, limit, max_deliveries, now):
        return super().sweep(10**9, max_deliveries, now)


@mutant("says held, and extends nothing", "BROKER-24")
class _(Entries):
    def extend(self, handle, until):
        return HoldVerdict.LOST if self._held(handle) is None else HoldVerdict.HELD


@mutant("the lease keeper believes everybody", "BROKER-34")
class _(MemoryBroker):
    def lease_keeper(self):
        class Keeper(MemoryLeaseKeeper):
            def extend(self, handles, lease):
                super().extend(handles, lease)
                return [HoldVerdict.HELD for _ in handles]

        return Keeper(self.space, self._state, self.clock)


@mutant("a flush resets the epochs", "BROKER-55")
class _(Entries):
    def flush(self):
        self.__init__()


@mutant("forgets the epoch with its entry", "BROKER-16")
class _(Entries):
    def push(self, item, now):
        if not self._all:
            self.epoch = 0
        return super().push(item, now)


@mutant("ignores min_epoch", "BROKER-15")
class _(Entries):
    def push(self, item, now):
        return super().push(item._replace(min_epoch=0), now)


# --- Broker: order, delays, idempotence -----------------------------------------------------------


@mutant("sorts priorities as text", "BROKER-08")
class _(Entries):
    def _place(self, entry, now):
        real, entry.priority = entry.priority, str(entry.priority)
        super()._place(entry, now)
        entry.priority = real


@mutant("last in, first out", "BROKER-09")
class _(Entries):
    def _place(self, entry, now):
        real, entry.seq = entry.seq, -entry.seq
        super()._place(entry, now)
        entry.seq = real


@mutant("serves queues by name", "BROKER-10")
class _(Entries):
    def claim(self, n, queues, owner, lease, now):
        return super().claim(n, sorted(queues), owner, lease, now)


@mutant("runs delayed tasks at once", "BROKER-12")
class _(Entries):
    def push(self, item, now):
        verdict = super().push(item, now)
        for entry in self._all.values():
            if entry.state is State.DELAYED:
                entry.due_at = now
                self._place(entry, now)
        return verdict


@mutant("a push again replaces what waits", "BROKER-02")
class _(Entries):
    def push(self, item, now):
        there = item.uuid in self._all
        if there and self._all[item.uuid].state in (State.READY, State.DELAYED):
            self._forget(item.uuid)
        verdict = super().push(item, now)
        return PushVerdict.ALREADY_THERE if there else verdict


@mutant("a push again takes it from who runs it", "BROKER-03")
class _(Entries):
    def push(self, item, now):
        if item.uuid in self._leased:
            self._forget(item.uuid)
        return super().push(item, now)


@mutant("puts back without the delay", "BROKER-44")
class _(Entries):
    def nack(self, nack, now):
        return super().nack(nack._replace(delay=0.0), now)


@mutant("counts every delivery, also the returned", "BROKER-43")
class _(Entries):
    def nack(self, nack, now):
        return super().nack(nack._replace(deliveries=nack.handle.deliveries), now)


@mutant("a discarded burial comes back", "BROKER-48")
class _(Entries):
    def _forget(self, uuid):
        entry = self._buried.get(uuid)
        super()._forget(uuid)
        if entry is not None:
            self._buried[uuid] = entry


@mutant("gives verdicts in another order", "BROKER-41")
class _(MemoryBroker):
    async def ack_many(self, handles):
        return sorted(await super().ack_many(handles), key=str)


@mutant("names of apps without case", "BROKER-56")
class _(MemorySpace):
    def app(self, name):
        return super().app(name.lower())


@mutant("flushes every app whose name begins alike", "BROKER-56")
class _(MemoryBroker):
    async def flush(self):
        for name, state in self.space._apps.items():
            if name.startswith(self.app_name):
                state.entries.flush()


@mutant("does not wake who waits for work", "BROKER-54")
class _(MemoryBroker):
    async def push_many(self, items):
        now, entries = self.clock(), self._state.entries
        return [entries.push(item, now) for item in items]


@mutant("counts a delayed entry that is discarded", "BROKER-95")
class _(Entries):
    def _forget(self, uuid):
        entry = self._all[uuid]
        delayed = entry.state is State.DELAYED
        super()._forget(uuid)
        self._waiting[entry.queue] += delayed


# --- Broker: triggers -----------------------------------------------------------------------------


@mutant("drops a trigger", "BROKER-80")
class _(MemoryBroker):
    async def stop(self):
        pass


@mutant("fires a trigger twice", "BROKER-88")
class _(MemoryBroker):
    async def flush_all(self):
        await super().flush_all()
        await self.pm.hook.broker_flush_all(broker=self)


@mutant("ignores a replacement", "BROKER-82")
class _(MemoryBroker):
    async def add(self, uuid, model):
        await self.pm.hook.broker_add_before(broker=self, storage=self.storage, uuid=uuid, model=model)
        return await self.storage.add(uuid, model)


@mutant("fires from a primitive", "BROKER-89")
class _(MemoryBroker):
    async def flush(self):
        await super().flush()
        await self.pm.hook.broker_flush_all(broker=self)


# --- Storage: the fence ---------------------------------------------------------------------------


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


# --- Storage: records -----------------------------------------------------------------------------


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


# --- Global config --------------------------------------------------------------------------------


@mutant("writes without comparing", "CONFIG-03")
class _(MemoryGlobalConfig):
    async def put(self, name, key, value, ttl=None, if_version=None):
        return await super().put(name, key, value, ttl)


@mutant("keeps values for ever", "CONFIG-05")
class _(MemoryGlobalConfig):
    async def put(self, name, key, value, ttl=None, if_version=None):
        return await super().put(name, key, value, None, if_version)


@mutant("begins versions again", "CONFIG-02")
class _(MemoryGlobalConfig):
    async def delete(self, name, key, if_version=None):
        done = await super().delete(name, key, if_version)
        self._state.config_version = 0
        return done


@mutant("runs name and key together", "CONFIG-07")
class _(MemoryGlobalConfig):
    async def put(self, name, key, value, ttl=None, if_version=None):
        name, _, key = f"{name}:{key}".partition(":")
        return await super().put(name, key, value, ttl, if_version)

    async def fetch(self, name, key):
        name, _, key = f"{name}:{key}".partition(":")
        return await super().fetch(name, key)


@mutant("a backslash escapes in a glob", "CONFIG-08")
class _(MemoryGlobalConfig):
    async def match(self, pattern):
        return await super().match(re.sub(r"\\(.)", r"\1", pattern, flags=re.S))


@mutant("takes an empty key for none", "CONFIG-70")
class _(MemoryGlobalConfig):
    async def fetch_all(self, name):
        return {key: item for key, item in (await super().fetch_all(name)).items() if key}


@mutant("ignores a replaced key", "CONFIG-51")
class _(MemoryGlobalConfig):
    async def set(self, name, key, value, *, ttl=None, if_version=None):
        _, _, value = await self.pm.hook.global_config_set(
            global_config=self, name=name, key=key, value=value
        )
        return await self.put(name, key, value, ttl, if_version)


@mutant("a sign of life that never ends", "CONFIG-55")
class _(MemoryGlobalConfig):
    async def set_status(self, owner, status, ttl):
        await super().set_status(owner, status, 1e9)


# --- Pairings: the atomic steps ---------------------------------------------------------------------


@mutant("acks although the settle is rejected", "PAIRING-07")
class _(MemoryBroker):
    async def settle_and_ack(self, settles):
        verdicts = await super().settle_and_ack(settles)
        await self.discard_many([settle.handle.uuid for settle in settles])
        return verdicts


@mutant("runs a terminal task", "PAIRING-08")
class _(MemoryBroker):
    async def claim_and_start(self, n, queues, owner, lease):
        handles = await self.claim(n, queues, owner, lease)
        records = self._state.records
        for handle in handles:
            records.start(handle, self.clock())
        return [(handle, records.get(handle.uuid)) for handle in handles]


@mutant("an entry without a record is due anew each time", "PAIRING-09")
class _(Entries):
    def nack(self, nack, now):
        verdict = super().nack(nack, now)
        if verdict is DropVerdict.DONE:
            self._all[nack.handle.uuid].available_at = now + nack.delay
        return verdict


@mutant("takes more than the queue may hold", "PAIRING-03")
class _(MemoryBroker):
    async def add_and_push(self, records, max_queue):
        return await super().add_and_push(records, None)


@mutant("stores follow-ups and does not queue them", "PAIRING-14")
class _(MemoryBroker):
    async def settle_and_ack(self, settles):
        verdicts = await super().settle_and_ack(settles)
        await self.discard_many([record.uuid for settle in settles for record in settle.then])
        return verdicts


@mutant("a repeated settle leaves the entry", "PAIRING-06")
class _(MemoryBroker):
    async def settle_and_ack(self, settles):
        peek = self._state.records.peek
        open_ones = [s for s in settles if peek(s.handle.uuid).status is TaskStatusEnum.PROCESS]
        accepted = dict(zip(map(id, open_ones), await super().settle_and_ack(open_ones), strict=True))
        return [accepted.get(id(settle), SettleVerdict.ALREADY_MINE) for settle in settles]


@mutant("a retry begins no new attempt", "PAIRING-12")
class _(MemoryBroker):
    async def settle_and_ack(self, settles):
        for settle in settles:
            if settle.nack is not None:
                settle.nack = Nack(settle.handle, settle.nack.delay, settle.handle.deliveries)
        return await super().settle_and_ack(settles)
