"""The state of the modelled protocol: one task's record and entry, two workers, and what may still go wrong."""

from __future__ import annotations

from typing import NamedTuple

from qtasks.components.primitives import Outcome
from qtasks.schemas import TaskStatusEnum

MAX_DELIVERIES = 3
RETRY = 1


class Record(NamedTuple):
    """What the storage keeps. `result` names the token whose outcome is visible."""

    status: TaskStatusEnum = TaskStatusEnum.NEW
    epoch: int = 0
    owner: str = ""
    attempt: int = 0
    asked: bool = False
    result: str = ""


class Entry(NamedTuple):
    """What the broker keeps: `at` is ready, leased or buried."""

    at: str = "ready"
    epoch: int = 0
    owner: str = ""
    deliveries: int = 0
    expired: bool = False


class Handle(NamedTuple):
    """A token as a worker holds it, with the names that the rules of the project read."""

    epoch: int
    owner: str
    deliveries: int


class Work(NamedTuple):
    """What a worker is about to do: idle, start, run, settle or ack."""

    step: str = "idle"
    handle: Handle | None = None
    attempt: int = 0
    outcome: Outcome | None = None


IDLE = Work()


class Faults(NamedTuple):
    """How often each thing may still go wrong, and how many things in all."""

    total: int = 2
    crashes: int = 2
    pauses: int = 2
    wipes: int = 1
    lost_replies: int = 1
    cancels: int = 1


class State(NamedTuple):
    """All of it. The last four are history: what the invariants count.

    Attributes:
        producer: new, half (the first of its two steps is done), done, gone (killed between them).
        counter: the broker's epoch counter.
        lives: how often each worker was started; a new process has a new owner.
        sweeps: sweepers that have read an expired lease and not yet written (mutant only).
        seen: the record's epoch as a reconciler read it, before it asks the broker.
        burying: a restorer has written a burial and not yet discarded the entry.
        discarding: a client has cancelled the record and not yet discarded the entry.
    """

    producer: str = "new"
    record: Record | None = None
    entry: Entry | None = None
    counter: int = 0
    workers: tuple[Work, Work] = (IDLE, IDLE)
    lives: tuple[int, int] = (0, 0)
    sweeps: int = 0
    seen: int | None = None
    burying: bool = False
    discarding: bool = False
    faults: Faults = Faults()
    runs: int = 0
    expiries: int = 0
    wipes: int = 0
    retries: int = 0
