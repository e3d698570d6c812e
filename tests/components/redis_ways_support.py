"""Two servers for one program: one with the scripts as they are, one from whose scripts the short ways are cut out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qtasks.components.primitives import DeliveryHandle
from qtasks.components.redis import RedisBroker, RedisLink, RedisStorage, link, scripts
from qtasks.config import QueueConfig
from qtasks.errors import QTasksError
from qtasks.manager import PluginManager
from qtasks.schemas import TaskRecord
from tests.support.redis_server import RedisServer

CUT = {
    "add_plain": ((b"local KEYS, FIXED", b"do return nil end\nlocal KEYS, FIXED"),),
    "claim_start": (
        (b"local general = left > AT_ONCE", b"local general = true"),
        (b"if available and available <= now then", b"if false then"),
    ),
    "settle_ack": ((b"if #ARGV == 3 then", b"if false then"), (b"if n > 0 then", b"if false then")),
}
"""Where a script takes its short way, and what keeps it from it."""
PLACE = re.compile(r":\d+/|script: .*")
"""Where an error happened: a server, and perhaps a line of a script, which has other ones if something is cut out."""
CLOCK = (b"tonumber(time[1]) + tonumber(time[2]) / 1e6", b"tonumber(call('GET', 'clock'))")
START = 1_700_000_000.0

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
                for old, new in CUT[name]:
                    body = self._exchanged(body, old, new)
            sha = hashlib.sha1(body).hexdigest().encode()
            found = self._made[name, self.cut] = replace(found, body=body, sha=sha)
        return found

    @staticmethod
    def _exchanged(body: bytes, old: bytes, new: bytes) -> bytes:
        assert body.count(old) == 1, f"{old!r} is not in the script"
        return body.replace(old, new)


class Hand:
    """A worker that may be handed tasks, or not."""

    def __init__(self) -> None:
        self.at_rest = False
        self.taken: list[tuple[DeliveryHandle, TaskRecord]] = []

    def take(self, claimed: list[tuple[DeliveryHandle, TaskRecord]]) -> None:
        self.taken += claimed


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
        self.link.run = self.noted(self.link.run)  # type: ignore[method-assign]
        self.broker, self.storage = RedisBroker(self.link), RedisStorage(self.link)
        for part in (self.broker, self.storage):
            part.bind(PluginManager(), app_name="app", config=QueueConfig())
            await part.open()
            part.clock = lambda: self.now
        self.link.notifier.channel = b"qtasks:tell"  # by chance it would be another one on each side
        assert await self.link.notifier.ensure(10.0)
        self.hand = Hand()
        self.broker.hand_to(self.hand)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for part in (self.broker, self.storage):
            await part.close()
        self.messages.close()
        self.client.close()

    def noted(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Of a claim's reply, how long to rest is known to the broker alone."""

        async def noting(name: str, *args: Any, **kwargs: Any) -> Any:
            reply = await run(name, *args, **kwargs)
            self.rest = reply[0] if name == "claim_start" else None
            return reply

        return noting

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.client.set("clock", repr(self.now))

    async def does(self, step: Callable[[Side], Any]) -> tuple[Any, ...]:
        """The step; what it gave, and what it left."""
        self.ways.cut = self.cut
        try:
            reply = await step(self)
        except QTasksError as error:
            reply = PLACE.sub("", f"{type(error).__name__}: {error}")
        return reply, self.contents(), self.told()

    def told(self) -> list[tuple[bytes, bytes]]:
        self.client.publish("fence", "")
        found = []
        while (message := self.messages.get_message(timeout=10.0)) is not None:
            if message["channel"] == b"fence" and message["type"] == "pmessage":
                return sorted(found)  # of several results, none has to come first
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
