"""The Redis storage: records in hashes, changed by scripts (rules R4, R5)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from redis.exceptions import RedisError

from qtasks.codec import decode, encode
from qtasks.components.primitives import (
    AddVerdict,
    Buried,
    CancelVerdict,
    Capabilities,
    DeliveryHandle,
    Page,
    Settle,
    SettleVerdict,
    Start,
    StartVerdict,
    Update,
)
from qtasks.components.redis.broker import CAPABILITIES, add_verdicts, gather, hold, settle_verdicts
from qtasks.components.redis.faults import backend_error
from qtasks.components.redis.link import RedisLink
from qtasks.components.redis.notify import QUIET
from qtasks.components.redis.records import apply_token, decode_finished, decode_shown, encode_lines
from qtasks.components.redis.target import Target
from qtasks.components.redis.wire import added, chunks, number, queues_of, settled
from qtasks.components.storage import Storage
from qtasks.errors import TransientError
from qtasks.ids import uuid_of
from qtasks.schemas import TaskRecord, TaskStatusEnum

_START = struct.Struct(">16sdI")
_BURY = struct.Struct(">16sd")
_UPDATE = struct.Struct(">16sdddd")
_STARTS = {
    b"T": Start.TERMINAL,
    b"M": Start.MISSING,
    b"U": Start.MISSING,
    b"C": Start.CONFLICT,
    b"D": Start.NOT_DUE,
}
_CANCELLED = {
    ord("c"): CancelVerdict.CANCELLED, ord("r"): CancelVerdict.REQUESTED,
    ord("t"): CancelVerdict.TERMINAL, ord("m"): CancelVerdict.MISSING,
}  # fmt: skip
_DEAF = 0.5
"""Seconds between its looks while notifications are interrupted."""


class RedisStorage(Storage):
    """Keeps records in Redis ≥ 6.2 or Valkey.

    Parameters:
        where: a URL, or the link that it shares with the broker.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, where: str | Target | RedisLink) -> None:
        super().__init__()
        self.link = where if isinstance(where, RedisLink) else RedisLink(where)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.link.target.masked})"

    @property
    def locality(self) -> str:
        return f"redis {self.link.target.place} app {self.app_name}"

    async def open(self) -> None:
        await self.link.open(self, self.app_name, self.config)

    async def close(self) -> None:
        await self.link.close(self)

    # --- The life of a record ---------------------------------------------------------------------

    async def add_many(self, records: Sequence[TaskRecord]) -> list[AddVerdict]:
        parts = list(chunks(records))
        calls = []
        for part in parts:
            args: list[bytes] = []
            for record in part:
                args += added(record)
            calls.append(self.link.run("add", args, durable=True))
        return [
            verdict
            for part, reply in zip(parts, await gather(calls), strict=True)
            for verdict in add_verdicts(reply, [record.uuid for record in part])
        ]

    async def start_many(self, handles: Sequence[DeliveryHandle]) -> list[StartVerdict]:
        verdicts: list[StartVerdict] = []
        for part in chunks(handles):
            args = [_START.pack(h.uuid.bytes, h.epoch, h.deliveries) + h.owner.encode() for h in part]
            reply = await self.link.run("start", args)
            for i, handle in enumerate(part):
                verdicts.append(_start_verdict(handle, *reply[3 * i : 3 * i + 3]))
        return verdicts

    async def settle_many(self, settles: Sequence[Settle]) -> list[SettleVerdict]:
        calls = []
        for part in chunks(settles):
            queues = queues_of(record.queue for settle in part for record in settle.then)
            args: list[bytes] = []
            for settle in part:
                args += settled(settle, queues)
            calls.append(self.link.run("settle", args, durable=True))
        return settle_verdicts(b"".join(await gather(calls)))

    async def bury_many(self, buried: Sequence[Buried], *, expires_at: float) -> list[bool]:
        now = self.clock()
        done = b""
        for part in chunks(buried):
            args = [number(expires_at)]
            for item in part:
                changes = {
                    "status": TaskStatusEnum.ERROR, "dead": True, "traceback": item.reason,
                    "updated_at": now, "finished_at": now, "expires_at": expires_at,
                }  # fmt: skip
                args += (_BURY.pack(item.uuid.bytes, item.epoch), encode(changes))
            done += await self.link.run("bury_records", args)
        return [code == ord("1") for code in done]

    async def cancel_many(
        self, uuids: Sequence[UUID], reason: str, *, expires_at: float
    ) -> list[CancelVerdict]:
        now = self.clock()
        changes = {
            "status": TaskStatusEnum.CANCEL, "cancel_reason": reason,
            "updated_at": now, "finished_at": now, "expires_at": expires_at,
        }  # fmt: skip
        head = [encode(reason), number(expires_at), encode(changes)]
        codes = b""
        for part in chunks(uuids):
            codes += await self.link.run("cancel", [*head, *(uuid.bytes for uuid in part)])
        return [_CANCELLED[code] for code in codes]

    async def cancel_requested_many(self, uuids: Sequence[UUID]) -> list[bool]:
        found: list[bytes | None] = []
        for part in chunks(uuids):
            found += await self.link.command(
                "HMGET", self.link.calls.key("cancel"), *(uuid.bytes for uuid in part)
            )
        return [value is not None for value in found]

    async def update_many(self, updates: Sequence[Update]) -> list[bool]:
        done = b""
        for part in chunks(updates):
            args = []
            for update in part:
                numbers, lines = encode_lines(update.changes)
                args.append(_UPDATE.pack(update.uuid.bytes, *numbers) + lines)
            done += await self.link.run("update", args)
        return [code == ord("1") for code in done]

    # --- Reading ----------------------------------------------------------------------------------

    async def get_many(self, uuids: Sequence[UUID]) -> list[TaskRecord | None]:
        calls = [self.link.run("get", [uuid.bytes for uuid in part]) for part in chunks(uuids)]
        return [record for reply in await gather(calls) for record in _shown(reply)]

    async def scan(self, cursor: str | None, limit: int) -> Page:
        return await self._page("scan", cursor or "", limit)

    async def scan_open(self, cursor: str | None, limit: int, created_before: float) -> Page:
        page = await self._page("scan_open", cursor or "0", limit)
        return Page(
            [record for record in page.records if record.created_at < created_before],
            None if page.cursor == "0" else page.cursor,
        )

    async def scan_dead(self, cursor: str | None, limit: int) -> Page:
        return await self._page("scan_dead", cursor or "", limit)

    async def _page(self, name: str, cursor: str, limit: int) -> Page:
        following, *rest = await self.link.run(name, [cursor.encode(), b"%d" % limit])
        return Page([record for record in _shown(rest) if record is not None], following.decode() or None)

    async def counts(self) -> dict[str, int]:
        still_open, with_token, finished, dead, counters = await self.link.run("counts", [])
        counted = {counters[i]: int(counters[i + 1]) for i in range(0, len(counters), 2)}
        back, error, cancel = (counted.get(name, 0) for name in (b"back", b"e", b"c"))
        process = with_token - back
        return {
            "new": still_open - process, "process": process, "success": finished - error - cancel,
            "error": error, "cancel": cancel, "dead": dead,
        }  # fmt: skip

    async def get_settled(self, uuid: UUID) -> TaskRecord | None:
        return await self._look(uuid, b"")

    async def _look(self, uuid: UUID, channel: bytes) -> TaskRecord | None:
        reply = await self.link.run("wait", [uuid.bytes, channel])
        if reply[0] == b"F":
            return decode_finished(uuid, reply[1])
        if reply[0] == b"R":
            return None
        raise LookupError(f"there is no record of task {uuid}")

    async def wait_settled(self, uuid: UUID, timeout: float | None) -> TaskRecord | None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        notifier = self.link.notifier
        key = uuid.bytes
        seen = False
        while True:
            left = QUIET if deadline is None else deadline - loop.time()
            try:
                hears = notifier.listening or await notifier.ensure(
                    min(max(left, 0), self.link.target.timeout)
                )
            except RedisError as error:
                raise backend_error(error, self.link.target.masked) from error
            expected = notifier.expected(key) if left > 0 else None
            told = expected or notifier.register(key)
            try:
                try:
                    if expected is None:
                        record = await self._look(uuid, notifier.channel if hears and left > 0 else b"")
                    else:
                        record = None  # the step that added it left word
                except TransientError:
                    # Who waits already waits on through a restart of the server.
                    if not seen:
                        raise
                    record, hears = None, False
                seen = True
                if record is not None:
                    return record
                left = QUIET if deadline is None else deadline - loop.time()
                if left <= 0:
                    return None
                # Not heard means read again: soon while notifications are interrupted.
                if (value := await _heard(told, left if hears else min(left, _DEAF))) is not None:
                    return decode_finished(uuid, value)
            finally:
                notifier.forget(key, told)

    # --- Streams ----------------------------------------------------------------------------------

    async def append_items(self, handle: DeliveryHandle, index: int, items: Sequence[Any]) -> bool:
        args = [
            handle.uuid.bytes,
            b"%d" % handle.epoch,
            handle.owner.encode(),
            b"%d" % index,
            *map(encode, items),
        ]
        return bool(await self.link.run("append", args))

    async def read_items(self, uuid: UUID, start: int, limit: int) -> list[Any]:
        return [
            decode(item) for item in await self.link.run("items", [uuid.bytes, b"%d" % start, b"%d" % limit])
        ]

    # --- Deleting ---------------------------------------------------------------------------------

    async def delete_many(self, uuids: Sequence[UUID]) -> list[bool]:
        self.link.notifier.unexpect()
        codes = b""
        for part in chunks(uuids):
            codes += await self.link.run("delete", [uuid.bytes for uuid in part])
        return [code == ord("1") for code in codes]

    async def purge(self, before: float, dead_max: int) -> int:
        return await self._purge(number(before), b"") + await self._purge(b"", b"%d" % dead_max)

    async def _purge(self, before: bytes, dead_max: bytes, page: int = 200) -> int:
        total = 0
        while True:
            seen: int
            erased: int
            seen, erased = await self.link.run("purge", [before, dead_max, b"%d" % page])
            total += erased
            if seen < page:
                return total

    async def flush(self) -> None:
        self.link.notifier.unexpect()
        await self.link.run("flush_records", [])

    async def erase(self) -> None:
        await self.flush()
        await self.link.erase("hold")

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        return await hold(self.link, "take", owner, ttl)

    async def release_exclusive(self, owner: str) -> None:
        await hold(self.link, "give", owner, 0)


async def _heard(told: asyncio.Future[bytes | None], seconds: float) -> bytes | None:
    """What is told, or `None` after so many seconds: look again. Whoever waits for longer than `QUIET` is made to look
    by the notifier: a timer takes a twentieth of what a client does for a task, so none is made in vain."""
    if seconds >= QUIET:
        return await told
    timer = asyncio.get_running_loop().call_later(seconds, _look_again, told)
    try:
        return await told
    finally:
        timer.cancel()


def _look_again(told: asyncio.Future[bytes | None]) -> None:
    if not told.done():
        told.set_result(None)


def _start_verdict(handle: DeliveryHandle, kind: bytes, value: bytes, run: bytes) -> StartVerdict:
    if kind == b"S":
        record = decode_shown(handle.uuid, b"R", value, run, b"")
        # A damaged record is as good as none: it is looked for again, then buried.
        return StartVerdict(Start.MISSING) if record is None else StartVerdict(Start.STARTED, record)
    return StartVerdict(
        _STARTS[kind],
        epoch=int(float(value)) if kind == b"C" else 0,
        delay=float(value) if kind == b"D" else 0.0,
    )


def _shown(reply: Sequence[bytes]) -> list[TaskRecord | None]:
    return [decode_shown(uuid_of(reply[i]), *reply[i + 1 : i + 5]) for i in range(0, len(reply), 5)]


__all__ = ["RedisStorage", "apply_token"]
