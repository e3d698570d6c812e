"""Checks of a storage's life: opened, closed, opened again, refused, flushed, beside other apps."""

from __future__ import annotations

from dataclasses import replace

from qtasks.components.primitives import Added
from qtasks.components.storage import Storage
from qtasks.config import QueueConfig
from qtasks.testing import lifecycle
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import RELATED_APPS, error, handle, record, success
from qtasks.testing.storage.adding import add, differences, get
from qtasks.testing.storage.running import ACCEPTED, REJECTED, started


async def use(storage: Storage) -> None:
    """A harmless use."""
    assert await storage.get_many([record().uuid]) == [None]


class Lifecycle(Suite):
    """`open`, `close`, `locality`, `flush`, `hold_exclusive`, and what is not declared."""

    @check("STORAGE-80")
    async def test_close_and_open_again(self, bench: Bench[Storage]) -> None:
        """`close` is safe before `open` and twice; a closed storage works or says why not, and opens again.

        If this fails, check that `close` forgets its connections, and `open` makes new ones.
        """
        await lifecycle.check_closing(bench, use)

    @check("STORAGE-81")
    async def test_open_twice(self, bench: Bench[Storage]) -> None:
        """A second `open` is harmless and leaks nothing.

        If this fails, check that `open` looks whether it is open already.
        """
        await lifecycle.check_opening_twice(bench, use)

    @check("STORAGE-82")
    async def test_never_opened(self, bench: Bench[Storage]) -> None:
        """A storage that was never opened works, or raises an error of qtasks (`NotStartedError`).

        If this fails, check that the primitives ask for the connection in one place that raises it.
        """
        await lifecycle.check_never_opened(bench, use)

    @check("STORAGE-83")
    async def test_another_loop(self, bench: Bench[Storage]) -> None:
        """A storage that is used from another event loop works, or raises an error of qtasks; it never
        hangs.

        If this fails, check that futures are not resolved across loops (`WrongLoopError` is the clear
        answer).
        """
        await lifecycle.check_another_loop(bench, use)

    @check("STORAGE-84", needs=("durable",))
    async def test_records_outlive_the_connection(self, bench: Bench[Storage]) -> None:
        """What was acknowledged is there when the store is opened again, by anybody, with its token and
        keys.

        If this fails, check that a verdict is given only after the store has committed.
        """
        storage, now = await bench.open(), bench.now()
        running, over = await started(storage, n=2)
        await storage.settle_many([success(over, now, {"a": 1}), error(handle(record().uuid), now)])
        unique = record(unique_key="k")
        await add(storage, unique)
        before = await storage.get_many([running.uuid, over.uuid, unique.uuid])
        await storage.close()
        again = await bench.open(like=storage)
        for was, got in zip(
            before, await again.get_many([running.uuid, over.uuid, unique.uuid]), strict=True
        ):
            assert was is not None
            assert got is not None
            assert differences(got, was) == {}
        (verdict,) = await again.add_many([record(unique_key="k")])
        assert (verdict.kind, verdict.uuid) == (Added.EXISTS, unique.uuid)
        verdicts = await again.settle_many([success(running._replace(epoch=1), now), success(running, now)])
        assert verdicts == [REJECTED, ACCEPTED]

    @check("STORAGE-85")
    async def test_locality(self, bench: Bench[Storage]) -> None:
        """`locality` names the store: the same for every client of one store, different for another
        store.

        If this fails, check that it is made of what identifies the store (its path, its address and
        namespace).
        """
        storage = await bench.open()
        like, other = await bench.open(like=storage), await bench.open()
        assert isinstance(storage.locality, str)
        assert storage.locality
        assert storage.locality == like.locality
        assert storage.locality != other.locality

    @check("STORAGE-86")
    async def test_fresh_components_are_empty(self, bench: Bench[Storage]) -> None:
        """Each component that `make_component()` gives has an empty store of its own; with `like` it is
        shared.

        If this fails, check the fixture `make_component` of the test class.
        """
        first = await bench.open()
        second, like = await bench.open(), await bench.open(like=first)
        given = record()
        await add(first, given)
        assert await second.get_many([given.uuid]) == [None]
        assert differences(await get(like, given.uuid), given) == {}

    @check("STORAGE-87", needs=("shared",))
    async def test_exclusive(self, bench: Bench[Storage]) -> None:
        """The app's exclusive id has one owner at a time, who may renew it and give it back; it frees
        itself after its TTL.

        If this fails, check that `hold_exclusive` compares and sets in one atomic step.
        """
        await lifecycle.check_exclusive(bench)

    @check("STORAGE-88", lacks=("fsync",))
    async def test_fsync_is_refused(self, bench: Bench[Storage]) -> None:
        """A storage that does not declare `fsync` refuses `durability="fsync"` at `start` with
        `CapabilityError`.

        If this fails, check that `start` is that of the base class, or refuses what it refuses.
        """
        storage = await bench.make(config=QueueConfig(durability="fsync"))
        await lifecycle.check_refusal(storage.start(), "fsync")

    @check("STORAGE-89", lacks=("replica",))
    async def test_replica_is_refused(self, bench: Bench[Storage]) -> None:
        """A storage that does not declare `replica` refuses `durability="replica"` at `start` with
        `CapabilityError`.

        If this fails, check that `start` is that of the base class, or refuses what it refuses.
        """
        storage = await bench.make(config=QueueConfig(durability="replica"))
        await lifecycle.check_refusal(storage.start(), "replica")

    @check("STORAGE-90", needs=("fsync",))
    async def test_fsync_works(self, bench: Bench[Storage]) -> None:
        """A storage that declares `fsync` works with `durability="fsync"`.

        If this fails, check what `open` does with `config.durability`.
        """
        storage = await bench.open(config=QueueConfig(durability="fsync"))
        given = record()
        await add(storage, given)
        assert differences(await get(storage, given.uuid), given) == {}

    @check("STORAGE-91")
    async def test_flush(self, bench: Bench[Storage]) -> None:
        """A flush deletes all records, with their unique keys, counts and dead; the storage goes on to
        work.

        If this fails, check that `flush` reaches every table, key and index of the app.
        """
        storage, now = await bench.open(), bench.now()
        token, dead = await started(storage, n=2)
        await storage.settle_many([error(dead, now, dead=True)])
        unique = record(unique_key="k")
        await add(storage, unique)
        await storage.flush()
        assert await storage.get_many([token.uuid, dead.uuid, unique.uuid]) == [None] * 3
        assert (await storage.scan(None, 10)).records == []
        assert (await storage.scan_open(None, 10, now + 10**6)).records == []
        assert (await storage.scan_dead(None, 10)).records == []
        assert not any((await storage.counts()).values())
        assert await storage.settle_many([success(token, now)]) == [REJECTED]
        await add(storage, replace(unique, digest="new"), record(token.uuid))

    @check("STORAGE-92")
    async def test_apps_do_not_see_each_other(self, bench: Bench[Storage]) -> None:
        """Applications in one store are disjoint, also where one name is the beginning of another, or
        differs in case only: records, unique keys, scans, counts, purge and flush (I7).

        If this fails, check how the app's name goes into keys or WHERE clauses, and how `flush` finds its
        own.
        """
        now = bench.now()
        first = await bench.open(app=RELATED_APPS[0])
        apps = [first, *[await bench.open(like=first, app=app) for app in RELATED_APPS[1:]]]
        shared = record(unique_key="k")
        for i, storage in enumerate(apps):
            await add(storage, replace(shared, args=(i,)))
            (over,) = await started(storage)
            await storage.settle_many([error(over, now, dead=True)])
        await apps[0].start_many([handle(shared.uuid, epoch=50)])
        await apps[1].cancel_many([shared.uuid], "", expires_at=now)
        assert await apps[0].purge(now + 10**6, 0) == 1
        await apps[0].flush()
        for i, storage in enumerate(apps[2:], 2):
            got = await get(storage, shared.uuid)
            assert (got.args, got.status) == ((i,), "new"), "another app's record was touched"
            assert len((await storage.scan(None, 10)).records) == 2
            assert len((await storage.scan_dead(None, 10)).records) == 1
        assert (await get(apps[1], shared.uuid)).status == "cancel"
        assert await apps[0].get_many([shared.uuid]) == [None]
