"""Broker and storage as one: the steps of the protocol over any pairing (R1, R2, R6, R7).

Where both lie in the same store, each step is one atomic call (`Colocated`); otherwise it is made
of two, in the order that loses nothing when the process dies between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any

from qtasks._failpoints import hit
from qtasks.components.broker import Broker, Colocated, Taker
from qtasks.components.primitives import (
    Added,
    AddVerdict,
    DeliveryHandle,
    Nack,
    PushItem,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
)
from qtasks.components.storage import Storage
from qtasks.errors import TransientError
from qtasks.schemas import TaskRecord

RETRY_MISSING = 1.0
"""Seconds after which an entry without a record is looked at again."""


def push_item(record: TaskRecord) -> PushItem:
    """The broker's entry for a record; a claim of it gets an epoch above the record's."""
    return PushItem(record.uuid, record.queue, record.priority, record.available_at, record.epoch)


class Delivery(ABC):
    """The steps that move a task; used by the application and the worker."""

    def __init__(self, broker: Broker, storage: Storage) -> None:
        self.broker = broker
        self.storage = storage

    @abstractmethod
    async def add(self, records: Sequence[TaskRecord]) -> list[AddVerdict]:
        """Stores and queues new tasks (R1)."""

    @abstractmethod
    async def claim(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        """Claims and starts up to `n` due tasks; only those that may run come back."""

    @abstractmethod
    async def settle(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        """Ends deliveries: the record first, the entry after it (R2), nothing more if rejected (R6)."""

    def hand_to(self, taker: Taker) -> None:  # noqa: B027 - a split pairing has nothing to do
        """As `Colocated.hand_to`; a split pairing hands nothing over."""

    async def withdraw(self) -> None:  # noqa: B027 - as above
        """As `Colocated.withdraw`."""


class ColocatedDelivery(Delivery):
    """One atomic step each."""

    def __init__(self, broker: Broker, storage: Storage, steps: Colocated) -> None:
        super().__init__(broker, storage)
        self._steps = steps

    def add(self, records: Sequence[TaskRecord]) -> Coroutine[Any, Any, list[AddVerdict]]:
        return self._steps.add_and_push(records, self.broker.config.max_queue)

    def claim(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> Coroutine[Any, Any, list[tuple[DeliveryHandle, TaskRecord]]]:
        return self._steps.claim_and_start(n, queues, owner, lease)

    def settle(self, settles: Sequence[Settle]) -> Coroutine[Any, Any, list[SettleVerdict]]:
        return self._steps.settle_and_ack(settles)

    def hand_to(self, taker: Taker) -> None:
        self._steps.hand_to(taker)

    async def withdraw(self) -> None:
        await self._steps.withdraw()


class SplitDelivery(Delivery):
    """Two steps each, in the safe order; the reconciler finishes what a crash leaves between them."""

    async def add(self, records: Sequence[TaskRecord]) -> list[AddVerdict]:
        verdicts: list[AddVerdict | None] = [None] * len(records)
        allowed = list(range(len(records)))
        if self.broker.config.max_queue is not None:
            allowed = await self._below_cap(records, self.broker.config.max_queue, verdicts)
        added = await self.storage.add_many([records[i] for i in allowed])
        for i, verdict in zip(allowed, added, strict=True):
            verdicts[i] = verdict
        hit("delivery.stored_not_pushed")
        # SAME is pushed again: the first try may have died between the two steps.
        await self.broker.push_many(
            [
                push_item(records[i])
                for i, verdict in zip(allowed, added, strict=True)
                if verdict.kind in (Added.ADDED, Added.SAME)
            ]
        )
        return [verdict for verdict in verdicts if verdict is not None]

    async def _below_cap(
        self, records: Sequence[TaskRecord], cap: int, verdicts: list[AddVerdict | None]
    ) -> list[int]:
        room = {name: cap - size.ready - size.delayed for name, size in (await self.broker.size()).items()}
        allowed = []
        for i, record in enumerate(records):
            left = room.get(record.queue, cap)
            if left > 0:
                room[record.queue] = left - 1
                allowed.append(i)
            else:
                verdicts[i] = AddVerdict(Added.FULL, record.uuid)
        return allowed

    async def claim(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        handles = await self.broker.claim(n, queues, owner, lease)
        if not handles:
            return []
        hit("delivery.claimed_not_started")
        started: list[tuple[DeliveryHandle, TaskRecord]] = []
        acks: list[DeliveryHandle] = []
        nacks: list[Nack] = []
        overdue: list[DeliveryHandle] = []
        for handle, verdict in zip(handles, await self._start(handles), strict=True):
            if verdict.kind is Start.STARTED and verdict.record is not None:
                started.append((handle, verdict.record))
            elif verdict.kind is Start.TERMINAL:
                acks.append(handle)  # R7
            elif verdict.kind is Start.MISSING and self._overdue(handle):
                overdue.append(handle)
            else:
                nacks.append(not_started(handle, verdict))
        if acks:
            await self.broker.ack_many(acks)
        if nacks:
            await self.broker.nack_many(nacks)
        if overdue:
            await self.broker.bury_many(overdue, "the storage has no record of this task")
        return started

    async def _start(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        try:
            return await self.storage.start_many(handles)
        except TransientError:
            # The storage is away: what was claimed is given back, its delivery returned.
            await self.broker.nack_many(
                [Nack(handle, RETRY_MISSING, handle.deliveries - 1) for handle in handles]
            )
            raise

    def _overdue(self, handle: DeliveryHandle) -> bool:
        return self.broker.clock() > handle.available_at + self.broker.config.missing_grace

    async def settle(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        verdicts = await self.storage.settle_many(settles)
        hit("delivery.settled_not_acked")
        acks: list[DeliveryHandle] = []
        nacks: list[Nack] = []
        pushes: list[PushItem] = []
        for settle, verdict in zip(settles, verdicts, strict=True):
            if verdict is SettleVerdict.REJECTED:
                continue  # R6
            pushes.extend(push_item(record) for record in settle.then)
            if settle.nack is not None:
                nacks.append(settle.nack)
            else:
                acks.append(settle.handle)
        if pushes:
            await self.broker.push_many(pushes)
        if acks:
            await self.broker.ack_many(acks)
        if nacks:
            await self.broker.nack_many(nacks)
        return verdicts


def not_started(handle: DeliveryHandle, verdict: StartVerdict) -> Nack:
    """How an entry goes back that could not start: its delivery is returned."""
    delay = verdict.delay if verdict.kind is Start.NOT_DUE else RETRY_MISSING
    if verdict.kind is Start.CONFLICT:
        delay = 0.0
    return Nack(handle, delay, handle.deliveries - 1, verdict.epoch)


def delivery_of(broker: Broker, storage: Storage) -> Delivery:
    """The steps for this pairing."""
    declared = broker.capabilities.colocated
    if declared and isinstance(broker, Colocated) and broker.locality == storage.locality:
        return ColocatedDelivery(broker, storage, broker)
    return SplitDelivery(broker, storage)
