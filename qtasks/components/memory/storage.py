"""The memory storage: the records of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from qtasks.codec import decode, encode
from qtasks.components.memory.records import encode_changes, encode_record
from qtasks.components.memory.space import AppState, MemorySpace, Waiters, wait_first
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    CancelVerdict,
    Capabilities,
    DeliveryHandle,
    Page,
    Settle,
    SettleVerdict,
    StartVerdict,
    Update,
)
from qtasks.components.rules import timed
from qtasks.components.storage import Storage
from qtasks.schemas import TaskRecord


class MemoryStorage(Storage):
    """Keeps records within one process.

    Parameters:
        space: shared with a broker and a global config; a space of its own if `None`.
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

    async def add_many(self, records: Sequence[TaskRecord]) -> list[AddVerdict]:
        encoded = [encode_record(record) for record in records]
        state = self._state
        with self.space.lock:
            return [state.records.add(record, json) for record, json in zip(records, encoded, strict=True)]

    async def start_many(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        state = self._state
        with self.space.lock:
            now = self.clock()
            return [state.records.start(handle, now) for handle in handles]

    async def settle_many(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        encoded = [
            (encode_changes(settle.changes), [encode_record(record) for record in settle.then])
            for settle in settles
        ]
        state = self._state
        verdicts: list[SettleVerdict] = []
        with self.space.lock:
            now = self.clock()
            for settle, (json, then) in zip(settles, encoded, strict=True):
                verdict = state.records.settle(timed(settle, now), json)
                verdicts.append(verdict)
                if verdict is SettleVerdict.ACCEPTED:
                    for record, record_json in zip(settle.then, then, strict=True):
                        state.records.add(record, record_json)
            state.announce(settle.handle.uuid for settle in settles)
        return verdicts

    async def bury_many(self, buried: Sequence[Buried], *, expires_at: float) -> list[bool]:
        state = self._state
        with self.space.lock:
            now = self.clock()
            done = [state.records.bury(item, now, expires_at) for item in buried]
            state.announce(item.uuid for item in buried)
        return done

    async def cancel_many(
        self, uuids: Sequence[UUID], reason: str, *, expires_at: float
    ) -> list[CancelVerdict]:
        state = self._state
        with self.space.lock:
            now = self.clock()
            verdicts = [state.records.cancel(uuid, reason, now, expires_at) for uuid in uuids]
            state.announce(uuids)
        return verdicts

    async def cancel_requested_many(self, uuids: Sequence[UUID]) -> list[bool]:
        state = self._state
        with self.space.lock:
            records = [state.records.peek(uuid) for uuid in uuids]
            return [record is not None and record.cancel_requested for record in records]

    async def update_many(self, updates: Sequence[Update]) -> list[bool]:
        encoded = [encode_changes(update.changes) for update in updates]
        state = self._state
        with self.space.lock:
            return [
                state.records.update(update.uuid, update.changes, json)
                for update, json in zip(updates, encoded, strict=True)
            ]

    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        state = self._state
        with self.space.lock:
            return [state.records.get(uuid) for uuid in uuids]

    async def scan(self, cursor: str | None, limit: int) -> Page:
        state = self._state
        with self.space.lock:
            return state.records.scan(cursor, limit)

    async def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        state = self._state
        with self.space.lock:
            return state.records.scan_open(cursor, limit, created_before)

    async def scan_dead(self, cursor: str | None, limit: int) -> Page:
        state = self._state
        with self.space.lock:
            return state.records.scan_dead(cursor, limit)

    async def delete_many(self, uuids: Sequence[UUID]) -> list[bool]:
        state = self._state
        with self.space.lock:
            done = [state.records.delete(uuid) for uuid in uuids]
            state.announce(uuids)
        return done

    async def purge(self, before: float, dead_max: int) -> int:
        state = self._state
        with self.space.lock:
            return state.records.purge(before, dead_max)

    async def counts(self) -> dict[str, int]:
        state = self._state
        with self.space.lock:
            return state.records.counts()

    async def flush(self) -> None:
        state = self._state
        with self.space.lock:
            state.records.flush()
            state.announce(list(state.settled))

    async def get_settled(self, uuid: UUID) -> TaskRecord | None:
        state = self._state
        with self.space.lock:
            return self._settled(state, uuid)

    async def wait_settled(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        state = self._state
        while True:
            with self.space.lock:
                record = self._settled(state, uuid)
                left = None if deadline is None else deadline - loop.time()
                if record is not None or (left is not None and left <= 0):
                    return record
                waiters = state.settled.setdefault(uuid, Waiters())
                future = waiters.register()
            try:
                await wait_first(future, left)
            finally:
                with self.space.lock:
                    waiters.forget(future)
                    if not waiters and state.settled.get(uuid) is waiters:
                        del state.settled[uuid]

    async def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[Any]) -> bool:
        encoded = [encode(item) for item in items]
        state = self._state
        with self.space.lock:
            return state.records.append_items(handle, index, encoded)

    async def read_items(self, uuid: UUID, start: int, limit: int) -> list[Any]:
        state = self._state
        with self.space.lock:
            stored = state.records.read_items(uuid, start, limit)
        return [decode(item) for item in stored]

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return self.space.hold_exclusive(self.app_name, owner, ttl, self.clock())

    async def release_exclusive(self, owner: str) -> None:
        self.space.release_exclusive(self.app_name, owner)

    @staticmethod
    def _settled(state: AppState, uuid: UUID) -> TaskRecord | None:
        record = state.records.peek(uuid)
        if record is None:
            raise LookupError(f"there is no task {uuid}")
        return state.records.get(uuid) if record.status.terminal else None
