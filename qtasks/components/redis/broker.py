"""The Redis broker: entries in sorted sets, moved by scripts (rules R3, R7, R8)."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, ClassVar
from uuid import UUID

from redis.exceptions import RedisError

from qtasks.components.broker import Broker, Colocated, LeaseKeeper, Taker
from qtasks.components.primitives import (
    Added,
    AddVerdict,
    Buried,
    Capabilities,
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
from qtasks.components.redis.combine import Combiner
from qtasks.components.redis.faults import backend_error
from qtasks.components.redis.keeper import RedisLeaseKeeper
from qtasks.components.redis.link import RedisLink
from qtasks.components.redis.notify import Notifier
from qtasks.components.redis.records import UnreadableError, decode_open
from qtasks.components.redis.target import Target
from qtasks.components.redis.wire import (
    CHUNK,
    Addition,
    HandedOver,
    addition,
    additions,
    chunks,
    dropped,
    handles_of,
    held,
    is_plain_addition,
    number,
    place,
    queues_of,
    settled,
    token,
)
from qtasks.errors import TransientError
from qtasks.ids import uuid_of
from qtasks.schemas import TaskRecord, TaskStatusEnum

_log = logging.getLogger("qtasks.redis")
CAPABILITIES = Capabilities(
    durable=True, shared=True, fsync=True, replica=True, notifications=True, streams=True, colocated=True
)
_PUSH = struct.Struct(">16sHhdd")
_NACK = struct.Struct(">16sddId")
_EPOCH = struct.Struct(">d")
_ADDED = {
    ord("A"): Added.ADDED, ord("H"): Added.ADDED, ord("S"): Added.SAME, ord("C"): Added.CONFLICT,
    ord("E"): Added.EXISTS, ord("F"): Added.FULL,
}  # fmt: skip
_SETTLED = {
    ord("A"): SettleVerdict.ACCEPTED, ord("M"): SettleVerdict.ALREADY_MINE, ord("R"): SettleVerdict.REJECTED,
}  # fmt: skip
PART = 200
"""Records of one call: long batches are sent part by part, so that client and server work side by side."""
PARTS_AHEAD = 4
"""Parts under way at most: enough for the server to have work, few enough for others to come in between."""
_POLL = 1.0
"""Seconds between looks for work while notifications are interrupted."""


def add_verdicts(reply: bytes, uuids: Sequence[UUID]) -> list[AddVerdict]:
    """What add.lua and add_push.lua say of the records with these uuids: a letter for each, and behind them the
    uuids of those that have the unique keys already."""
    if reply == b"A" * len(uuids):
        return [AddVerdict(Added.ADDED, uuid) for uuid in uuids]
    verdicts: list[AddVerdict] = []
    others = len(uuids)
    for letter, uuid in zip(reply, uuids, strict=False):
        kind = _ADDED[letter]
        if kind is Added.EXISTS:
            uuid, others = uuid_of(reply[others : others + 16]), others + 16
        verdicts.append(AddVerdict(kind, uuid))
    return verdicts


def settle_verdicts(reply: bytes) -> list[SettleVerdict]:
    """What settle.lua and settle_ack.lua say."""
    return [_SETTLED[code] for code in reply]


class RedisBroker(Broker, Colocated):
    """Delivers tasks through Redis ≥ 6.2 or Valkey.

    Parameters:
        where: a URL, or the link that it shares with the storage.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, where: str | Target | RedisLink) -> None:
        super().__init__()
        self.link = where if isinstance(where, RedisLink) else RedisLink(where)
        # The queues for which this process is registered to be told of work, and the connection
        # (by its generation) that it would hear on.
        self._armed: tuple[tuple[str, ...], int] | None = None
        self._next_due: float | None = None
        self._notifier: Notifier | None = None
        self._taker: Taker | None = None
        self._owner = ""
        self._unreadable: list[tuple[DeliveryHandle, str]] = []
        self._audit_cursor = b"0"
        self._combined: Combiner[tuple[Addition, int | None], AddVerdict] = Combiner(self._add)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.link.target.masked})"

    @property
    def locality(self) -> str:
        return f"redis {self.link.target.place} app {self.app_name}"

    async def open(self) -> None:
        await self.link.open(self, self.app_name, self.config)
        # What was under way in another loop, or in the parent process before a fork, is nobody's here.
        self._combined = Combiner(self._add)
        self._notifier = self.link.notifier
        self._notifier.handed.add(self._handed)

    async def close(self) -> None:
        self._armed = self._taker = None
        await self.link.close(self)

    # --- Entries ----------------------------------------------------------------------------------

    async def push_many(self, items: Sequence[PushItem]) -> list[PushVerdict]:
        calls = []
        for part in chunks(items):
            queues = queues_of(item.queue for item in part)
            args = [
                _PUSH.pack(
                    item.uuid.bytes,
                    queues.index(item.queue),
                    item.priority,
                    item.available_at,
                    item.min_epoch,
                )
                for item in part
            ]
            calls.append(self.link.run("push", args, queues, durable=True))
        replies: list[bytes] = await gather(calls)
        return [
            PushVerdict.PUSHED if code == ord("p") else PushVerdict.ALREADY_THERE
            for code in b"".join(replies)
        ]

    async def claim(self, n: int, queues: Sequence[str], owner: str, lease: float) -> list[DeliveryHandle]:
        names = tuple(queues)
        reply = await self._claim("claim", names, [b"%d" % n, owner.encode(), number(lease)], [])
        return handles_of(reply[2], owner, names)

    async def _claim(
        self, name: str, queues: tuple[str, ...], args: list[bytes], more: list[bytes]
    ) -> list[Any]:
        """Claims; a reply that has all there was has registered this process to be told of more."""
        notifier = self.link.notifier
        notifier.start()
        channel = notifier.channel if notifier.listening else b""
        generation = notifier.generation
        notifier.work.clear()  # before the claim: what arrives after it is not in its reply
        reply: list[Any] = await self.link.run(name, [*args, channel, *more], queues)
        self._armed = (queues, generation) if channel and reply[0] != b"0" else None
        self._next_due = float(reply[0]) + asyncio.get_running_loop().time() if reply[0] else None
        return reply

    async def extend_many(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        replies = await self._for_handles("extend", number(lease), handles)
        return held(b"".join(replies))

    async def ack_many(self, handles: Sequence[DeliveryHandle]) -> list[DropVerdict]:
        return dropped(b"".join(await self._for_handles("ack", b"ack", handles)))

    async def bury_many(self, handles: Sequence[DeliveryHandle], reason: str) -> list[DropVerdict]:
        why = b"bury:" + reason.encode()
        return dropped(b"".join(await self._for_handles("ack", why, handles)))

    async def _for_handles(self, name: str, first: bytes, handles: Sequence[DeliveryHandle]) -> list[bytes]:
        calls = [
            self.link.run(name, [first, *map(token, part)], queues_of(handle.queue for handle in part))
            for part in chunks(handles)
        ]
        return await gather(calls)

    async def nack_many(self, nacks: Sequence[Nack]) -> list[DropVerdict]:
        calls = []
        for part in chunks(nacks):
            args = [
                _NACK.pack(n.handle.uuid.bytes, n.handle.epoch, n.delay, n.deliveries, n.min_epoch)
                + n.handle.owner.encode()
                for n in part
            ]
            calls.append(self.link.run("nack", args, queues_of(n.handle.queue for n in part)))
        return dropped(b"".join(await gather(calls)))

    # --- Care -------------------------------------------------------------------------------------

    async def sweep(self, limit: int, max_deliveries: int) -> SweepReport:
        restored, buried = await self.link.run_on_all("sweep", [b"%d" % limit, b"%d" % max_deliveries])
        return SweepReport(
            [UUID(bytes=uuid) for uuid in restored],
            [
                Buried(UUID(bytes=buried[i]), int(float(buried[i + 1])), buried[i + 2].decode())
                for i in range(0, len(buried), 3)
            ],
        )

    async def audit(self, limit: int) -> list[UUID]:
        repaired: list[UUID] = []
        seen = 0
        while seen < limit:
            self._audit_cursor, found, uuids = await self.link.run_on_all(
                "audit", [self._audit_cursor, b"%d" % min(limit, CHUNK)]
            )
            repaired += [UUID(bytes=uuid) for uuid in uuids]
            seen += found
            if self._audit_cursor == b"0":
                break
        return repaired

    async def contains_many(self, uuids: Sequence[UUID]) -> list[bool]:
        known = b""
        for part in chunks(uuids):
            known += (await self.link.run_on_all("contains", [uuid.bytes for uuid in part]))[0]
        return [code == ord("1") for code in known]

    async def discard_many(self, uuids: Sequence[UUID]) -> None:
        for part in chunks(uuids):
            await self.link.run_on_all("discard", [uuid.bytes for uuid in part])

    async def size(self) -> dict[str, QueueSize]:
        found = await self.link.run_on_all("size", [])
        sizes = {name.decode(): QueueSize(*states) for name, *states in found}
        return {name: size for name, size in sorted(sizes.items()) if any(size)}

    async def buried(self, limit: int) -> list[Buried]:
        found: list[Buried] = []
        cursor = b"0"
        while len(found) < limit:
            cursor, fields = await self.link.command(
                "HSCAN", self.link.calls.key("buried"), cursor, "COUNT", str(limit)
            )
            for i in range(0, len(fields), 2):
                (epoch,) = _EPOCH.unpack_from(fields[i + 1])
                found.append(Buried(UUID(bytes=fields[i]), int(epoch), fields[i + 1][_EPOCH.size :].decode()))
            if cursor == b"0":
                break
        return found[:limit]

    async def flush(self) -> None:
        await self.link.run_on_all("flush", [])

    async def erase(self) -> None:
        await self.flush()
        await self.link.erase("epoch", "seq", "wake", "hold")

    # --- Being told -------------------------------------------------------------------------------

    async def wait_for_work(self, queues: Sequence[str], timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        names = tuple(queues)
        notifier = self.link.notifier
        try:
            hears = await notifier.ensure(min(timeout, self.link.target.timeout))
        except RedisError as error:
            raise backend_error(error, self.link.target.masked) from error
        if not hears:
            # Nobody will tell: look again when something is due, or after a while.
            deadline = min(deadline, loop.time() + _POLL)
        elif self._armed != (names, notifier.generation) and not notifier.work.is_set():
            await self._claim("claim", names, [b"0", b"", b"0"], [])
            if self._armed is None:
                return
        if self._next_due is not None:
            deadline = min(deadline, self._next_due)
        try:
            async with asyncio.timeout_at(deadline):
                await notifier.work.wait()
            self._armed = None  # a registration is used once
        except TimeoutError:
            return

    def lease_keeper(self) -> LeaseKeeper:
        return RedisLeaseKeeper(self.link.target, self.link.calls)

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return await hold(self.link, "take", owner, ttl)

    async def release_exclusive(self, owner: str) -> None:
        await hold(self.link, "give", owner, 0)

    # --- With the storage in one step -------------------------------------------------------------

    async def add_and_push(self, records: Sequence[TaskRecord], max_queue: int | None) -> list[AddVerdict]:
        if len(records) <= PART:
            return await self._combined([(addition(record), max_queue) for record in records])
        adding: list[asyncio.Task[list[AddVerdict]]] = []
        try:
            for part in chunks(records, PART):
                if len(adding) >= PARTS_AHEAD:
                    await asyncio.wait([adding[-PARTS_AHEAD]])
                queues = queues_of([record.queue for record in part])
                args, plain = additions(part, queues)
                sent = self._send(args, plain, queues, max_queue, [record.uuid for record in part])
                adding.append(asyncio.create_task(sent, name="qtasks-redis-add"))
                await asyncio.sleep(0)  # the server works at it while the next part is written
        finally:
            # All are waited for, also when one fails: what one of them has stored is not known before.
            replies = await gather(adding)
        return [verdict for verdicts in replies for verdict in verdicts]

    def _add(self, items: Sequence[tuple[Addition, int | None]]) -> Coroutine[Any, Any, list[AddVerdict]]:
        if len(items) == 1:  # lists of one would be a twelfth of what it takes the client
            (record, started, part), max_queue = items[0]
            args = [place(record, started, (record.queue,)), part]
            plain = is_plain_addition(started, part)
            return self._send(args, plain, (record.queue,), max_queue, [record.uuid])
        records = [record for (record, _, _), _ in items]
        queues = queues_of([record.queue for record in records])
        args = []
        plain = True
        for (record, started, part), _ in items:
            plain = plain and is_plain_addition(started, part)
            args += (place(record, started, queues), part)
        return self._send(args, plain, queues, items[0][1], [record.uuid for record in records])

    async def _send(
        self,
        args: list[bytes],
        plain: bool,
        queues: tuple[str, ...],
        max_queue: int | None,
        uuids: list[UUID],
    ) -> list[AddVerdict]:
        args.insert(0, b"" if max_queue is None else b"%d" % max_queue)
        reply = None
        notifier = self._notifier
        if notifier is not None:
            notifier.unexpect()  # of the task before: this one may have its uuid
        if plain:
            if len(uuids) == 1 and notifier is not None and notifier.expects:
                generation, told = notifier.generation, notifier.early
                reply = await self.link.run(
                    "add_plain", [*args, notifier.channel], queues, durable=True, tells=True
                )
                if reply == b"H" and generation == notifier.generation:
                    notifier.expect(uuids[0].bytes, told)
            else:
                reply = await self.link.run("add_plain", args, queues, durable=True)
        if reply is None:
            reply = await self.link.run("add_push", args, queues, durable=True)
        return add_verdicts(reply, uuids)

    async def claim_and_start(
        self, n: int, queues: Sequence[str], owner: str, lease: float
    ) -> list[tuple[DeliveryHandle, TaskRecord]]:
        names = tuple(queues)
        self._owner = owner
        grace = number(self.config.missing_grace)
        at_rest = b"1" if self._taker is not None and self._taker.at_rest else b""
        _, now, entries, *values = await self._claim(
            "claim_start", names, [b"%d" % n, owner.encode(), number(lease)], [grace, at_rest]
        )
        started_at = float(now)
        started = []
        for handle, value in zip(handles_of(entries, owner, names), values, strict=True):
            record = self._started(handle, value, started_at)
            if record is not None:
                started.append((handle, record))
        while self._unreadable:
            handle, reason = self._unreadable.pop()
            await self.bury_many([handle], reason)
        return started

    def _started(self, handle: DeliveryHandle, value: bytes, started_at: float) -> TaskRecord | None:
        """The record of a delivery that the server started; one that cannot be read is noted, to be buried."""
        try:
            record = decode_open(handle.uuid, value)
        except Exception as error:  # whatever it is, it must cost neither the batch nor what else is told
            if not isinstance(error, UnreadableError):
                _log.exception("the record of task %s cannot be read", handle.uuid, exc_info=error)
            self._unreadable.append((handle, str(error)))
            return None
        record.status = TaskStatusEnum.PROCESS
        record.epoch, record.owner, record.deliveries = handle.epoch, handle.owner, handle.deliveries
        record.started_at = record.updated_at = started_at
        return record

    # --- Handed over ------------------------------------------------------------------------------

    def hand_to(self, taker: Taker) -> None:
        self._taker = taker

    async def withdraw(self) -> None:
        notifier = self.link.notifier
        if not notifier.used:
            return
        self._armed = None
        try:
            await self.link.command("HDEL", self.link.calls.key("wake"), notifier.channel)
            await notifier.caught_up()
        except BaseException as error:
            notifier.renew()
            if isinstance(error, TimeoutError):
                raise TransientError(f"{self!r} does not answer") from error
            raise
        notifier.work.set()  # whoever rests claims again, when it may

    def _handed(self, message: bytes) -> None:
        """Takes what add_plain.lua tells, inside the callback that reads it: it is held from this moment on."""
        try:
            handle, started_at, value = HandedOver.of(message)
        except (ValueError, struct.error) as error:
            _log.error("a message on the channel of this worker cannot be read: %s", error)
            return
        if self._taker is None or handle.owner != self._owner:
            return  # of another broker on this link, or nobody that is left claims here: its lease ends
        record = self._started(handle, value, started_at)
        if record is None:
            self.link.notifier.work.set()  # the next claim buries it
        else:
            self._taker.take([(handle, record)])

    async def settle_and_ack(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        calls = []
        for part in chunks(settles):
            names = [settle.handle.queue for settle in part]
            names += [record.queue for settle in part if settle.then for record in settle.then]
            queues = queues_of(names)
            args: list[bytes] = []
            for settle in part:
                args += settled(settle, queues)
            calls.append(self.link.run("settle_ack", args, queues, durable=True, tells=len(part) == 1))
        return settle_verdicts(b"".join(await gather(calls)))


async def gather(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """The replies in order; they travel together. All are waited for, also when one fails."""
    if len(calls) == 1:
        return [await calls[0]]
    replies: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return replies


async def hold(link: RedisLink, verb: str, owner: str, ttl: float) -> bool:
    """Takes, renews or gives back the exclusive id of the app."""
    args = [verb.encode(), owner.encode(), b"%d" % max(1, int(ttl * 1000))]
    return bool(await link.run("hold", args))
