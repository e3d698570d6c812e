"""The values that cross the primitives of a backend: handles, items, verdicts (DELIVERY.md's tables).

Every primitive takes a batch and gives one verdict per item, in the same order; it raises only
`TransientError` (the whole call may be made again) or `FatalError` (the process stops).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from qtasks.schemas import TaskRecord


class DeliveryHandle(NamedTuple):
    """One delivery of a task. It is frozen: no plugin replacement can reach it (R9).

    Attributes:
        uuid: the task.
        epoch, owner: the token; only its holder changes the entry (R3).
        deliveries: claims of this attempt, this one included.
        restored: whether the entry came back from a lost worker.
        queue, priority: where the entry waits.
        available_at: when it was due, Unix seconds.
    """

    uuid: UUID
    epoch: int
    owner: str
    deliveries: int
    restored: bool
    queue: str
    priority: int
    available_at: float


class PushItem(NamedTuple):
    """An entry to be pushed. A claim of it gets an epoch above `min_epoch`."""

    uuid: UUID
    queue: str = "default"
    priority: int = 0
    available_at: float = 0.0
    min_epoch: int = 0


class PushVerdict(Enum):
    """Of `push_many`."""

    PUSHED = "pushed"
    ALREADY_THERE = "already there"


class HoldVerdict(Enum):
    """Of `extend_many`: whether the token still holds the entry."""

    HELD = "held"
    LOST = "lost"


class DropVerdict(Enum):
    """Of `ack_many`, `nack_many` and `bury_many`."""

    DONE = "done"
    LOST = "lost"


class Nack(NamedTuple):
    """Puts an entry back with its original priority.

    Attributes:
        handle: the delivery that ends.
        delay: seconds until it is due again.
        deliveries: the count that the entry goes on with: `handle.deliveries` counts this delivery,
            one less returns it, 0 begins a new attempt.
        min_epoch: the next claim gets an epoch above this.
    """

    handle: DeliveryHandle
    delay: float = 0.0
    deliveries: int = 0
    min_epoch: int = 0


class Buried(NamedTuple):
    """An entry taken out of delivery, whose end the storage has still to write."""

    uuid: UUID
    epoch: int
    reason: str


class SweepReport(NamedTuple):
    """What one sweep did with the entries whose lease had run out."""

    restored: list[UUID]
    buried: list[Buried]


class QueueSize(NamedTuple):
    """Entries of one queue by state."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0


class Added(Enum):
    """Of `add_many`."""

    ADDED = "added"
    SAME = "same"
    CONFLICT = "conflict"
    EXISTS = "exists"
    FULL = "full"


class AddVerdict(NamedTuple):
    """What became of one record. `uuid` is the record that stands: with EXISTS, another one's."""

    kind: Added
    uuid: UUID


class Start(Enum):
    """Of `start_many`, by R4, R5 and the record's `available_at`."""

    STARTED = "started"
    TERMINAL = "terminal"
    MISSING = "missing"
    CONFLICT = "conflict"
    NOT_DUE = "not due"


class StartVerdict(NamedTuple):
    """Whether a claimed task may run.

    Attributes:
        record: with STARTED, the record as it is now.
        epoch: with CONFLICT, the stored epoch.
        delay: with NOT_DUE, seconds until it is due.
    """

    kind: Start
    record: TaskRecord | None = None
    epoch: int = 0
    delay: float = 0.0


class Outcome(StrEnum):
    """How a delivery ends. RETRY and RELEASE go back to NEW; the others are terminal."""

    SUCCESS = "success"
    ERROR = "error"
    CANCEL = "cancel"
    RETRY = "retry"
    RELEASE = "release"

    @property
    def terminal(self) -> bool:
        """Whether the record is final after it."""
        return self in _TERMINAL


_TERMINAL = frozenset({Outcome.SUCCESS, Outcome.ERROR, Outcome.CANCEL})


@dataclass(slots=True)
class Settle:
    """The end of one delivery.

    Attributes:
        handle: the delivery; its token must hold the record (R4).
        outcome: how it ends.
        changes: fields of the record with their new values; always `status` and `updated_at`. One that puts the
            task back and names no `available_at` is due after `nack.delay`, by the storage's own clock: the worker's
            may be wrong.
        then: records that are added in the same step, if the settle is accepted.
        nack: for RETRY and RELEASE, how the entry goes back.
    """

    handle: DeliveryHandle
    outcome: Outcome
    changes: dict[str, Any]
    then: tuple[TaskRecord, ...] = ()
    nack: Nack | None = None


class SettleVerdict(Enum):
    """Of `settle_many`. ALREADY_MINE: this very token settled it before (its reply was lost)."""

    ACCEPTED = "accepted"
    ALREADY_MINE = "already mine"
    REJECTED = "rejected"


class CancelVerdict(Enum):
    """Of `cancel_many`."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"
    TERMINAL = "terminal"
    MISSING = "missing"


@dataclass(slots=True)
class Update:
    """Fields of a record to be changed; never `uuid`, `status`, `epoch` or `owner`."""

    uuid: UUID
    changes: dict[str, Any] = field(default_factory=dict)


FENCED_FIELDS = frozenset({"uuid", "status", "epoch", "owner"})
"""What `update_many` never touches."""


class Page(NamedTuple):
    """One page of a scan. `cursor` asks for the next page; `None` when this is the last."""

    records: list[TaskRecord]
    cursor: str | None


class Versioned(NamedTuple):
    """A value of the global config with its version, for compare-and-set."""

    value: Any
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a component promises beyond the contract. The conformance kit holds it to them.

    Attributes:
        durable: acknowledged data outlives the process.
        shared: several processes see the same data.
        fsync: `durability="fsync"` is honoured.
        replica: `durability="replica"` is honoured.
        notifications: a waiting client or worker is told, without polling.
        streams: the items of a generator can be read while it runs.
        priorities: entries are given out by priority. Part of the contract unless a broker says False: it then
            refuses a priority other than 0.
        delayed: a task can be added for a later time. Part of the contract unless a broker says False: it then
            refuses such a task. The delays of a retry and of a release every broker has.
        colocated: shares atomic steps with the other component of the same `locality` (`Colocated`).
        transactional_enqueue: tasks can be added in the caller's own transaction.
        virtual_clock: every time that it writes or compares comes from its attribute `clock`, also in its
            lease keeper, so that tests may move it. Where the store has a clock of its own (a server's),
            leave it False: the conformance kit then works with short real times and polls for the event.
    """

    durable: bool = False
    shared: bool = False
    fsync: bool = False
    replica: bool = False
    notifications: bool = False
    streams: bool = False
    priorities: bool = True
    delayed: bool = True
    colocated: bool = False
    transactional_enqueue: bool = False
    virtual_clock: bool = False
