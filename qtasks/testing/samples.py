"""Records, items and hostile text that the checks work with."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID, uuid4

from qtasks.components.primitives import DeliveryHandle, Nack, Outcome, PushItem, Settle
from qtasks.schemas import TaskRecord, TaskStatusEnum

HOSTILE = (
    "",
    " ",
    " a ",
    "*",
    "?",
    "[a-z]",
    "]",
    "{app}",
    "}",
    "a:b",
    "a::b",
    ":",
    "\\",
    "\\*",
    "'",
    '"',
    "'; DROP TABLE tasks; --",
    "%",
    "_",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "a\x00b",
    "null",
    "None",
    "é",
    "e\u0301",
    "ß",
    "日本語",
    "🦀",
    "\u202e",
    "A",
    "a",
    "0",
    "00",
    "1e3",
    "x" * 4000,
)
"""Text that is data and nothing else: all of these are different from each other."""

RELATED_APPS = ("a", "app", "app-1", "app_1", "app1", "App", "a" * 48)
"""Names of applications, some of which are prefixes of others, that must not see each other."""


def owner() -> str:
    """The name of a worker process: 64 random bits."""
    return secrets.token_hex(8)


def item(
    uuid: UUID | None = None, queue: str = "default", priority: int = 0, available_at: float = 0.0,
    min_epoch: int = 0,
) -> PushItem:  # fmt: skip
    """An entry to be pushed."""
    return PushItem(uuid or uuid4(), queue, priority, available_at, min_epoch)


def record(uuid: UUID | None = None, now: float = 0.0, **changes: Any) -> TaskRecord:
    """A new record, due at once.

    Parameters:
        uuid: its identity; without it a random one.
        now: when it is created and available, Unix seconds.
        changes: other fields.
    """
    times = {"created_at": now, "updated_at": now, "available_at": now}
    return TaskRecord(uuid=uuid or uuid4(), **{"task_name": "task", "digest": "d", **times, **changes})


def handle(
    uuid: UUID, epoch: int = 1, owner: str = "0123456789abcdef", deliveries: int = 1, restored: bool = False
) -> DeliveryHandle:
    """A delivery, as a broker would hand it out."""
    return DeliveryHandle(uuid, epoch, owner, deliveries, restored, "default", 0, 0.0)


def success(token: DeliveryHandle, now: float, returning: Any = None, **more: Any) -> Settle:
    """The settle of a delivery that ended well."""
    changes = {
        "status": TaskStatusEnum.SUCCESS, "updated_at": now, "finished_at": now,
        "expires_at": now + 1000.0, "returning": returning,
    }  # fmt: skip
    return Settle(token, Outcome.SUCCESS, changes, **more)


def error(token: DeliveryHandle, now: float, dead: bool = False) -> Settle:
    """The settle of a delivery that failed for good."""
    changes = {
        "status": TaskStatusEnum.ERROR, "updated_at": now, "finished_at": now,
        "expires_at": now + 1000.0, "traceback": "Boom", "dead": dead,
    }  # fmt: skip
    return Settle(token, Outcome.ERROR, changes)


def cancel(token: DeliveryHandle, now: float) -> Settle:
    """The settle of a delivery that was cancelled."""
    changes = {
        "status": TaskStatusEnum.CANCEL, "updated_at": now, "finished_at": now,
        "expires_at": now + 1000.0, "cancel_reason": "vetoed",
    }  # fmt: skip
    return Settle(token, Outcome.CANCEL, changes)


def retry(token: DeliveryHandle, now: float, delay: float = 0.0, attempt: int = 1) -> Settle:
    """The settle of a delivery that failed and is to be run again."""
    changes = {
        "status": TaskStatusEnum.NEW, "updated_at": now, "available_at": now + delay,
        "attempt": attempt, "deliveries": 0,
    }  # fmt: skip
    return Settle(token, Outcome.RETRY, changes, nack=Nack(token, delay, 0))


def release(token: DeliveryHandle, now: float, keep_delivery: bool = True) -> Settle:
    """The settle of a delivery that is given back."""
    kept = token.deliveries - 1 if keep_delivery else token.deliveries
    changes = {"status": TaskStatusEnum.NEW, "updated_at": now, "deliveries": kept}
    return Settle(token, Outcome.RELEASE, changes, nack=Nack(token, 0.0, kept))
