"""The short ways of the Redis scripts do what the long ones do: two servers are led through the same programs, one
with scripts from which the short ways are cut out, and compared after each step: replies, all keys, all messages. A
task that is handed over to an idle worker is compared with one that this worker is told of and claims.

`HYPOTHESIS_PROFILE=nightly python -m pytest tests/components/test_redis_ways.py` looks further.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtasks.components.primitives import Buried, DeliveryHandle, Nack, Outcome, Settle, Update
from qtasks.schemas import TaskRecord, TaskStatusEnum
from tests.components.redis_ways_support import START, Side, Ways
from tests.support.redis_server import RedisServer

LEASE = 30.0
QUEUES = ("alpha", "beta", "gamma")
OWNERS = ("me", "other", "a" * 300)
TERMINAL = {
    Outcome.SUCCESS: TaskStatusEnum.SUCCESS, Outcome.ERROR: TaskStatusEnum.ERROR, Outcome.CANCEL: TaskStatusEnum.CANCEL,
}  # fmt: skip
DAMAGE = (b"", b"junk", b"R" + b"\0" * 17, b"R" + b"\xff" * 40, b"P" + b"\0" * 40, b"L" + b"\0" * 40)
RECORDS = ("rec", "run", "ent", "res")
ENDS = (18, 31, 32, 39)
"""Sizes at which a reader of records looks twice."""
BEGINS = (0, 1, 7, 8, 21, 31)
"""Where records and tokens have their kind, their flags, their epoch, their owner."""
FRESH = 20
"""The first of the uuids to which hardly anything happens."""
WEIGHTS = {
    "add": 8, "hand": 8, "claim": 8, "settle": 16, "settle_record": 1, "cancel": 3, "wait": 4, "spoil": 3,
    "add_spoiled": 3, "claim_spoiled": 3, "settle_spoiled": 6, "foreign": 1, "tick": 3, "sweep": 2, "nack": 1,
    "bury": 1, "bury_record": 1, "update": 2, "full": 2, "wake": 2, "discard": 1, "delete": 1, "audit": 1,
}  # fmt: skip
"""How often each step comes."""
KEYS = {name: f"qtasks:{{app}}:{name}" for name in ("rec", "run", "ent", "res", "uniq", "wait", "cancel")}


# --- Steps ----------------------------------------------------------------------------------------
# Hypothesis chooses how long a program is and a number for each step, from which (with one for all,
# as numbers come again) the step is drawn. (Drawn value by
# value, steps come out alike, and few settles are of a token that holds.) It finds the shortest program that fails.


def uuid(n: int) -> UUID:
    return UUID(int=n + 1)


def any_uuid(draw: Random) -> UUID:
    return uuid(draw.randrange(FRESH))


def fresh_uuid(draw: Random) -> UUID:
    """One that nothing was done to, most likely."""
    return uuid(FRESH + draw.randrange(1000))


def any_record(draw: Random, *, plain: bool) -> Callable[[float], TaskRecord]:
    """A record, given the time."""
    changes: dict[str, Any] = {
        "uuid": draw.choice((any_uuid, any_uuid, fresh_uuid))(draw),
        "queue": draw.choice(QUEUES),
        "priority": draw.choice((0, 0, -128, 127)),
        "args": draw.choice(((), (1,), ("x" * 2000,))),
        "digest": draw.choice(("0a" * 16,) * 6 + ("0b" * 16, "text")),
    }
    skew, later = draw.choice((0.0,) * 6 + (-60.0, 90.0)), 0.0
    if not plain:
        changes["unique_key"] = draw.choice((None, None, "k", ""))
        later = draw.choice((0.0, 0.0, -60.0, 5.0))
        changes |= draw.choice(
            (
                {}, {}, {}, {"epoch": 9, "owner": "me"},
                {"epoch": 7, "owner": "me", "status": TaskStatusEnum.PROCESS, "deliveries": 1},
            )
        )  # fmt: skip
    return lambda now: TaskRecord(
        task_name="task",
        created_at=now + skew,
        updated_at=now + skew,
        available_at=now + skew + later,
        **changes,
    )


def some_records(draw: Random, most: int) -> list[Callable[[float], TaskRecord]]:
    plain = draw.random() < 0.5
    return [any_record(draw, plain=plain or draw.random() < 0.5) for _ in range(draw.randrange(1, most + 1))]


class Program:
    """Leads both sides through the same steps."""

    def __init__(self, salt: int) -> None:
        self.salt = salt
        self.handed = 0
        self.handles = [DeliveryHandle(uuid(19), 7, "me", 1, False, "beta", 0, START)]
        self.held: dict[UUID, DeliveryHandle] = {}

    def beginning(self) -> Iterator[tuple[str, Callable[[Side], Any]]]:
        """Some tasks, added; the first once more; one for which its queue has no room; one in a new queue; the first
        again to a full server, as is a new one; all claimed, the first as most are; one more, handed over; three that
        come behind something else; one of which a worker is told; a batch in which each is different from most in one
        thing, which nothing else in it shows; and one that is due right now, alone."""
        made = [
            TaskRecord(
                uuid=uuid(n), task_name="task", queue=QUEUES[n % 2], digest="0a" * 16,
                created_at=START - n // 4, updated_at=START, available_at=START,
                unique_key="k" if n == 11 else None,
            )
            for n in range(12)
        ]  # fmt: skip
        new = replace(made[0], uuid=uuid(18), queue="gamma")
        first_one = replace(new, uuid=uuid(FRESH))
        for some, room in ((made, None), (made[:1], None), ([new], 0), ([first_one], None)):
            yield "add", partial(adding, some, room)
        for target in (uuid(0), uuid(18)):
            yield "full", self._adds_to_full(lambda now: made[0], target)
        for most in (7, 100):
            yield "claim", self._claims(most, QUEUES, "me")
        handed = replace(made[0], uuid=uuid(12), created_at=START - 1, available_at=START - 1)
        yield "hand", self._hands(lambda now: handed, "me", None)
        behind = (("delayed", START, None), ("delayed", START + 50, 1), ("ready", 5.0, None))
        for n, (index, score, room) in enumerate(behind, FRESH + 3):
            other, between = replace(handed, uuid=uuid(n)), indexed(f"{index}:alpha", uuid(19), score)
            yield "hand", self._hands(lambda now, it=other: it, "me", room, between)
        yield "wake", self._wakes(lambda now: new)
        odd = [replace(made[0], uuid=uuid(n)) for n in (*range(13, 18), FRESH + 1)]
        yield "add", partial(adding, odd, None)
        later = Update(uuid(FRESH + 1), {"available_at": START + 9})
        yield "update", lambda side: side.storage.update_many([later])
        yield "spoil", raw(make_odd)
        yield "claim", self._claims(7, QUEUES, "me")
        delayed = replace(made[0], uuid=uuid(FRESH + 2), available_at=START + 5)
        yield "add", partial(adding, [delayed], None)
        yield "tick", self._ticks(5.0)
        yield "claim", self._claims(100, QUEUES, "me")

    def step(self, number: int) -> tuple[str, Callable[[Side], Any]]:
        """The name of a step, and the step."""
        draw = Random(f"{self.salt} {number}")
        (name,) = draw.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))
        step: Callable[[Side], Any] = getattr(self, f"_{name}")(draw)
        return name, step

    def handle(self, draw: Random) -> DeliveryHandle:
        """One that was claimed; mostly one that is not settled yet."""
        held = tuple(self.held.values())
        return draw.choice(held if held and draw.random() < 0.8 else self.handles)

    def target(self, draw: Random) -> UUID:
        """Mostly one that was claimed."""
        return self.handle(draw).uuid if draw.random() < 0.8 else any_uuid(draw)

    def _add(self, draw: Random) -> Callable[[Side], Any]:
        made = some_records(draw, draw.choice((1, 4, 20)))
        most = draw.choice((None, None, 0, 1, 3, 100))
        return lambda side: side.broker.add_and_push([each(side.now) for each in made], most)

    def _claim(self, draw: Random) -> Callable[[Side], Any]:
        n, owner, at_rest = draw.choice((500, 100, 100, 2, 1)), draw.choice(OWNERS), draw.random() < 0.5
        return self._claims(n, draw.sample(QUEUES, draw.choice((3, 3, 2, 1))), owner, at_rest=at_rest)

    def _claims(
        self, n: int, queues: Sequence[str], owner: str, *, at_rest: bool = False
    ) -> Callable[[Side], Any]:
        async def claim(side: Side) -> Any:
            side.hand.at_rest = at_rest
            found = await side.broker.claim_and_start(n, tuple(queues), owner, LEASE)
            rest, word = side.rest, side.client.hgetall("qtasks:{app}:wake")
            if at_rest:
                side.hand.at_rest = False
                await side.broker.withdraw()  # the next task would be handed over on one side only
            return rest, word, self._known(found)

        return claim

    def _known(
        self, found: list[tuple[DeliveryHandle, TaskRecord]]
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        for handle, _ in found:
            if handle not in self.handles:
                self.handles.append(handle)
            self.held[handle.uuid] = handle
        return found

    def _hand(self, draw: Random) -> Callable[[Side], Any]:
        """A worker of a queue comes to rest, a task is added, and the worker gets it, one way or the other."""
        made, owner = any_record(draw, plain=draw.random() < 0.8), draw.choice(OWNERS)
        between = self._foreign(draw) if draw.random() < 0.2 else None
        return self._hands(made, owner, draw.choice((None, None, 0, 1, 100)), between)

    def _hands(
        self,
        made: Callable[[float], TaskRecord],
        owner: str,
        most: int | None,
        between: Callable[[Side], Any] | None = None,
    ) -> Callable[[Side], Any]:
        async def hand(side: Side) -> Any:
            record = made(side.now)
            queues = (record.queue,)
            side.hand.at_rest = True
            before = await side.broker.claim_and_start(100, queues, owner, LEASE)
            side.hand.at_rest = False
            if between is not None:
                await between(side)
            verdicts = await side.broker.add_and_push([record], most)
            await side.broker.withdraw()
            found, side.hand.taken = side.hand.taken, []
            if found:
                assert not side.cut
                self.handed += 1
            else:
                found = await side.broker.claim_and_start(2, queues, owner, LEASE)
                await side.broker.withdraw()
            side.told()  # one is told of the task, the other gets it
            return before, verdicts, self._known(found)

        return hand

    def _wake(self, draw: Random) -> Callable[[Side], Any]:
        """A worker that may be busy claims and finds all there is, a task is added, and the worker is told."""
        return self._wakes(any_record(draw, plain=draw.random() < 0.8))

    def _wakes(self, made: Callable[[float], TaskRecord]) -> Callable[[Side], Any]:
        async def wake(side: Side) -> Any:
            record = made(side.now)
            before = await side.broker.claim_and_start(100, (record.queue,), "me", LEASE)
            verdicts = await side.broker.add_and_push([record], None)
            await side.broker.withdraw()
            return self._known(before), verdicts

        return wake

    def _settle(self, draw: Random) -> Callable[[Side], Any]:
        made = [self._one_settle(draw) for _ in range(draw.choice((1, 2, 5)))]
        return self._settles(lambda now: [each(now) for each in made])

    def _settles(self, made: Callable[[float], Sequence[Settle]]) -> Callable[[Side], Any]:
        async def settle(side: Side) -> Any:
            settles = made(side.now)
            for each in settles:
                self.held.pop(each.handle.uuid, None)
            return await side.broker.settle_and_ack(settles)

        return settle

    def _settle_record(self, draw: Random) -> Callable[[Side], Any]:
        """As beside another broker, whose entry stays."""
        made = self._one_settle(draw)
        return lambda side: side.storage.settle_many([made(side.now)])

    def _one_settle(self, draw: Random) -> Callable[[float], Settle]:
        handle = self.handle(draw)
        wrong = draw.choice(
            ({},) * 12 + ({"epoch": handle.epoch - 1}, {"owner": "xx"}, {"owner": handle.owner + "e"})
        )
        handle = handle._replace(**wrong)
        outcome = draw.choice((*TERMINAL,) * 3 + (Outcome.RETRY, Outcome.RELEASE))
        expires, delay = draw.choice((60.0, None)), draw.choice((None, 0.0, 5.0))
        dead, then = draw.random() < 0.1, some_records(draw, 2) if draw.random() < 0.15 else []

        def settle(now: float) -> Settle:
            changes: dict[str, Any] = {"updated_at": now}
            nack = None
            if outcome.terminal:
                until = None if expires is None else now + expires
                changes |= {"status": TERMINAL[outcome], "finished_at": now, "expires_at": until}
                if dead:
                    changes["dead"] = True
            else:
                changes |= {"status": TaskStatusEnum.NEW, "attempt": 1}
                if delay is None:
                    changes["available_at"] = now + 3
                else:
                    nack = Nack(handle, delay, handle.deliveries, handle.epoch)
            return Settle(handle, outcome, changes, tuple(each(now) for each in then), nack)

        return settle

    def _tick(self, draw: Random) -> Callable[[Side], Any]:
        return self._ticks(draw.choice((0.0, 1.0, 10.0, LEASE + 1, 700.0)))

    def _ticks(self, seconds: float) -> Callable[[Side], Any]:
        async def tick(side: Side) -> None:
            side.tick(seconds)

        return tick

    def _cancel(self, draw: Random) -> Callable[[Side], Any]:
        found = [self.target(draw) for _ in range(draw.randrange(1, 4))]
        return lambda side: side.storage.cancel_many(found, "no", expires_at=side.now + 60)

    def _sweep(self, draw: Random) -> Callable[[Side], Any]:
        most = draw.choice((2, 5))
        return lambda side: side.broker.sweep(100, most)

    def _nack(self, draw: Random) -> Callable[[Side], Any]:
        handle = self.handle(draw)
        return lambda side: side.broker.nack_many([Nack(handle, 0.0, 1, 0)])

    def _bury(self, draw: Random) -> Callable[[Side], Any]:
        handle = self.handle(draw)
        return lambda side: side.broker.bury_many([handle], "why")

    def _bury_record(self, draw: Random) -> Callable[[Side], Any]:
        buried = Buried(self.target(draw), 5, "why")
        return lambda side: side.storage.bury_many([buried], expires_at=side.now + 60)

    def _update(self, draw: Random) -> Callable[[Side], Any]:
        target, later = self.target(draw), draw.choice((0.0, 50.0, -50.0))
        return lambda side: side.storage.update_many(
            [Update(target, {"available_at": side.now + later, "progress": 1})]
        )

    def _discard(self, draw: Random) -> Callable[[Side], Any]:
        target = self.target(draw)
        return lambda side: side.broker.discard_many([target])

    def _delete(self, draw: Random) -> Callable[[Side], Any]:
        target = self.target(draw)
        return lambda side: side.storage.delete_many([target])

    def _wait(self, draw: Random) -> Callable[[Side], Any]:
        target = self.target(draw)
        return lambda side: side.link.run("wait", [target.bytes, b"qtasks:waiter"])

    def _audit(self, draw: Random) -> Callable[[Side], Any]:
        return lambda side: side.broker.audit(100)

    def _spoil(self, draw: Random) -> Callable[[Side], Any]:
        return spoiling(draw, self.target(draw))

    def _add_spoiled(self, draw: Random) -> Callable[[Side], Any]:
        """A task of which something is left comes again, as a new one; with another one, or alone."""
        uuids = (self.target(draw), *draw.choice(((), (fresh_uuid(draw),))))
        made = any_record(draw, plain=True)
        lost = ("rec", "res", *draw.choice(((), ("run",), ("ent",))))

        async def add(side: Side) -> Any:
            for name in lost:
                side.client.hdel(KEYS[name], uuids[0].bytes)
            return await side.broker.add_and_push(
                [replace(made(side.now), uuid=each) for each in uuids], None
            )

        return add

    def _full(self, draw: Random) -> Callable[[Side], Any]:
        """A server that takes nothing more is given a task that it has, or had, or not."""
        return self._adds_to_full(any_record(draw, plain=True), self.target(draw))

    def _adds_to_full(self, made: Callable[[float], TaskRecord], target: UUID) -> Callable[[Side], Any]:
        async def add(side: Side) -> Any:
            side.client.config_set("maxmemory", 1)
            try:
                return await side.broker.add_and_push([replace(made(side.now), uuid=target)], None)
            finally:
                side.client.config_set("maxmemory", 0)

        return add

    def _claim_spoiled(self, draw: Random) -> Callable[[Side], Any]:
        """Some come back, of which something is lost or damaged meanwhile."""
        handles = [self.handle(draw) for _ in range(3)]
        spoilt = [spoiling(draw, handle.uuid) for handle in handles[1:]]
        claim = self._claims(100, QUEUES, draw.choice(OWNERS))

        async def claim_again(side: Side) -> Any:
            await side.broker.nack_many([Nack(handle, 0.0, handle.deliveries, 0) for handle in handles])
            side.client.hdel(KEYS["run"], handles[0].uuid.bytes)
            for spoil in spoilt:
                await spoil(side)
            return await claim(side)

        return claim_again

    def _settle_spoiled(self, draw: Random) -> Callable[[Side], Any]:
        """Tokens that held until something was lost or damaged."""
        handles = {handle.uuid: handle for handle in (self.handle(draw) for _ in range(6))}.values()
        spoilt = [spoiling(draw, handle.uuid) for handle in handles]

        def made(now: float) -> list[Settle]:
            changes = {"status": TaskStatusEnum.SUCCESS, "updated_at": now, "finished_at": now}
            return [Settle(handle, Outcome.SUCCESS, dict(changes)) for handle in handles]

        settle = self._settles(made)

        async def spoil_and_settle(side: Side) -> Any:
            for spoil in spoilt:
                await spoil(side)
            return await settle(side)

        return spoil_and_settle

    def _foreign(self, draw: Random) -> Callable[[Side], Any]:
        """An index names an entry, or nothing."""
        return indexed(f"ready:{draw.choice(QUEUES)}", any_uuid(draw), 5.0)


def spoiling(draw: Random, target: UUID) -> Callable[[Side], Any]:
    """Something of a task is lost, damaged, wrong in a byte, or ends too early; mostly where a part begins or ends."""
    size = draw.choice((draw.randrange(1, 50), *ENDS))
    value, at, byte = draw.choice(DAMAGE), draw.choice(BEGINS), bytes([draw.choice(b"RPNLWB\0\1\4")])
    name = draw.choice((*KEYS, *RECORDS, *RECORDS))
    how = draw.choice(("lose", "damage", "cut", "cut", "alter", "alter"))

    def spoil(client: Any) -> None:
        if how == "lose":
            client.hdel(KEYS[name], target.bytes)
        elif name in RECORDS and how == "damage":
            client.hset(KEYS[name], target.bytes, value)
        elif name in RECORDS and (found := client.hget(KEYS[name], target.bytes)) is not None:
            changed = found[:size] if how == "cut" else found[:at] + byte + found[at + 1 :]
            client.hset(KEYS[name], target.bytes, changed)

    return raw(spoil)


def make_odd(client: Any) -> None:
    """A token without an entry; records that do not begin as one does, or end too early, or just not; and one that is
    due right now."""
    client.hset(KEYS["run"], uuid(13).bytes, struct.pack(">cdIddH2s", b"N", 1.0, 1, START, START, 2, b"me"))
    client.hincrby("qtasks:{app}:count", "back", 1)
    for n, begins, size in ((14, b"X", 99), (15, b"R", 17), (16, b"R", 18)):
        record = client.hget(KEYS["rec"], uuid(n).bytes)
        client.hset(KEYS["rec"], uuid(n).bytes, begins + record[1:size])
    client.zrem("qtasks:{app}:ready:alpha", uuid(17).bytes)
    client.zadd("qtasks:{app}:delayed:alpha", {uuid(17).bytes: START})


def indexed(name: str, target: UUID, score: float) -> Callable[[Side], Any]:
    return raw(lambda client: client.zadd(f"qtasks:{{app}}:{name}", {target.bytes: score}))


async def adding(records: Sequence[TaskRecord], room: int | None, side: Side) -> Any:
    return await side.broker.add_and_push(records, room)


def raw(change: Callable[[Any], Any]) -> Callable[[Side], Any]:
    async def step(side: Side) -> None:
        change(side.client)

    return step


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[RedisServer, RedisServer]]:
    with (
        RedisServer(appendonly="yes", appendfsync="no") as first,
        RedisServer(appendonly="yes", appendfsync="no") as second,
    ):
        yield first, second


@pytest.mark.timeout(1800)  # of the profile `nightly`
def test_the_short_ways_do_what_the_long_ones_do(servers):
    handed = 0
    with pytest.MonkeyPatch.context() as patch:
        ways = Ways(patch)

        async def compared(salt: int, numbers: list[int]) -> None:
            program = Program(salt)
            async with Side(servers[0], ways, cut=False) as short, Side(servers[1], ways, cut=True) as long:
                for name, step in chain(program.beginning(), map(program.step, numbers)):
                    assert await short.does(step) == await long.does(step), name
            nonlocal handed
            handed += program.handed

        @settings(max_examples=settings().max_examples // 2)
        @given(st.integers(0, 2**32), st.lists(st.integers(0, 2**32), min_size=12, max_size=25))
        def run(salt: int, numbers: list[int]) -> None:
            asyncio.run(compared(salt, numbers))

        run()
    assert handed > settings().max_examples // 8
