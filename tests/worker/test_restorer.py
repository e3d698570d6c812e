"""The reconciler queues nothing again that has ended while it looked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.components.worker.outcome import success_model, terminal_settle
from qtasks.components.worker.restorer import Restorer


class Between(MemoryBroker):
    """Lets something happen between the reconciler's look at the storage and its look at the broker."""

    happens: Callable[[], Awaitable[object]] | None = None

    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        if self.happens is not None:
            await self.happens()
        return await super().contains_many(uuids)


def split_app() -> tuple[QueueTasks, Between]:
    """An application whose broker and storage do not share their steps."""
    broker, space = Between(MemorySpace()), MemorySpace()
    storage = MemoryStorage(space)
    return QueueTasks(broker=broker, storage=storage, global_config=MemoryGlobalConfig(space)), broker


async def test_a_task_that_ends_between_its_two_looks_is_left_alone() -> None:
    app, broker = split_app()
    async with app:
        task = await app.add_task("any")
        ((handle, record),) = await app.delivery.claim(1, ("default",), "me", 30.0)

        async def end() -> None:
            model = success_model(record, None, app.clock())
            await app.delivery.settle([terminal_settle(handle, record, model, app.config, dead=False)])

        broker.happens = end
        await Restorer(app.worker).reconcile(0.0)
        assert await app.ended(task.uuid)
        assert await app.broker.size() == {}
