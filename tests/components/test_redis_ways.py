"""The short ways of the Redis scripts do what the long ones do: two servers are led through the same programs, one
with scripts from which the short ways are cut out, and compared after each step: replies, all keys, all messages.

`HYPOTHESIS_PROFILE=nightly python -m pytest tests/components/test_redis_ways.py` looks further.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtasks.components.primitives import Buried, DeliveryHandle, Nack, Outcome, Settle, Update
from qtasks.components.redis import RedisBroker, RedisLink, RedisStorage, link, scripts
from qtasks.config import QueueConfig
from qtasks.errors import QTasksError
from qtasks.manager import PluginManager
from qtasks.schemas import TaskRecord, TaskStatusEnum
from tests.support.redis_server import RedisServer

CUT = {
    "add_push": (b"local added = add_plain()", b"local added = nil"),
    "claim_start": (b"if available and available <= now then", b"if false then"),
    "settle_ack": (b"if status and not told[id]", b"if false and not told[id]"),
}
"""Where a script takes its short way, and what keeps it from it."""
CLOCK = (b"tonumber(time[1]) + tonumber(time[2]) / 1e6", b"tonumber(call('GET', 'clock'))")
START = 1_700_000_000.0
LEASE = 30.0
QUEUES = ("alpha", "beta", "gamma")
OWNERS = ("me", "other", "a" * 300)
TERMINAL = {
    Outcome.SUCCESS: TaskStatusEnum.SUCCESS, Outcome.ERROR: TaskStatusEnum.ERROR, Outcome.CANCEL: TaskStatusEnum.CANCEL,
}  # fmt: skip
DAMAGE = (b"", b"junk", b"R" + b"\0" * 17, b"R" + b"\xff" * 40, b"P" + b"\0" * 40, b"L" + b"\0" * 40)
KEYS = {name: f"qtasks:{{app}}:{name}" for name in ("rec", "run", "ent", "res", "uniq", "wait", "cancel")}


READ: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"hash": lambda client, key: client.hgetall(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    b"set": lambda client, key: client.smembers(key),
    b"stream": lambda client, key: client.xrange(key),
    b"string": lambda client, key: client.get(key),
}


class Ways:
    """The scripts as a side has them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cut = False
        self._made: dict[tuple[str, bool], scripts.Script] = {}
        self._original = scripts.script
        patch.setattr(scripts, "script", self.script)
        patch.setattr(link, "script", self.script)

    def script(self, name: str) -> scripts.Script:
        found = self._made.get((name, self.cut))
        if found is None:
            found = self._original(name)
            body = found.body.replace(*CLOCK)
            assert b" now " not in body or CLOCK[1] in body
            if self.cut and name in CUT:
                body = self._exchanged(body, *CUT[name])
            sha = hashlib.sha1(body).hexdigest().encode()
            found = self._made[name, self.cut] = replace(found, body=body, sha=sha)
        return found

    @staticmethod
    def _exchanged(body: bytes, old: bytes, new: bytes) -> bytes:
        assert body.count(old) == 1, f"{old!r} is not in the script"
        return body.replace(old, new)


class Side:
    """One server and what speaks to it."""

    def __init__(self, server: RedisServer, ways: Ways, *, cut: bool) -> None:
        self.server, self.ways, self.cut = server, ways, cut
        self.client = server.client()
        self.messages = self.client.pubsub()
        self.now = START

    async def __aenter__(self) -> Side:
        self.ways.cut = self.cut
        self.client.flushall()
        self.tick(0.0)
        self.messages.psubscribe("qtasks*", "fence")
        self.link = RedisLink(f"redis://127.0.0.1:{self.server.port}")
        self.broker, self.storage = RedisBroker(self.link), RedisStorage(self.link)
        for part in (self.broker, self.storage):
            part.bind(PluginManager(), app_name="app", config=QueueConfig())
            await part.open()
            part.clock = lambda: self.now
        self.link.notifier.channel = b"qtasks:tell"  # by chance it would be another one on each side
        assert await self.link.notifier.ensure(10.0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for part in (self.broker, self.storage):
            await part.close()
        self.messages.close()
        self.client.close()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.client.set("clock", repr(self.now))

    async def does(self, step: Callable[[Side], Any]) -> tuple[Any, ...]:
        """The step; what it gave, and what it left."""
        self.ways.cut = self.cut
        try:
            reply = await step(self)
        except QTasksError as error:
            reply = f"{type(error).__name__}: {str(error).replace(str(self.server.port), 'PORT')}"
        return reply, self.contents(), self.told()

    def told(self) -> list[tuple[bytes, bytes]]:
        self.client.publish("fence", "")
        found = []
        while (message := self.messages.get_message(timeout=10.0)) is not None:
            if message["channel"] == b"fence" and message["type"] == "pmessage":
                return found
            if message["type"] == "pmessage":
                found.append((message["channel"], message["data"]))
        raise AssertionError("the fence was not told")

    def contents(self) -> dict[bytes, Any]:
        keys = sorted(self.client.scan_iter(count=1000))
        with self.client.pipeline(transaction=False) as types:
            for key in keys:
                types.type(key)
            kinds = types.execute()
        with self.client.pipeline(transaction=False) as values:
            for key, kind in zip(keys, kinds, strict=True):
                READ[kind](values, key)
            return dict(zip(keys, values.execute(), strict=True))


# --- Steps ----------------------------------------------------------------------------------------
# A step is made of small numbers, so that hypothesis finds the shortest program that fails.

uuids = st.integers(0, 7)
moments = st.sampled_from((0.0, 0.0, 0.0, 0.0, -60.0, 5.0, 90.0))


def seldom(rare: st.SearchStrategy[Any], mostly: Any) -> st.SearchStrategy[Any]:
    """What nearly always is the same."""
    return st.integers(0, 7).flatmap(lambda n: rare if n == 7 else st.just(mostly))


def uuid(n: int) -> UUID:
    return UUID(int=n + 1)


@st.composite
def records(draw: st.DrawFn, plain: bool = False) -> Callable[[float], TaskRecord]:
    """A record, given the time."""
    n = draw(uuids)
    changes: dict[str, Any] = {
        "queue": draw(st.sampled_from(QUEUES)),
        "priority": draw(st.sampled_from((0, 0, -128, 127))),
        "args": draw(st.sampled_from(((), (1,), ("x" * 2000,)))),
        "digest": draw(st.sampled_from(("0a" * 16, "0a" * 16, "0a" * 16, "text", "0b" * 16))),
    }
    skew, later = draw(moments), 0.0
    if not plain:
        changes["unique_key"] = draw(st.sampled_from((None, None, None, "k", "")))
        later = draw(seldom(moments, 0.0))
        if draw(seldom(st.just(True), False)):
            changes |= draw(
                st.sampled_from(
                    (
                        {"epoch": 7, "owner": "me", "status": TaskStatusEnum.PROCESS, "deliveries": 1},
                        {"epoch": 9, "owner": "me"},
                    )
                )
            )
    return lambda now: TaskRecord(
        uuid=uuid(n), task_name="task", created_at=now + skew, updated_at=now + skew,
        available_at=now + skew + later, **changes,
    )  # fmt: skip


@st.composite
def adds(draw: st.DrawFn) -> tuple[Any, ...]:
    made = draw(
        st.lists(records(plain=draw(st.booleans())), min_size=1, max_size=draw(st.sampled_from((1, 4, 20))))
    )
    return "add", made, draw(st.sampled_from((None, None, 0, 1, 3, 100)))


claims = st.tuples(
    st.just("claim"), st.sampled_from((100, 100, 2)),
    st.permutations(QUEUES) | st.lists(st.sampled_from(QUEUES), unique=True, min_size=1), st.sampled_from(OWNERS),
)  # fmt: skip

settle_items = st.tuples(
    st.integers(0, 9),
    st.sampled_from((*TERMINAL, *TERMINAL, Outcome.SUCCESS, Outcome.RETRY, Outcome.RELEASE)),
    st.sampled_from(("right",) * 12 + ("old epoch", "other owner", "longer owner", "other uuid")),
    st.sampled_from((False,) * 5 + (True,)),  # dead
    st.sampled_from((60.0, None)),  # expires
    seldom(st.lists(records(), min_size=1, max_size=2), ()),
    st.sampled_from((None, 0.0, 5.0)),  # delay of a nack
)
settles = st.tuples(st.just("settle"), st.lists(settle_items, min_size=1, max_size=6))
between = st.one_of(
    st.tuples(st.just("cancel"), st.lists(uuids, min_size=1, max_size=3)),
    st.tuples(st.just("wait"), uuids),
    st.tuples(st.just("lose"), st.sampled_from(tuple(KEYS)), uuids),
    st.tuples(
        st.just("damage"), st.sampled_from(("rec", "run", "ent", "res")), uuids, st.sampled_from(DAMAGE)
    ),
    st.tuples(st.just("cut short"), st.sampled_from(("rec", "run", "ent")), uuids, st.integers(1, 45)),
    st.tuples(st.just("foreign"), st.sampled_from(QUEUES), uuids),
    st.tuples(st.just("settle the record"), settle_items),
    st.tuples(st.just("tick"), st.sampled_from((0.0, 1.0, 10.0, LEASE + 1, 700.0))),
)
"""What a short way may find."""
others = st.one_of(
    st.tuples(st.just("sweep"), st.sampled_from((2, 5))),
    st.tuples(st.just("nack"), st.integers(0, 9)),
    st.tuples(st.just("bury"), st.integers(0, 9)),
    st.tuples(st.just("bury records"), uuids),
    st.tuples(st.just("update"), uuids, st.sampled_from((0.0, 50.0, -50.0))),
    st.tuples(st.just("discard"), uuids),
    st.tuples(st.just("delete"), uuids),
    st.tuples(st.just("audit")),
)
programs = st.lists(
    st.one_of(between, settles, between, settles, adds(), claims, others), min_size=2, max_size=9
)


class Program:
    """Leads both sides through the same steps."""

    def __init__(self) -> None:
        self.handles = [DeliveryHandle(uuid(0), 7, "me", 1, False, "beta", 0, START)]

    def step(self, what: tuple[Any, ...]) -> Callable[[Side], Any]:
        name, *values = what
        made: Callable[[Side], Any] = getattr(self, "_" + name.replace(" ", "_"))(*values)
        return made

    def handle(self, n: int) -> DeliveryHandle:
        """One that was claimed; the last ones first."""
        return self.handles[-1 - n % len(self.handles)]

    def target(self, n: int) -> UUID:
        """Mostly one that was claimed."""
        return self.handle(n).uuid if n < 6 else uuid(n)

    def _add(self, made: Any, most: int | None) -> Callable[[Side], Any]:
        return lambda side: side.broker.add_and_push([each(side.now) for each in made], most)

    def _claim(self, n: int, queues: list[str], owner: str) -> Callable[[Side], Any]:
        async def claim(side: Side) -> Any:
            found = await side.broker.claim_and_start(n, tuple(queues), owner, LEASE)
            for handle, _ in found:
                if handle not in self.handles:
                    self.handles.append(handle)
            return found

        return claim

    def _settle(self, items: Any) -> Callable[[Side], Any]:
        def settled(now: float, item: Any, handle: DeliveryHandle) -> Settle:
            _, outcome, right, dead, expires, then, delay = item
            if right == "old epoch":
                handle = handle._replace(epoch=handle.epoch - 1)
            elif right == "other owner":
                handle = handle._replace(owner="xx")
            elif right == "longer owner":
                handle = handle._replace(owner=handle.owner + "e")
            elif right == "other uuid":
                handle = handle._replace(uuid=uuid(handle.uuid.int % 10))
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

        handles = [self.handle(item[0]) for item in items]
        return lambda side: side.broker.settle_and_ack(
            [settled(side.now, item, handle) for item, handle in zip(items, handles, strict=True)]
        )

    def _settle_the_record(self, item: Any) -> Callable[[Side], Any]:
        """As beside another broker, whose entry stays."""
        step = self._settle([item])

        async def settle(side: Side) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(side.broker, "settle_and_ack", side.storage.settle_many)
                return await step(side)

        return settle

    def _tick(self, seconds: float) -> Callable[[Side], Any]:
        async def tick(side: Side) -> None:
            side.tick(seconds)

        return tick

    def _cancel(self, ns: list[int]) -> Callable[[Side], Any]:
        found = list(map(self.target, ns))
        return lambda side: side.storage.cancel_many(found, "no", expires_at=side.now + 60)

    def _sweep(self, most: int) -> Callable[[Side], Any]:
        return lambda side: side.broker.sweep(100, most)

    def _nack(self, n: int) -> Callable[[Side], Any]:
        handle = self.handle(n)
        return lambda side: side.broker.nack_many([Nack(handle, 0.0, 1, 0)])

    def _bury(self, n: int) -> Callable[[Side], Any]:
        handle = self.handle(n)
        return lambda side: side.broker.bury_many([handle], "why")

    def _bury_records(self, n: int) -> Callable[[Side], Any]:
        target = self.target(n)
        return lambda side: side.storage.bury_many([Buried(target, 5, "why")], expires_at=side.now + 60)

    def _update(self, n: int, later: float) -> Callable[[Side], Any]:
        target = self.target(n)
        return lambda side: side.storage.update_many(
            [Update(target, {"available_at": side.now + later, "progress": 1})]
        )

    def _discard(self, n: int) -> Callable[[Side], Any]:
        target = self.target(n)
        return lambda side: side.broker.discard_many([target])

    def _delete(self, n: int) -> Callable[[Side], Any]:
        target = self.target(n)
        return lambda side: side.storage.delete_many([target])

    def _wait(self, n: int) -> Callable[[Side], Any]:
        target = self.target(n)
        return lambda side: side.link.run("wait", [target.bytes, b"qtasks:waiter"])

    def _audit(self) -> Callable[[Side], Any]:
        return lambda side: side.broker.audit(100)

    def _lose(self, key: str, n: int) -> Callable[[Side], Any]:
        target = self.target(n)
        return raw(lambda client: client.hdel(KEYS[key], target.bytes))

    def _damage(self, key: str, n: int, value: bytes) -> Callable[[Side], Any]:
        target = self.target(n)
        return raw(lambda client: client.hset(KEYS[key], target.bytes, value))

    def _cut_short(self, key: str, n: int, size: int) -> Callable[[Side], Any]:
        target = self.target(n)

        def cut(client: Any) -> None:
            value = client.hget(KEYS[key], target.bytes)
            if value is not None:
                client.hset(KEYS[key], target.bytes, value[:size])

        return raw(cut)

    def _foreign(self, queue: str, n: int) -> Callable[[Side], Any]:
        """An index names an entry, or nothing."""
        return raw(lambda client: client.zadd(f"qtasks:{{app}}:ready:{queue}", {uuid(n).bytes: 5.0}))


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


def test_the_short_ways_do_what_the_long_ones_do(servers):
    with pytest.MonkeyPatch.context() as patch:
        ways = Ways(patch)

        async def compared(steps: list[tuple[Any, ...]]) -> None:
            program = Program()
            async with Side(servers[0], ways, cut=False) as short, Side(servers[1], ways, cut=True) as long:
                for what in steps:
                    step = program.step(what)
                    assert await short.does(step) == await long.does(step), what

        @settings(max_examples=settings().max_examples // 2)
        @given(st.lists(records(), min_size=1, max_size=6), programs)
        def run(tasks: list[Callable[[float], TaskRecord]], steps: list[tuple[Any, ...]]) -> None:
            asyncio.run(compared([("add", tasks, None), ("claim", 100, QUEUES, "me"), *steps]))

        run()
