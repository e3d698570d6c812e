"""The protocol as steps over a `State`, with the rules R4 and R5 taken from the package itself.

Each step yields `(name, is_fault, next state)`. A mutant is the name of one rule that is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from qtasks.components.primitives import Outcome, SettleVerdict, Start
from qtasks.components.rules import STATUS_OF_OUTCOME, may_settle, may_start
from qtasks.schemas import TaskStatusEnum

from .state import IDLE, MAX_DELIVERIES, RETRY, Entry, Faults, Handle, Record, State, Work

MUTANTS = (
    "ack before settle",
    "no storage fence",
    "push before store",
    "superseded worker acks",
    "sweep without compare-and-set",
    "no reconciler",
)


NONE_LEFT = Faults(0, 0, 0, 0, 0, 0)


class Step(NamedTuple):
    """One edge of the state graph."""

    name: str
    fault: bool
    state: State


class Protocol:
    """The steps of one pairing.

    Parameters:
        colocated: broker and storage change in one step; otherwise in two, and the broker can be wiped.
        mutant: one of `MUTANTS`, or nothing.
    """

    def __init__(self, *, colocated: bool, mutant: str = "") -> None:
        assert mutant in ("", *MUTANTS)
        self.colocated = colocated
        self.mutant = mutant

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        yield from self._producer(state)
        yield from self._client(state)
        for number in (0, 1):
            yield from self._worker(state, number)
        yield from self._restorer(state)
        yield from self._faults(state)

    # --- Producer and client ----------------------------------------------------------------

    def _producer(self, state: State) -> Iterator[Step]:
        store_first = self.mutant != "push before store"
        if state.producer == "new":
            if self.colocated:
                yield Step("add", False, _push(_store(state), 0)._replace(producer="done"))
            else:
                first = _store(state) if store_first else _push(state, 0)
                yield Step("add: first half", False, first._replace(producer="half"))
        elif state.producer == "half":
            second = _push(state, 0) if store_first else _store(state)
            yield Step("add: second half", False, second._replace(producer="done"))
            if state.faults.crashes:
                yield Step("producer killed", True, _spend(state, "crashes")._replace(producer="gone"))
        elif state.producer == "done" and state.faults.lost_replies:
            yield Step(
                "add: reply lost, added again", True, _spend(state, "lost_replies")._replace(producer="new")
            )

    def _client(self, state: State) -> Iterator[Step]:
        record = state.record
        if state.discarding:
            yield Step("cancel: discard", False, state._replace(entry=None, discarding=False))
        if record is None or not state.faults.cancels or record.status.terminal:
            return
        spent = _spend(state, "cancels")
        if record.status is TaskStatusEnum.PROCESS:
            yield Step("cancel: asked", True, spent._replace(record=record._replace(asked=True)))
        else:
            ended = record._replace(status=TaskStatusEnum.CANCEL, owner="", result="client")
            yield Step("cancel: record", True, spent._replace(record=ended, discarding=True))

    # --- Workers ----------------------------------------------------------------------------

    def _worker(self, state: State, number: int) -> Iterator[Step]:
        work = state.workers[number]
        if work.step == "idle":
            if state.entry is not None and state.entry.at == "ready":
                claimed = self._claim(state, number)
                yield Step(
                    f"w{number} claims", False, self._start(claimed, number) if self.colocated else claimed
                )
            return
        if work.step == "start":
            yield Step(f"w{number} starts", False, self._start(state, number))
        elif work.step == "run":
            yield from self._run(state, number)
        elif work.step == "settle":
            yield from self._settle(state, number)
        else:
            yield Step(f"w{number} acks", False, self._ack(state, number))
        if _holds(state, work.handle) and state.entry is not None and state.entry.expired:
            yield Step(f"w{number} extends", False, state._replace(entry=state.entry._replace(expired=False)))

    def _claim(self, state: State, number: int) -> State:
        entry = state.entry
        assert entry is not None
        epoch, owner = state.counter + 1, f"{number}.{state.lives[number]}"
        handle = Handle(epoch, owner, entry.deliveries + 1)
        leased = Entry("leased", epoch, owner, entry.deliveries + 1)
        return _set(state._replace(entry=leased, counter=epoch), number, Work("start", handle))

    def _start(self, state: State, number: int) -> State:
        handle, record = state.workers[number].handle, state.record
        if record is None:
            return _set(_nack(state, handle, handle.deliveries - 1, 0), number, IDLE)
        verdict = may_start(record.status, record.epoch, record.owner, 0.0, handle, 1.0)
        if verdict is Start.TERMINAL:  # R7
            return _set(_drop(state, handle), number, IDLE)
        if verdict is Start.CONFLICT:
            return _set(_nack(state, handle, handle.deliveries - 1, record.epoch), number, IDLE)
        started = record._replace(status=TaskStatusEnum.PROCESS, epoch=handle.epoch, owner=handle.owner)
        state = state._replace(record=started, runs=state.runs + 1)
        return _set(state, number, Work("run", handle, record.attempt))

    def _run(self, state: State, number: int) -> Iterator[Step]:
        work, record = state.workers[number], state.record
        failed = Outcome.RETRY if work.attempt < RETRY else Outcome.ERROR
        outcomes = [Outcome.SUCCESS, failed]
        if record is not None and record.asked and record.epoch == work.handle.epoch:
            outcomes = [Outcome.CANCEL]
        for outcome in outcomes:
            ended = work._replace(step="settle", outcome=outcome)
            if self.mutant == "ack before settle":
                yield Step(
                    f"w{number} acks early: {outcome}", False, _set(_drop(state, work.handle), number, ended)
                )
            else:
                yield Step(f"w{number} ends: {outcome}", False, _set(state, number, ended))

    def _settle(self, state: State, number: int) -> Iterator[Step]:
        work, record = state.workers[number], state.record
        assert record is not None
        verdict = may_settle(record.status, record.epoch, record.owner, work.handle)
        if self.mutant == "no storage fence":
            verdict = SettleVerdict.ACCEPTED
        if verdict is SettleVerdict.REJECTED:
            rejected = state
            if self.mutant == "superseded worker acks":
                rejected = state._replace(entry=None)
            yield Step(f"w{number} is rejected", False, _set(rejected, number, IDLE))
            return
        settled = state
        if verdict is SettleVerdict.ACCEPTED:
            settled = self._accepted(state, work)
            if state.faults.lost_replies:
                yield Step(f"w{number} settles, reply lost", True, _spend(settled, "lost_replies"))
        settled = _set(settled, number, work._replace(step="ack"))
        yield Step(f"w{number} settles", False, self._ack(settled, number) if self.colocated else settled)

    def _accepted(self, state: State, work: Work) -> State:
        record, outcome = state.record, work.outcome
        failed = outcome in (Outcome.RETRY, Outcome.ERROR)
        record = record._replace(
            status=STATUS_OF_OUTCOME[outcome],
            attempt=work.attempt + failed,
            result=f"{work.handle.owner}/{work.handle.epoch}/{outcome}" if outcome.terminal else "",
        )
        return state._replace(record=record, retries=state.retries + (outcome is Outcome.RETRY))

    def _ack(self, state: State, number: int) -> State:
        work = state.workers[number]
        if work.outcome is Outcome.RETRY:
            after = _nack(state, work.handle, 0, work.handle.epoch)
        else:
            after = _drop(state, work.handle)
        return _set(after, number, IDLE)

    # --- Restoring --------------------------------------------------------------------------

    def _restorer(self, state: State) -> Iterator[Step]:
        entry, record = state.entry, state.record
        if entry is not None and entry.at == "leased" and entry.expired:
            if self.mutant != "sweep without compare-and-set":
                yield Step("sweep", False, _sweep(state))
            elif state.sweeps < 2:
                yield Step("sweep: reads", False, state._replace(sweeps=state.sweeps + 1))
        if state.sweeps:
            after = state._replace(sweeps=state.sweeps - 1)
            yield Step("sweep: writes", False, _sweep(after) if entry is not None else after)
        if entry is not None and entry.at == "buried" and record is not None:
            yield Step("write off", False, _write_off(state))
        if state.burying:
            yield Step("write off: discard", False, state._replace(entry=None, burying=False))
        if self.mutant == "no reconciler":
            return
        if state.seen is not None:
            after = state._replace(seen=None)
            yield Step("reconcile: push", False, _push(after, state.seen))
        elif record is not None and not record.status.terminal and entry is None:
            yield Step("reconcile: scan", False, state._replace(seen=record.epoch))

    # --- Faults -----------------------------------------------------------------------------

    def _faults(self, state: State) -> Iterator[Step]:
        entry = state.entry
        if entry is not None and entry.at == "leased" and not entry.expired:
            ended = state._replace(entry=entry._replace(expired=True), expiries=state.expiries + 1)
            if not any(work.handle and _holds(state, work.handle) for work in state.workers):
                yield Step("the lease of a lost worker ends", False, ended)
            elif state.faults.pauses:
                yield Step("a lease ends under its worker", True, _spend(ended, "pauses"))
        if state.faults.crashes:
            for number in (0, 1):
                if state.workers[number].step != "idle":
                    lives = list(state.lives)
                    lives[number] += 1
                    dead = _set(_spend(state, "crashes"), number, IDLE)._replace(lives=tuple(lives))
                    yield Step(f"w{number} is killed", True, dead)
        if state.faults.wipes and not self.colocated and state.counter:
            wiped = _spend(state, "wipes")
            yield Step(
                "broker wiped", True, wiped._replace(entry=None, counter=0, sweeps=0, wipes=state.wipes + 1)
            )


def _set(state: State, number: int, work: Work) -> State:
    workers = (work, state.workers[1]) if number == 0 else (state.workers[0], work)
    return state._replace(workers=workers)


def _spend(state: State, fault: str) -> State:
    left = state.faults
    if left.total == 1:
        return state._replace(faults=NONE_LEFT)
    return state._replace(faults=left._replace(total=left.total - 1, **{fault: getattr(left, fault) - 1}))


def _holds(state: State, handle: Handle) -> bool:
    entry = state.entry
    return (
        entry is not None
        and entry.at == "leased"
        and entry.epoch == handle.epoch
        and entry.owner == handle.owner
    )


def _store(state: State) -> State:
    return state if state.record is not None else state._replace(record=Record())


def _push(state: State, min_epoch: int) -> State:
    if state.entry is not None:
        return state
    return state._replace(entry=Entry(), counter=max(state.counter, min_epoch))


def _drop(state: State, handle: Handle) -> State:
    return state._replace(entry=None) if _holds(state, handle) else state


def _nack(state: State, handle: Handle, deliveries: int, min_epoch: int) -> State:
    if not _holds(state, handle):
        return state
    return state._replace(entry=Entry(deliveries=deliveries), counter=max(state.counter, min_epoch))


def _sweep(state: State) -> State:
    entry = state.entry
    if entry.deliveries >= MAX_DELIVERIES:
        return state._replace(entry=entry._replace(at="buried", owner="", expired=False))
    return state._replace(entry=Entry(deliveries=entry.deliveries))


def _write_off(state: State) -> State:
    record, entry = state.record, state.entry
    if not record.status.terminal and record.epoch <= entry.epoch:
        record = record._replace(status=TaskStatusEnum.ERROR, owner="", result="buried")
    return state._replace(record=record, burying=True)
