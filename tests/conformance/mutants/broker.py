"""Faults of the memory broker, each with the check that must see it."""

from __future__ import annotations

from dataclasses import replace

from qtasks.components.memory import MemoryBroker, MemorySpace
from qtasks.components.memory.broker import MemoryLeaseKeeper
from qtasks.components.memory.entries import Entries, State
from qtasks.components.primitives import (
    DropVerdict,
    HoldVerdict,
    PushVerdict,
)
from tests.conformance.mutants.table import mutant

# --- Broker: tokens and leases -----------------------------------------------------------------------


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


# --- Broker: order, delays, idempotence --------------------------------------------------------------


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


# --- Broker: triggers --------------------------------------------------------------------------------


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


# --- Broker: what is declared ------------------------------------------------------------------------


@mutant("claims a queue without case", "BROKER-35")
class _(MemoryBroker):
    async def push_many(self, items):
        return await super().push_many([item._replace(queue=item.queue.lower()) for item in items])


@mutant("keeps epochs in 32 bits", "BROKER-36")
class _(MemoryBroker):
    async def push_many(self, items):
        return await super().push_many([item._replace(min_epoch=item.min_epoch % 2**32) for item in items])


@mutant("does not declare its atomic steps", "BROKER-79")
class _(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, colocated=False)


@mutant("takes a defer for a refusal", "BROKER-90")
class _(MemoryBroker):
    async def add(self, uuid, model):
        model = await self.pm.hook.broker_add_before(
            broker=self, storage=self.storage, uuid=uuid, model=model
        )
        return await self.storage.add(uuid, model)


@mutant("takes a priority that it has not", "BROKER-91")
class _(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, priorities=False)

    def _refuse_undeclared(self, model):
        return


@mutant("takes a delay that it has not", "BROKER-92")
class _(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, delayed=False)

    def _refuse_undeclared(self, model):
        return
