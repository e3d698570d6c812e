"""Faults of the atomic steps of the memory backend, each with the check that must see it."""

from __future__ import annotations

from qtasks.components.memory import MemoryBroker
from qtasks.components.memory.entries import Entries
from qtasks.components.primitives import (
    DropVerdict,
    Nack,
    SettleVerdict,
)
from qtasks.schemas import TaskStatusEnum
from tests.conformance.mutants.table import mutant


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
