"""Rules R4 and R5 as pure functions, so that every backend that decides in Python decides alike."""

from __future__ import annotations

from dataclasses import replace

from qtasks.components.primitives import DeliveryHandle, Outcome, Settle, SettleVerdict, Start
from qtasks.schemas import TaskStatusEnum

STATUS_OF_OUTCOME = {
    Outcome.SUCCESS: TaskStatusEnum.SUCCESS,
    Outcome.ERROR: TaskStatusEnum.ERROR,
    Outcome.CANCEL: TaskStatusEnum.CANCEL,
    Outcome.RETRY: TaskStatusEnum.NEW,
    Outcome.RELEASE: TaskStatusEnum.NEW,
}


def may_start(
    status: TaskStatusEnum, epoch: int, owner: str, available_at: float, handle: DeliveryHandle, now: float
) -> Start:
    """What a start of this delivery finds (R4).

    Parameters:
        status, epoch, owner, available_at: of the record as it is stored.
        handle: the delivery.
        now: Unix seconds.
    """
    if status.terminal:
        return Start.TERMINAL
    if handle.epoch == epoch and handle.owner == owner and status is TaskStatusEnum.PROCESS:
        return Start.STARTED  # the reply to the first start was lost
    if handle.epoch <= epoch:
        return Start.CONFLICT
    return Start.NOT_DUE if available_at > now else Start.STARTED


def timed(settle: Settle, now: float) -> Settle:
    """The settle with the time from which a task that it puts back is due.

    Parameters:
        now: Unix seconds, by the clock of the storage.
    """
    if settle.nack is None or "available_at" in settle.changes:
        return settle
    return replace(settle, changes={**settle.changes, "available_at": now + settle.nack.delay})


def may_settle(status: TaskStatusEnum, epoch: int, owner: str, handle: DeliveryHandle) -> SettleVerdict:
    """What a settle of this delivery finds (R4, R5); parameters as for `may_start`."""
    if handle.epoch != epoch or handle.owner != owner:
        return SettleVerdict.REJECTED
    return SettleVerdict.ACCEPTED if status is TaskStatusEnum.PROCESS else SettleVerdict.ALREADY_MINE
