"""Rules R4 and R5 as pure functions, so that every backend that decides in Python decides alike."""

from __future__ import annotations

from qtasks.components.primitives import DeliveryHandle, Outcome, SettleVerdict, Start
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


def may_settle(status: TaskStatusEnum, epoch: int, owner: str, handle: DeliveryHandle) -> SettleVerdict:
    """What a settle of this delivery finds (R4, R5); parameters as for `may_start`."""
    if handle.epoch != epoch or handle.owner != owner:
        return SettleVerdict.REJECTED
    return SettleVerdict.ACCEPTED if status is TaskStatusEnum.PROCESS else SettleVerdict.ALREADY_MINE
