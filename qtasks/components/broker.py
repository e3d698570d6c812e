"""The contract of a broker: it delivers tasks to workers under leases and fencing tokens.

The public methods fire the triggers, once, here; a backend implements the primitives, which fire
nothing. Rules are cited by their numbers in docs/delivery.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from qtasks.components.base import Component
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    DeliveryHandle,
    DropVerdict,
    HoldVerdict,
    Nack,
    PushItem,
    PushVerdict,
    QueueSize,
    Settle,
    SettleVerdict,
    SweepReport,
)
from qtasks.errors import CapabilityError, TaskDefer
from qtasks.schemas import Task, TaskPrioritySchema, TaskRecord, TaskStatusNewSchema, TaskStatusTerminalSchema

if TYPE_CHECKING:
    from qtasks.components.storage import Storage
    from qtasks.components.worker import Worker


class LeaseKeeper(ABC):
    """Renews leases from a thread of its own, so that work on the event loop cannot starve it.

    It is made on the event loop and used by one other thread only; it has its own connection.
    """

    @abstractmethod
    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        """As `Broker.extend_many`, blocking."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection; called from the keeper's thread."""


class BrokerPrimitives(ABC):
    """What a backend implements. None of these fires a trigger."""

    @property
    @abstractmethod
    def locality(self) -> str:
        """Names the store; a storage with the same locality can share an atomic step with it."""

    @abstractmethod
    async def open(self) -> None:
        """Connects and prepares the store. Safe to call again after `close`."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnects. Safe to call twice, and before `open`."""

    @abstractmethod
    async def push_many(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        """Queues entries; idempotent by uuid (an entry that is waiting, delayed, leased or buried stays)."""

    @abstractmethod
    async def claim(self, n: int, queues: Sequence[str], owner: str, lease: float) -> list[DeliveryHandle]:
        """Takes up to `n` due entries of these queues, queue by queue in the order given, each by
        (priority, first in): a new epoch from the app's counter, deliveries + 1, leased for `lease` seconds."""

    @abstractmethod
    async def extend_many(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        """Sets the lease to end `lease` seconds from now, where the token holds (R3)."""

    @abstractmethod
    async def ack_many(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        """Forgets settled entries, where the token holds (R3)."""

    @abstractmethod
    async def nack_many(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        """Puts entries back, where the token holds (R3)."""

    @abstractmethod
    async def bury_many(self, handles: Sequence[DeliveryHandle], reason: str) -> list[DropVerdict]:
        """Takes entries out of delivery, where the token holds (R3); they stay in `buried`."""

    @abstractmethod
    async def sweep(self, limit: int, max_deliveries: int) -> SweepReport:
        """One atomic compare-and-set over expired leases (R8): back to ready and marked restored, or
        buried when `max_deliveries` are used up. The old token loses the entry."""

    @abstractmethod
    async def audit(self, limit: int) -> list[UUID]:
        """Repairs entries that stand in no index; gives their uuids."""

    @abstractmethod
    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        """Whether the broker knows the entries, in any state, buried included."""

    @abstractmethod
    async def discard_many(self, uuids: Sequence[UUID]) -> None:
        """Forgets entries in any state: cancelled before the run, or buried and written."""

    @abstractmethod
    async def wait_for_work(self, queues: Sequence[str], timeout: float) -> None:
        """Returns when work may be there, at the latest after `timeout` seconds: soon where something is due already. A
        hint, no promise. A worker waits here after each claim that gave less than it asked for."""

    @abstractmethod
    async def size(self) -> dict[str, QueueSize]:
        """Entries by queue and state."""

    @abstractmethod
    async def buried(self, limit: int) -> list[Buried]:
        """Burials that are not yet written to the storage (not yet discarded)."""

    @abstractmethod
    async def flush(self) -> None:
        """Forgets all entries of this app, and nothing else (I7). The epoch counter goes on."""

    async def erase(self) -> None:
        """Removes the app from the store for good, its counters too. Only for a name that is never used again:
        with the counters goes the fence against old tokens. `qtasks conformance` leaves nothing behind by it;
        a backend that keeps nothing after `flush` need not override it."""
        await self.flush()

    @abstractmethod
    def lease_keeper(self) -> LeaseKeeper:
        """A keeper with its own connection."""

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        """Takes or renews the app's exclusive id, which frees itself after `ttl` seconds. Asked only of a
        shared component that is paired with one that processes cannot share."""
        raise NotImplementedError(
            f"{type(self).__name__} is declared shared and must implement hold_exclusive"
        )

    async def release_exclusive(self, owner: str) -> None:
        """Gives the exclusive id back, if `owner` has it."""
        raise NotImplementedError(
            f"{type(self).__name__} is declared shared and must implement release_exclusive"
        )

    def in_transaction(self, transaction: Any) -> AbstractContextManager[None]:
        """Tasks that are added inside this block are stored and queued in the caller's own transaction: with its
        commit, or not at all. For brokers with the capability `transactional_enqueue`, paired with their own storage.

        The signals after adding (`broker_add_after`, `qtasks_add_task_after_broker`) fire inside the block, before the
        commit, which is still the caller's.

        Parameters:
            transaction: what the backend takes for one: its client's connection, inside a transaction.

        Raises:
            CapabilityError: the broker does not declare it, or its storage lies elsewhere.
        """
        raise CapabilityError(f"{type(self).__name__} does not declare `transactional_enqueue`")


class Taker(Protocol):
    """Whoever is handed tasks that it did not claim: the worker."""

    @property
    def at_rest(self) -> bool:
        """Whether it has nothing to do, so that what is handed to it begins at once."""

    def take(self, claimed: list[tuple[DeliveryHandle, TaskRecord]]) -> None:
        """Takes tasks that were claimed and started for it, at any moment: it runs them, or gives them back."""


class Colocated(ABC):
    """A broker whose storage lies in the same store: each of these is one atomic step, one round trip.

    They obey the same rules as the two halves one after the other.
    """

    def hand_to(self, taker: Taker) -> None:  # noqa: B027 - optional
        """Says who takes what is handed over. A worker at rest may be handed a new task by the message that would only
        wake it: claimed and started for the owner of its last `claim_and_start`, in the step that adds it. A broker
        that does not do so overrides neither this nor `withdraw`."""

    async def withdraw(self) -> None:  # noqa: B027 - optional
        """Nothing is handed over any more until the next `claim_and_start`; when this returns, the taker has what
        was.

        Raises:
            TransientError: the store does not answer. Nothing comes all the same: what was handed over meanwhile is
                left to its lease.
        """

    @abstractmethod
    async def add_and_push(self, records: Sequence[TaskRecord], max_queue: int | None) -> list[AddVerdict]:
        """`Storage.add_many` and `push_many`; FULL where the queue holds `max_queue` waiting entries."""

    @abstractmethod
    async def claim_and_start(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        """`claim` and `Storage.start_many`. What cannot start is dealt with in the same step, by the
        start verdicts, and left out."""

    @abstractmethod
    async def settle_and_ack(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        """`Storage.settle_many`, the push of `then`, and the ack or nack. A rejected settle changes
        nothing (R6); `already mine` acks or nacks what is still held."""


class Broker(Component, BrokerPrimitives):
    """Delivers tasks. Subclass it and implement the primitives of `BrokerPrimitives`."""

    storage: Storage

    async def start(self, worker: Worker | None = None) -> None:
        """Opens the backend; fires `broker_start`.

        Parameters:
            worker: the worker of this process; `None` in a client.
        """
        await self.open()
        await self.pm.hook.broker_start(broker=self, worker=worker)

    async def stop(self) -> None:
        """Fires `broker_stop`. The connection is closed last, by the starter, through `close`."""
        await self.pm.hook.broker_stop(broker=self)

    async def listen(self, worker: Worker) -> None:
        """Fires `broker_listen_start`, then serves the worker until it stops. One bad message never ends it."""
        await self.pm.hook.broker_listen_start(broker=self, worker=worker)
        await worker.consume()

    async def add(self, uuid: UUID, model: TaskStatusNewSchema) -> TaskStatusNewSchema:
        """What happens to a task on its way into the store: fires `broker_add_before`, then hands it to
        the storage (`storage_add`). The caller stores and queues what comes back, then calls `added`.

        Raises:
            PluginError, TaskControl: a plugin refused; nothing is stored.
            CapabilityError: the task has a priority or a time, which this broker does not declare.
        """
        deferred = 0.0
        try:
            model = await self.pm.hook.broker_add_before(
                broker=self, storage=self.storage, uuid=uuid, model=model
            )
        except TaskDefer as defer:
            model, deferred = defer.values, defer.seconds
        try:
            model = await self.storage.add(uuid, model)
        except TaskDefer as defer:
            model, deferred = defer.values, deferred + defer.seconds
        model = replace(model, available_at=model.available_at + deferred) if deferred else model
        if not (self.capabilities.priorities and self.capabilities.delayed):
            self._refuse_undeclared(model)
        return model

    def _refuse_undeclared(self, model: TaskStatusNewSchema) -> None:
        for capability, asked, instead in (
            ("priorities", model.priority != 0, "leave the priority at 0"),
            ("delayed", model.available_at > self.clock(), "add the task when it is due"),
        ):
            if asked and not getattr(self.capabilities, capability):
                raise CapabilityError(
                    f"{type(self).__name__} does not declare {capability!r}, which task {model.task_name!r} needs "
                    f"(priority {model.priority}, available at {model.available_at}): {instead}, or choose "
                    "another broker"
                )

    def added(self, uuid: UUID, model: TaskStatusNewSchema) -> Coroutine[Any, Any, None]:
        """Fires `broker_add_after` for a task that is stored and queued."""
        return self.pm.hook.broker_add_after(broker=self, storage=self.storage, uuid=uuid, model=model)

    def get(self, uuid: UUID, task: Task) -> Coroutine[Any, Any, Task]:
        """Fires `broker_get` on a task that was read from the storage."""
        return self.pm.hook.broker_get(broker=self, uuid=uuid, task=task)

    def update(self, uuid: UUID, kw: Mapping[str, Any]) -> Coroutine[Any, Any, dict[str, Any]]:
        """Fires `broker_update` and gives the fields as plugins left them."""
        return self.pm.hook.broker_update(broker=self, uuid=uuid, kw=dict(kw))

    def add_worker(
        self, worker: Worker, uuid: UUID, task_name: str, priority: int,
        args: tuple[Any, ...], kw: dict[str, Any], created_at: float,
    ) -> Coroutine[Any, Any, tuple[str, int, tuple[Any, ...], dict[str, Any], float]]:  # fmt: skip
        """Fires `broker_add_worker`: the task is handed to the worker."""
        return self.pm.hook.broker_add_worker(
            broker=self, worker=worker, uuid=uuid, task_name=task_name, priority=priority,
            args=args, kw=kw, created_at=created_at,
        )  # fmt: skip

    def remove_finished_task(
        self, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema
    ) -> Coroutine[Any, Any, TaskStatusTerminalSchema]:
        """Fires `broker_remove_finished_task` and gives the outcome as plugins left it."""
        return self.pm.hook.broker_remove_finished_task(
            broker=self, storage=self.storage, task_broker=task_broker, model=model
        )

    async def running_older_tasks(self, worker: Worker) -> None:
        """Fires `broker_running_older_tasks`: a pass restored something."""
        await self.pm.hook.broker_running_older_tasks(broker=self, worker=worker)

    async def flush_all(self) -> None:
        """Forgets all entries of this app; fires `broker_flush_all`."""
        await self.flush()
        await self.pm.hook.broker_flush_all(broker=self)
