"""A single settle by its short way and by the long one: of a task as most are, and of ones that differ in one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qtasks.components.primitives import DeliveryHandle, Nack, Outcome, Settle
from qtasks.schemas import TaskRecord, TaskStatusEnum
from tests.components.redis_ways_support import START, Side, Ways
from tests.components.test_redis_ways import KEYS, TERMINAL, adding, raw, uuid
from tests.support.redis_server import RedisServer

Change = Callable[[Any, bytes], Any]


def altered(name: str, at: int, byte: bytes) -> Change:
    """Of an entry, a token or a record, a byte is another one."""

    def alter(client: Any, uuid: bytes) -> None:
        value = client.hget(KEYS[name], uuid)
        at_end = at % len(value)
        assert value[at_end : at_end + 1] != byte
        client.hset(KEYS[name], uuid, value[:at_end] + byte + value[at_end + 1 :])

    return alter


def cut(size: int) -> Change:
    """Of a record, only so many bytes are left."""
    return lambda client, uuid: client.hset(KEYS["rec"], uuid, client.hget(KEYS["rec"], uuid)[:size])


def lost(name: str) -> Change:
    return lambda client, uuid: client.hdel(KEYS[name], uuid)


def put(name: str, value: str) -> Change:
    return lambda client, uuid: client.hset(KEYS[name], uuid, value)


CASES: dict[str, tuple[Change | None, dict[str, Any], dict[str, Any]]] = {
    # what is changed before | of the record | of the settle
    "as most": (None, {}, {}),
    "not due at once": (None, {"created_at": START - 9}, {}),
    "failed": (None, {}, {"outcome": Outcome.ERROR}),
    "cancelled": (None, {}, {"outcome": Outcome.CANCEL}),
    "kept for ever": (None, {}, {"expires_at": None}),
    "dead": (None, {}, {"outcome": Outcome.ERROR, "dead": True}),
    "goes on": (None, {}, {"outcome": Outcome.RETRY}),
    "its entry goes back": (None, {}, {"back": True}),
    "a unique key": (None, {"unique_key": "key"}, {}),
    "a digest of its own": (None, {"digest": "text"}, {}),
    "waited for": (put("wait", "qtasks:waiter"), {}, {}),
    "waited for by two": (put("wait", "qtasks:waiter qtasks:other"), {}, {}),
    "to be cancelled": (put("cancel", "why"), {}, {}),
    "no record": (lost("rec"), {}, {}),
    "no token": (lost("run"), {}, {}),
    "no entry": (lost("ent"), {}, {}),
    "no record that is known": (altered("rec", 0, b"X"), {}, {}),
    "a record that is too short": (cut(31), {}, {}),
    "a record that is not too short": (cut(32), {}, {}),
    "a longer one that is too short": (cut(39), {"created_at": START - 9}, {}),
    "a longer one that is not too short": (cut(40), {"created_at": START - 9}, {}),
    "flags": (altered("rec", 7, b"\2"), {}, {}),
    "a token that was put back": (altered("run", 0, b"N"), {}, {}),
    "a token of another claim": (altered("run", 8, b"\1"), {}, {}),
    "a token of another owner": (altered("run", -1, b"x"), {}, {}),
    "an entry that waits": (altered("ent", 0, b"W"), {}, {}),
    "an entry of another claim": (altered("ent", 21, b"\1"), {}, {}),
    "an entry of another owner": (altered("ent", 31, b"x"), {}, {}),
    "an entry of another queue": (altered("ent", -1, b"x"), {}, {}),
}


def settle(
    handle: DeliveryHandle, outcome: Outcome = Outcome.SUCCESS, *, back: bool = False, **changes: Any
) -> Settle:
    made = {"status": TERMINAL.get(outcome, TaskStatusEnum.NEW), "updated_at": START}
    if outcome.terminal:
        made |= {"finished_at": START, "expires_at": START + 60}
    return Settle(handle, outcome, made | changes, nack=Nack(handle, 1.0, 1, 0) if back else None)


@pytest.fixture
def sides():
    with (
        RedisServer(appendonly="no") as first,
        RedisServer(appendonly="no") as second,
        pytest.MonkeyPatch.context() as patch,
    ):
        ways = Ways(patch)
        yield Side(first, ways, cut=False), Side(second, ways, cut=True)


async def test_a_single_end_does_what_the_long_way_does(sides):
    records = [
        TaskRecord(
            uuid=uuid(n), task_name="task", queue="alpha",
            **{
                "digest": "0a" * 16, "created_at": START, "updated_at": START, "available_at": START,
                **of_record,
            },
        )
        for n, (_, of_record, _) in enumerate(CASES.values())
    ]  # fmt: skip
    handles: dict[bytes, DeliveryHandle] = {}

    async def claim(side: Side) -> Any:
        claimed = await side.broker.claim_and_start(100, ("alpha",), "me", 30.0)
        handles.update({handle.uuid.bytes: handle for handle, _ in claimed})
        return claimed

    async with sides[0] as short, sides[1] as long:
        for step in (lambda side: adding(records, None, side), claim):
            assert await short.does(step) == await long.does(step)
        assert len(handles) == len(CASES)
        for record, (name, (change, _, of_settle)) in zip(records, CASES.items(), strict=True):
            if change is not None:
                for side in (short, long):
                    await side.does(raw(lambda client, it=change, of=record: it(client, of.uuid.bytes)))
            end = settle(handles[record.uuid.bytes], **of_settle)
            found = await short.does(lambda side, it=end: side.broker.settle_and_ack([it]))
            assert found == await long.does(lambda side, it=end: side.broker.settle_and_ack([it])), name
