"""The memory broker: entries of this process, and the co-located steps with the memory storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar
from uuid import UUID

from qtasks.components.broker import Broker, Colocated, LeaseKeeper
from qtasks.components.delivery import not_started, push_item
from qtasks.components.memory.records import encode_changes, encode_record
from qtasks.components.memory.space import AppState, MemorySpace, wait_first
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
from qtasks.components.rules import timed
from qtasks.schemas import TaskRecord

NO_RECORD = "the storage has no record of this task"


class MemoryLeaseKeeper(LeaseKeeper):
    """Renews leases under the lock of the space."""

    def __init__(self, space: MemorySpace, state: AppState, clock: Callable[[], float]) -> None:
        self._space = space
        self._state = state
        self._clock = clock

    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        with self._space.lock:
            until = self._clock() + lease
            return [self._state.entries.extend(handle, until) for handle in handles]

    def close(self) -> None:
        """There is nothing to close."""


class MemoryBroker(Broker, Colocated):
    """Delivers tasks within one process.

    Parameters:
        space: shared with a storage and a global config; a space of its own if `None`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        notifications=True, streams=True, virtual_clock=True, colocated=True
    )

    def __init__(self, space: MemorySpace | None = None) -> None:
        super().__init__()
        self.space = MemorySpace() if space is None else space

    @property
    def locality(self) -> str:
        return self.space.locality

    @property
    def _state(self) -> AppState:
        return self.space.app(self.app_name)

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """There is nothing to close: the data lives as long as the space."""

    async def push_many(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        state = self._state
        with self.space.lock:
            now = self.clock()
            verdicts = [state.entries.push(item, now) for item in items]
            state.work.wake()
        return verdicts

    async def claim(self, n: int, queues: Sequence[str], owner: str, lease: float) -> list[DeliveryHandle]:
        state = self._state
        with self.space.lock:
            return state.entries.claim(n, queues, owner, lease, self.clock())

    async def extend_many(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        return MemoryLeaseKeeper(self.space, self._state, self.clock).extend(handles, lease)

    async def ack_many(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        state = self._state
        with self.space.lock:
            return [state.entries.ack(handle) for handle in handles]

    async def nack_many(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        state = self._state
        with self.space.lock:
            now = self.clock()
            verdicts = [state.entries.nack(nack, now) for nack in nacks]
            state.work.wake()
        return verdicts

    async def bury_many(self, handles: Sequence[DeliveryHandle], reason: str) -> list[DropVerdict]:
        state = self._state
        with self.space.lock:
            return [state.entries.bury(handle, reason) for handle in handles]

    async def sweep(self, limit: int, max_deliveries: int) -> SweepReport:
        state = self._state
        with self.space.lock:
            report = state.entries.sweep(limit, max_deliveries, self.clock())
            if report.restored:
                state.work.wake()
        return report

    async def audit(self, limit: int) -> list[UUID]:
        """Nothing to repair: an entry and its index change under one lock and die with one process."""
        return []

    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        state = self._state
        with self.space.lock:
            return [state.entries.contains(uuid) for uuid in uuids]

    async def discard_many(self, uuids: Sequence[UUID]) -> None:
        state = self._state
        with self.space.lock:
            state.entries.discard(uuids)

    async def wait_for_work(self, queues: Sequence[str], timeout: float) -> None:
        state = self._state
        with self.space.lock:
            now = self.clock()
            due = state.entries.next_due(queues, now)
            if due is not None:
                timeout = min(timeout, due - now)
            if timeout <= 0:
                return
            future = state.work.register()
        try:
            await wait_first(future, timeout)
        finally:
            with self.space.lock:
                state.work.forget(future)

    async def size(self) -> dict[str, QueueSize]:
        state = self._state
        with self.space.lock:
            return state.entries.size(self.clock())

    async def buried(self, limit: int) -> list[Buried]:
        state = self._state
        with self.space.lock:
            return state.entries.buried(limit)

    async def flush(self) -> None:
        state = self._state
        with self.space.lock:
            state.entries.flush()

    def lease_keeper(self) -> LeaseKeeper:
        return MemoryLeaseKeeper(self.space, self._state, self.clock)

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return self.space.hold_exclusive(self.app_name, owner, ttl, self.clock())

    async def release_exclusive(self, owner: str) -> None:
        self.space.release_exclusive(self.app_name, owner)

    async def add_and_push(self, records: Sequence[TaskRecord], max_queue: int | None) -> list[AddVerdict]:
        encoded = [encode_record(record) for record in records]
        state = self._state
        verdicts: list[AddVerdict] = []
        with self.space.lock:
            now = self.clock()
            for record, json in zip(records, encoded, strict=True):
                verdict = state.records.find(record)
                if verdict is None:
                    if max_queue is not None and state.entries.waiting(record.queue) >= max_queue:
                        verdicts.append(AddVerdict(Added.FULL, record.uuid))
                        continue
                    verdict = state.records.add(record, json)
                verdicts.append(verdict)
                if verdict.kind in (Added.ADDED, Added.SAME):
                    self._push_open(state, record.uuid, now)
            state.work.wake()
        return verdicts

    async def claim_and_start(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        state = self._state
        started: list[tuple[DeliveryHandle, TaskRecord]] = []
        with self.space.lock:
            now = self.clock()
            for handle in state.entries.claim(n, queues, owner, lease, now):
                verdict = state.records.start(handle, now)
                if verdict.record is not None:
                    started.append((handle, verdict.record))
                elif verdict.kind is Start.TERMINAL:
                    state.entries.ack(handle)  # R7
                elif verdict.kind is Start.MISSING and now > handle.available_at + self.config.missing_grace:
                    state.entries.bury(handle, NO_RECORD)
                else:
                    state.entries.nack(not_started(handle, verdict), now)
        return started

    async def settle_and_ack(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        encoded = [
            (encode_changes(settle.changes), [encode_record(record) for record in settle.then])
            for settle in settles
        ]
        state = self._state
        verdicts: list[SettleVerdict] = []
        woken = False
        with self.space.lock:
            now = self.clock()
            for settle, (json, then) in zip(settles, encoded, strict=True):
                verdict = state.records.settle(timed(settle, now), json)
                verdicts.append(verdict)
                if verdict is SettleVerdict.REJECTED:
                    continue  # R6
                if verdict is SettleVerdict.ACCEPTED:
                    for record, record_json in zip(settle.then, then, strict=True):
                        if state.records.add(record, record_json).kind is Added.ADDED:
                            self._push_open(state, record.uuid, now)
                            woken = True
                if settle.nack is not None:
                    state.entries.nack(settle.nack, now)
                    woken = True
                else:
                    state.entries.ack(settle.handle)
            if woken:
                state.work.wake()
            state.announce(settle.handle.uuid for settle in settles)
        return verdicts

    def _push_open(self, state: AppState, uuid: UUID, now: float) -> None:
        record = state.records.peek(uuid)
        if record is not None and not record.status.terminal:
            state.entries.push(push_item(record), now)
