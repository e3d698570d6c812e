"""The contract of a storage: it keeps the records of tasks, and is the truth about their status.

The public methods fire the triggers, once, here; a backend implements the primitives, which fire
nothing. Rules are cited by their numbers in docs/delivery.md.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qtasks.components.base import Component
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    CancelVerdict,
    DeliveryHandle,
    Page,
    Settle,
    SettleVerdict,
    StartVerdict,
    Update,
)
from qtasks.errors import CapabilityError
from qtasks.schemas import Task, TaskPrioritySchema, TaskRecord, TaskStatusNewSchema, TaskStatusTerminalSchema

if TYPE_CHECKING:
    from qtasks.components.worker import Worker

POLL_FIRST, POLL_LONGEST = 0.002, 0.1


class StoragePrimitives(ABC):
    """What a backend implements. None of these fires a trigger."""

    clock: Any

    @property
    @abstractmethod
    def locality(self) -> str:
        """Names the store; a broker with the same locality can share an atomic step with it."""

    @abstractmethod
    async def open(self) -> None:
        """Connects and prepares the store. Safe to call again after `close`."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnects. Safe to call twice, and before `open`."""

    @abstractmethod
    async def add_many(self, records: Sequence[TaskRecord]) -> list[AddVerdict]:
        """Writes new records; idempotent by uuid: SAME where the stored digest is equal, CONFLICT where
        it is not; EXISTS with the other's uuid where an open record has the same `unique_key`."""

    @abstractmethod
    async def start_many(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        """NEW → PROCESS under R4: the epoch must be higher than the stored one, or the token the same while
        PROCESS. A PROCESS record of a lower epoch is taken over. Sets `started_at`, `updated_at`, `deliveries`."""

    @abstractmethod
    async def settle_many(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        """Applies `changes` where the record is PROCESS under the same token, and adds `then` with it.
        ALREADY_MINE where the stored token is the same and the record is no longer PROCESS."""

    @abstractmethod
    async def bury_many(self, buried: Sequence[Buried], *, expires_at: float) -> list[bool]:
        """ERROR, dead, with the reason as traceback, where the record is open and its epoch is not above the
        buried one. The owner is cleared, so that a late settle of that token is rejected."""

    @abstractmethod
    async def cancel_many(
        self, uuids: Sequence[UUID], reason: str, *, expires_at: float
    ) -> list[CancelVerdict]:
        """NEW → CANCEL (and the owner cleared); PROCESS gets `cancel_requested`, and `cancel_reason`."""

    @abstractmethod
    async def cancel_requested_many(self, uuids: Sequence[UUID]) -> list[bool]:
        """Whether somebody asked to cancel these running tasks."""

    @abstractmethod
    async def update_many(self, updates: Sequence[Update]) -> list[bool]:
        """Changes fields of open records; never `uuid`, `status`, `epoch` or `owner`. False where there is
        no open record."""

    @abstractmethod
    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        """The records, `None` where there is none."""

    @abstractmethod
    async def scan(self, cursor: str | None, limit: int) -> Page:
        """All records, newest first, in pages. A record that stays during the scan appears exactly once."""

    @abstractmethod
    async def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        """Open records (NEW, PROCESS) created before a time (Unix seconds), in pages."""

    @abstractmethod
    async def scan_dead(self, cursor: str | None, limit: int) -> Page:
        """Dead records, newest first, in pages."""

    @abstractmethod
    async def delete_many(self, uuids: Sequence[UUID]) -> list[bool]:
        """Deletes terminal records (with their items); False where there is none."""

    @abstractmethod
    async def purge(self, before: float, dead_max: int) -> int:
        """Deletes terminal records with `expires_at` before a time (Unix seconds), and the oldest dead ones
        above `dead_max`; gives how many."""

    @abstractmethod
    async def counts(self) -> dict[str, int]:
        """Records by status, with the key `dead` for those of the dead set."""

    @abstractmethod
    async def flush(self) -> None:
        """Deletes all records of this app, and nothing else (I7)."""

    async def erase(self) -> None:
        """As `Broker.erase`: removes the app for good, its counters too."""
        await self.flush()

    @abstractmethod
    async def get_settled(self, uuid: UUID) -> TaskRecord | None:
        """The record if it is terminal. Raises `LookupError` where there is no record."""

    async def wait_settled(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        """The terminal record, `None` after `timeout` seconds. Polls; a backend with the capability
        `notifications` is told instead. Raises `LookupError` where there is no record (any more)."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        pause = POLL_FIRST
        while (record := await self.get_settled(uuid)) is None:
            if deadline is not None:
                left = deadline - loop.time()
                if left <= 0:
                    return None
                pause = min(pause, left)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_LONGEST)
        return record

    async def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[Any]) -> bool:
        """Appends items of a running generator at `index`, under the token; idempotent by index.
        False where the token does not hold the record."""
        raise CapabilityError(f"{type(self).__name__} does not declare `streams`")

    async def read_items(self, uuid: UUID, start: int, limit: int) -> list[Any]:
        """Items of a generator from `start` on."""
        raise CapabilityError(f"{type(self).__name__} does not declare `streams`")

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        """As `Broker.hold_exclusive`."""
        raise NotImplementedError(
            f"{type(self).__name__} is declared shared and must implement hold_exclusive"
        )

    async def release_exclusive(self, owner: str) -> None:
        """As `Broker.release_exclusive`."""
        raise NotImplementedError(
            f"{type(self).__name__} is declared shared and must implement release_exclusive"
        )


class Storage(Component, StoragePrimitives):
    """Keeps records. Subclass it and implement the primitives of `StoragePrimitives`."""

    async def start(self) -> None:
        """Opens the backend; fires `storage_start`.

        Raises:
            CapabilityError: `config.durability` asks for what this storage does not declare.
        """
        durability = self.config.durability
        if durability != "none" and not getattr(self.capabilities, durability):
            raise CapabilityError(
                f"{type(self).__name__} does not declare {durability!r}, which durability={durability!r} needs. "
                "Choose another storage, or durability='none'"
            )
        await self.open()
        await self.pm.hook.storage_start(storage=self)

    async def stop(self) -> None:
        """Fires `storage_stop`. The connection is closed last, by the starter, through `close`."""
        await self.pm.hook.storage_stop(storage=self)

    def add(self, uuid: UUID, model: TaskStatusNewSchema) -> Coroutine[Any, Any, TaskStatusNewSchema]:
        """Fires `storage_add` and gives what is to be stored."""
        return self.pm.hook.storage_add(storage=self, uuid=uuid, task_status=model)

    def get(self, uuid: UUID, task: Task) -> Coroutine[Any, Any, Task]:
        """Fires `storage_get` on a task as it was read."""
        return self.pm.hook.storage_get(storage=self, uuid=uuid, result=task)

    async def get_all(self, tasks: list[Task]) -> list[Task]:
        """Fires `storage_get_all` on one page of tasks as they were read."""
        return await self.pm.hook.storage_get_all(storage=self, results=tasks)

    def update(self, uuid: UUID, kw: Mapping[str, Any]) -> Coroutine[Any, Any, dict[str, Any]]:
        """Fires `storage_update` and gives the fields as plugins left them."""
        return self.pm.hook.storage_update(storage=self, uuid=uuid, kw=dict(kw))

    def add_process(self, uuid: UUID, task_name: str, priority: int) -> Coroutine[Any, Any, tuple[str, int]]:
        """Fires `storage_add_process`: the task is now in process."""
        return self.pm.hook.storage_add_process(
            storage=self, uuid=uuid, task_name=task_name, priority=priority
        )

    def running_older_tasks(
        self, worker: Worker, uuid: UUID, task_name: str, priority: int,
        args: tuple[Any, ...], kw: dict[str, Any], created_at: float,
    ) -> Coroutine[Any, Any, tuple[str, int, tuple[Any, ...], dict[str, Any], float]]:  # fmt: skip
        """Fires `storage_running_older_tasks`: a task that came back from a lost worker is run again."""
        return self.pm.hook.storage_running_older_tasks(
            storage=self, worker=worker, uuid=uuid, task_name=task_name, priority=priority,
            args=args, kw=kw, created_at=created_at,
        )  # fmt: skip

    def remove_finished_task(
        self, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema
    ) -> Coroutine[Any, Any, None]:
        """Fires `storage_remove_finished_task`: the outcome is stored."""
        return self.pm.hook.storage_remove_finished_task(storage=self, task_broker=task_broker, model=model)

    async def delete_finished_tasks(self) -> int:
        """Deletes finished records whose time is over; fires `storage_delete_finished_tasks`."""
        deleted = await self.purge(self.clock(), self.config.dead_max)
        await self.pm.hook.storage_delete_finished_tasks(storage=self)
        return deleted

    async def flush_all(self) -> None:
        """Deletes all records of this app; fires `storage_flush_all`."""
        await self.flush()
        await self.pm.hook.storage_flush_all(storage=self)
