"""Checks of a broker's life: opened, closed, dropped, opened again, refused."""

from __future__ import annotations

import pytest

from qtasks.components.broker import Broker, Colocated
from qtasks.components.primitives import DropVerdict, QueueSize
from qtasks.errors import CapabilityError
from qtasks.testing import lifecycle
from qtasks.testing.bench import Bench
from qtasks.testing.broker.claims import QUEUE, drain, push
from qtasks.testing.broker.leases import claimed, swept
from qtasks.testing.broker.returns import size_of
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import item, owner


async def use(broker: Broker) -> None:
    """A harmless use."""
    assert await broker.contains_many([item().uuid]) == [False]


class Lifecycle(Suite):
    """`open`, `close`, `locality`, `hold_exclusive`."""

    @check("BROKER-70")
    async def test_close_and_open_again(self, bench: Bench[Broker]) -> None:
        """`close` is safe before `open` and twice; a closed broker works or says why not, and opens again.

        If this fails, check that `close` forgets its connections, and `open` makes new ones.
        """
        await lifecycle.check_closing(bench, use)

    @check("BROKER-71")
    async def test_open_twice(self, bench: Bench[Broker]) -> None:
        """A second `open` is harmless and leaks nothing.

        If this fails, check that `open` looks whether it is open already.
        """
        await lifecycle.check_opening_twice(bench, use)

    @check("BROKER-72")
    async def test_never_opened(self, bench: Bench[Broker]) -> None:
        """A broker that was never opened works, or raises an error of qtasks (`NotStartedError`).

        If this fails, check that the primitives ask for the connection in one place that raises it.
        """
        await lifecycle.check_never_opened(bench, use)

    @check("BROKER-73")
    async def test_another_loop(self, bench: Bench[Broker]) -> None:
        """A broker that is used from another event loop works, or raises an error of qtasks; it never
        hangs.

        If this fails, check that futures are not resolved across loops (`WrongLoopError` is the clear
        answer).
        """
        await lifecycle.check_another_loop(bench, use)

    @check("BROKER-74", needs=("durable", "delayed"))
    async def test_entries_outlive_the_connection(self, bench: Bench[Broker]) -> None:
        """What was acknowledged is there in every state when the store is opened again, by anybody.

        If this fails, check that a verdict is given only after the store has committed.
        """
        broker = await bench.open()
        leased, buried, expiring = await claimed(bench, broker, 3)
        await broker.extend_many([expiring], bench.short)
        await broker.bury_many([buried], "why")
        ready = item(priority=bench.priority(3))
        await push(broker, ready, item(available_at=bench.now() + bench.long))
        await broker.close()
        again = await bench.open(like=broker)
        assert await size_of(again) == QueueSize(1, 1, 2)
        assert [each.reason for each in await again.buried(5)] == ["why"]
        (got,) = await drain(again)
        assert (got.uuid, got.priority) == (ready.uuid, ready.priority)
        assert got.epoch > max(leased.epoch, buried.epoch, expiring.epoch)
        await bench.elapse(bench.short)
        assert (await swept(bench, again)).restored == [expiring.uuid]
        assert await again.ack_many([leased]) == [DropVerdict.DONE]

    @check("BROKER-75")
    async def test_locality(self, bench: Bench[Broker]) -> None:
        """`locality` names the store: the same for every client of one store, different for another
        store.

        If this fails, check that it is made of what identifies the store (its path, its address and
        namespace).
        """
        broker = await bench.open()
        like, other = await bench.open(like=broker), await bench.open()
        assert isinstance(broker.locality, str)
        assert broker.locality
        assert broker.locality == like.locality
        assert broker.locality != other.locality

    @check("BROKER-76")
    async def test_fresh_components_are_empty(self, bench: Bench[Broker]) -> None:
        """Each component that `make_component()` gives has an empty store of its own; with `like` it is
        shared.

        If this fails, check the fixture `make_component` of the test class.
        """
        first = await bench.open()
        second, like = await bench.open(), await bench.open(like=first)
        await push(first, item())
        assert await drain(second) == []
        assert len(await like.claim(5, QUEUE, owner(), bench.long)) == 1

    @check("BROKER-77", needs=("shared",))
    async def test_exclusive(self, bench: Bench[Broker]) -> None:
        """The app's exclusive id has one owner at a time, who may renew it and give it back; it frees
        itself after its TTL.

        If this fails, check that `hold_exclusive` compares and sets in one atomic step.
        """
        await lifecycle.check_exclusive(bench)

    @check("BROKER-78", lacks=("transactional_enqueue",))
    async def test_transactions_are_refused(self, bench: Bench[Broker]) -> None:
        """A broker that does not declare `transactional_enqueue` refuses a transaction of the caller's with
        `CapabilityError`.

        If this fails, check that `in_transaction` is that of the base class, or declare it.
        """
        broker = await bench.open()
        with pytest.raises(CapabilityError, match="transactional_enqueue"), broker.in_transaction(object()):
            pass

    @check("BROKER-79")
    async def test_atomic_steps_are_declared(self, bench: Bench[Broker]) -> None:
        """A broker declares `colocated` if and only if it has the atomic steps of `Colocated`; what is not declared
        is not used.

        If this fails, check `capabilities`, and the base classes of the broker.
        """
        broker = await bench.open()
        assert broker.capabilities.colocated is isinstance(broker, Colocated)
