"""The broker's half of the memory backend: entries in heaps, under tokens (rules R3, R8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from heapq import heapify, heappop, heappush
from uuid import UUID

from qtasks.components.primitives import (
    Buried,
    DeliveryHandle,
    DropVerdict,
    HoldVerdict,
    Nack,
    PushItem,
    PushVerdict,
    QueueSize,
    SweepReport,
)

_COMPACT_FROM = 1000


class State(Enum):
    """Where an entry stands."""

    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    BURIED = "buried"
    GONE = "gone"


class Entry:
    """One task as the broker knows it. `due_at` moves with a nack; `available_at` is as pushed."""

    __slots__ = (
        "available_at", "deliveries", "due_at", "epoch", "lease_until", "owner", "priority",
        "queue", "reason", "restored", "seq", "state", "ticket", "uuid",
    )  # fmt: skip

    def __init__(self, item: PushItem, seq: int) -> None:
        self.uuid, self.queue, self.priority, self.available_at, _ = item
        self.due_at = item.available_at
        self.seq = seq
        self.state = State.READY
        self.epoch = 0
        self.owner = ""
        self.deliveries = 0
        self.restored = False
        self.lease_until = 0.0
        self.reason = ""
        self.ticket = 0


class Entries:
    """All entries of one app. The caller holds the lock of the space."""

    def __init__(self) -> None:
        self.epoch = 0
        self._seq = 0
        self._ticket = 0
        self._all: dict[UUID, Entry] = {}
        self._leased: dict[UUID, Entry] = {}
        self._buried: dict[UUID, Entry] = {}
        self._waiting: dict[str, int] = {}
        # Heap items carry the ticket of their enqueueing: one whose entry has moved on is stale
        # and skipped, since taking it out of the middle of a heap would cost more.
        self._ready: dict[str, list[tuple[int, int, int, Entry]]] = {}
        self._delayed: list[tuple[float, int, Entry]] = []
        self._stale = 0

    def push(self, item: PushItem, now: float) -> PushVerdict:
        """Queues an entry unless it is there."""
        if item.uuid in self._all:
            return PushVerdict.ALREADY_THERE
        self.epoch = max(self.epoch, item.min_epoch)
        self._seq += 1
        entry = self._all[item.uuid] = Entry(item, self._seq)
        self._enqueue(entry, now)
        return PushVerdict.PUSHED

    def claim(
        self, n: int, queues: Sequence[str], owner: str, lease: float, now: float
    ) -> list[DeliveryHandle]:
        """As `Broker.claim`."""
        self._promote(now)
        handles: list[DeliveryHandle] = []
        until = now + lease
        for queue in queues:
            heap = self._ready.get(queue)
            while heap and len(handles) < n:
                _, _, ticket, entry = heappop(heap)
                if entry.ticket != ticket or entry.state is not State.READY:
                    self._stale -= 1
                    continue
                self.epoch += 1
                entry.epoch, entry.owner, entry.lease_until = self.epoch, owner, until
                entry.deliveries += 1
                entry.state = State.LEASED
                self._leased[entry.uuid] = entry
                self._waiting[queue] -= 1
                handles.append(
                    DeliveryHandle(
                        entry.uuid, entry.epoch, owner, entry.deliveries, entry.restored,
                        queue, entry.priority, entry.available_at,
                    )
                )  # fmt: skip
                entry.restored = False
        return handles

    def extend(self, handle: DeliveryHandle, until: float) -> HoldVerdict:
        """Moves the end of a lease that is held."""
        entry = self._held(handle)
        if entry is None:
            return HoldVerdict.LOST
        entry.lease_until = until
        return HoldVerdict.HELD

    def ack(self, handle: DeliveryHandle) -> DropVerdict:
        """Forgets an entry that is held."""
        if self._held(handle) is None:
            return DropVerdict.LOST
        self._forget(handle.uuid)
        return DropVerdict.DONE

    def nack(self, nack: Nack, now: float) -> DropVerdict:
        """Puts an entry back that is held."""
        entry = self._held(nack.handle)
        if entry is None:
            return DropVerdict.LOST
        self.epoch = max(self.epoch, nack.min_epoch)
        del self._leased[entry.uuid]
        entry.deliveries = nack.deliveries
        entry.owner = ""
        entry.due_at = now + nack.delay
        self._enqueue(entry, now)
        return DropVerdict.DONE

    def bury(self, handle: DeliveryHandle, reason: str) -> DropVerdict:
        """Takes an entry that is held out of delivery."""
        entry = self._held(handle)
        if entry is None:
            return DropVerdict.LOST
        self._bury(entry, reason)
        return DropVerdict.DONE

    def sweep(self, limit: int, max_deliveries: int, now: float) -> SweepReport:
        """As `Broker.sweep`."""
        report = SweepReport([], [])
        lost = [entry for entry in self._leased.values() if entry.lease_until <= now]
        for entry in lost[:limit]:
            if entry.deliveries >= max_deliveries:
                reason = f"the worker was lost {entry.deliveries} times while it ran this task"
                self._bury(entry, reason)
                report.buried.append(Buried(entry.uuid, entry.epoch, reason))
            else:
                del self._leased[entry.uuid]
                entry.owner = ""
                entry.restored = True
                entry.due_at = now
                self._enqueue(entry, now)
                report.restored.append(entry.uuid)
        return report

    def contains(self, uuid: UUID) -> bool:
        """Whether the entry is known in any state."""
        return uuid in self._all

    def discard(self, uuids: Iterable[UUID]) -> None:
        """Forgets entries in any state."""
        for uuid in uuids:
            if uuid in self._all:
                self._forget(uuid)
        if self._stale > _COMPACT_FROM and self._stale * 2 > len(self._delayed) + sum(
            map(len, self._ready.values())
        ):
            self._compact()

    def buried(self, limit: int) -> list[Buried]:
        """As `Broker.buried`."""
        entries = list(self._buried.values())[:limit]
        return [Buried(entry.uuid, entry.epoch, entry.reason) for entry in entries]

    def waiting(self, queue: str) -> int:
        """Entries of a queue that are ready or delayed."""
        return self._waiting.get(queue, 0)

    def size(self, now: float) -> dict[str, QueueSize]:
        """As `Broker.size`."""
        self._promote(now)
        delayed: dict[str, int] = {}
        leased: dict[str, int] = {}
        for due_at, ticket, entry in self._delayed:
            if entry.ticket == ticket and entry.state is State.DELAYED and due_at > now:
                delayed[entry.queue] = delayed.get(entry.queue, 0) + 1
        for entry in self._leased.values():
            leased[entry.queue] = leased.get(entry.queue, 0) + 1
        return {
            queue: QueueSize(
                self._waiting.get(queue, 0) - delayed.get(queue, 0),
                delayed.get(queue, 0),
                leased.get(queue, 0),
            )
            for queue in sorted({queue for queue, n in self._waiting.items() if n} | leased.keys())
        }

    def next_due(self, queues: Sequence[str], now: float) -> float | None:
        """When the next entry of these queues is due; `None` if none waits."""
        self._promote(now)
        for queue in queues:
            heap = self._ready.get(queue)
            while heap:
                _, _, ticket, entry = heap[0]
                if entry.ticket == ticket and entry.state is State.READY:
                    return now
                heappop(heap)
                self._stale -= 1
        # The first delayed entry may be of another queue; then the caller looks again too early,
        # which is harmless.
        return self._delayed[0][0] if self._delayed else None

    def flush(self) -> None:
        """Forgets everything but the epoch counter."""
        epoch = self.epoch
        self.__init__()  # type: ignore[misc]
        self.epoch = epoch

    def _enqueue(self, entry: Entry, now: float) -> None:
        self._waiting[entry.queue] = self._waiting.get(entry.queue, 0) + 1
        self._place(entry, now)

    def _place(self, entry: Entry, now: float) -> None:
        self._ticket += 1
        entry.ticket = self._ticket
        if entry.due_at > now:
            entry.state = State.DELAYED
            heappush(self._delayed, (entry.due_at, entry.ticket, entry))
        else:
            entry.state = State.READY
            heap = self._ready.setdefault(entry.queue, [])
            heappush(heap, (entry.priority, entry.seq, entry.ticket, entry))

    def _promote(self, now: float) -> None:
        delayed = self._delayed
        while delayed and delayed[0][0] <= now:
            _, ticket, entry = heappop(delayed)
            if entry.ticket == ticket and entry.state is State.DELAYED:
                self._place(entry, now)
            else:
                self._stale -= 1

    def _held(self, handle: DeliveryHandle) -> Entry | None:
        entry = self._leased.get(handle.uuid)
        if entry is None or entry.epoch != handle.epoch or entry.owner != handle.owner:
            return None
        return entry

    def _bury(self, entry: Entry, reason: str) -> None:
        del self._leased[entry.uuid]
        entry.state = State.BURIED
        entry.owner = ""
        entry.reason = reason
        self._buried[entry.uuid] = entry

    def _forget(self, uuid: UUID) -> None:
        entry = self._all.pop(uuid)
        self._leased.pop(uuid, None)
        self._buried.pop(uuid, None)
        if entry.state in (State.READY, State.DELAYED):
            self._waiting[entry.queue] -= 1
            self._stale += 1
        entry.state = State.GONE

    def _compact(self) -> None:
        self._delayed = [item for item in self._delayed if item[2].state is State.DELAYED]
        heapify(self._delayed)
        for queue, heap in self._ready.items():
            kept = [item for item in heap if item[3].state is State.READY and item[3].ticket == item[2]]
            heapify(kept)
            self._ready[queue] = kept
        self._stale = 0
