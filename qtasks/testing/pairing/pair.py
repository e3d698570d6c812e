"""A broker and a storage on the workbench: a little worker, a reconciler, and places to crash at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from qtasks.components.broker import Broker
from qtasks.components.delivery import ColocatedDelivery, Delivery, delivery_of, push_item
from qtasks.components.primitives import Added, Buried, DeliveryHandle, SettleVerdict
from qtasks.components.storage import Storage
from qtasks.config import QueueConfig
from qtasks.schemas import TaskRecord
from qtasks.testing.bench import EVENT_TIMEOUT, Bench, KitFailure
from qtasks.testing.samples import owner, success

Components = tuple[Broker, Storage]
QUEUES = ["default", "mail"]
MAX_DELIVERIES = 5


class Dropped(BaseException):
    """The process ends here; nothing catches it."""


@dataclass(frozen=True, slots=True)
class Seam:
    """A place to crash at: before a call of this method of a component, or between it and its reply."""

    part: int
    method: str
    after: bool

    def __str__(self) -> str:
        where = "after" if self.after else "before"
        return f"{where} {('broker', 'storage')[self.part]}.{self.method}"


@dataclass
class Pair:
    """A broker and a storage that are open, and the steps over them.

    Attributes:
        accepted: how many settles of each task were accepted, over all crashes.
    """

    bench: Bench[Components]
    broker: Broker
    storage: Storage
    accepted: dict[UUID, int] = field(default_factory=dict)

    @classmethod
    async def open(cls, bench: Bench[Components], config: QueueConfig | None = None) -> Pair:
        """A fresh pair."""
        broker, storage = await bench.open(config=config)
        return cls(bench, broker, storage)

    @property
    def delivery(self) -> Delivery:
        """The steps."""
        return delivery_of(self.broker, self.storage)

    @property
    def colocated(self) -> bool:
        """Whether each step is one atomic call."""
        return isinstance(self.delivery, ColocatedDelivery)

    async def beside(self) -> Pair:
        """Another process on the same two stores."""
        broker, storage = await self.bench.open(like=(self.broker, self.storage))
        return Pair(self.bench, broker, storage, self.accepted)

    async def reopened(self) -> Pair:
        """The next process, after this one has died."""
        await self.broker.close()
        await self.storage.close()
        return await self.beside()

    async def add(self, *records: TaskRecord) -> None:
        """Adds tasks that must be new."""
        verdicts = await self.delivery.add(records)
        assert [verdict.kind for verdict in verdicts] == [Added.ADDED] * len(records)

    async def claim(
        self, n: int = 100, lease: float | None = None
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        """Claims and starts."""
        return await self.delivery.claim(n, QUEUES, owner(), self.bench.long if lease is None else lease)

    async def settle(self, *settles: Any) -> list[SettleVerdict]:
        """Settles, and counts what was accepted."""
        verdicts = await self.delivery.settle(settles)
        for settle, verdict in zip(settles, verdicts, strict=True):
            if verdict is SettleVerdict.ACCEPTED and settle.outcome.terminal:
                uuid = settle.handle.uuid
                self.accepted[uuid] = self.accepted.get(uuid, 0) + 1
        return verdicts

    async def get(self, uuid: UUID) -> TaskRecord:
        """A record that must be there."""
        (found,) = await self.storage.get_many([uuid])
        assert found is not None, "the record is lost"
        return found

    async def known(self, uuid: UUID) -> bool:
        """Whether the broker knows the task."""
        return (await self.broker.contains_many([uuid]))[0]

    async def write_off(self, buried: Sequence[Buried]) -> None:
        """Writes burials to the storage, then forgets them."""
        if buried:
            await self.storage.bury_many(buried, expires_at=self.bench.now() + 1000)
            await self.broker.discard_many([each.uuid for each in buried])

    async def restore(self) -> None:
        """What any worker does from time to time: sweeps, and reconciles the broker with the storage."""
        await self.write_off((await self.broker.sweep(100, MAX_DELIVERIES)).buried)
        await self.write_off(await self.broker.buried(100))
        await self.broker.audit(100)
        cursor: str | None = None
        while True:
            page = await self.storage.scan_open(cursor, 100, self.bench.now() + 1)
            known = await self.broker.contains_many([each.uuid for each in page.records])
            lost = [each for each, there in zip(page.records, known, strict=True) if not there]
            if lost:
                await self.broker.push_many([push_item(each) for each in lost])
            if (cursor := page.cursor) is None:
                return

    async def quiesce(self) -> dict[UUID, int]:
        """Restores and runs everything to its end; gives how often each task was run. After it no entry is
        left and no record is open (I4)."""
        runs: dict[UUID, int] = {}
        deadline = time.monotonic() + EVENT_TIMEOUT
        for _ in range(2000):
            await self.restore()
            claims = await self.claim()
            for token, _record in claims:
                runs[token.uuid] = runs.get(token.uuid, 0) + 1
            await self.settle(*(success(token, self.bench.now(), "run") for token, _ in claims))
            if not claims and await self.quiet():
                return runs
            if time.monotonic() > deadline:
                break
            if not claims:
                await self._pass_time()
        raise KitFailure(f"the stores do not come to rest: {await self.broker.size()}")

    async def quiet(self) -> bool:
        """Whether no entry and no open record is left."""
        left = any(any(size) for size in (await self.broker.size()).values())
        page = await self.storage.scan_open(None, 10, self.bench.now() + self.bench.long)
        return not left and not page.records and not await self.broker.buried(1)

    async def _pass_time(self) -> None:
        if self.bench.capabilities.virtual_clock:
            await self.bench.elapse(self.bench.short)
        else:
            await asyncio.sleep(0.02)

    def seams(self, *methods: str) -> Iterator[Seam]:
        """The places to crash at in a step.

        Parameters:
            methods: `broker.x` or `storage.x`; where the pair is co-located, `steps.x` instead of these.
        """
        for method in methods:
            name, _, rest = method.partition(".")
            if (name == "steps") is self.colocated:
                for after in (False, True):
                    yield Seam(1 if name == "storage" else 0, rest, after)

    @contextmanager
    def crashing(self, seam: Seam) -> Iterator[None]:
        """The process dies at this place, if it comes there."""
        component = (self.broker, self.storage)[seam.part]
        whole: Callable[..., Awaitable[Any]] = getattr(component, seam.method)

        async def cut(*args: Any, **kwargs: Any) -> Any:
            if seam.after:
                await whole(*args, **kwargs)
            raise Dropped

        setattr(component, seam.method, cut)
        try:
            yield
        except Dropped:
            pass
        finally:
            delattr(component, seam.method)
