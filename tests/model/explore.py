"""Breadth first through every state of the model, checking the invariants on each state and each step."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .protocol import Protocol
from .state import IDLE, MAX_DELIVERIES, RETRY, State

START = State()


class Violation(Exception):
    """An invariant does not hold; the message is the shortest way there."""


class Explored(NamedTuple):
    """How much was looked at."""

    states: int
    steps: int
    ends: int


def explore(protocol: Protocol, start: State = START, limit: int = 2_000_000) -> Explored:
    """Visits every reachable state.

    Raises:
        Violation: with the shortest trace that breaks an invariant.
    """
    came: dict[State, tuple[State, str] | None] = {start: None}
    backward: dict[State, list[State]] = {}
    todo = deque([start])
    steps, ends = 0, []
    while todo:
        state = todo.popleft()
        for step in protocol.steps(state):
            after = step.state
            steps += 1
            if after not in came:
                came[after] = (state, step.name)
                if len(came) > limit:
                    raise AssertionError(f"more than {limit} states")
                todo.append(after)
                if broken := broken_state(after):
                    raise Violation(trace(came, after, broken))
            if broken := broken_step(state, after):
                raise Violation(trace(came, state, f"{broken}, by: {step.name}"))
            if not step.fault:
                backward.setdefault(after, []).append(state)
        if is_end(state):
            ends.append(state)
    if lost := never_ending(came, backward, ends):
        raise Violation(
            trace(came, lost, "I1: without a further fault it can no longer end and be forgotten")
        )
    return Explored(len(came), steps, len(ends))


def broken_state(state: State) -> str:
    """What is wrong with a state, or nothing."""
    record, entry = state.record, state.entry
    if entry is not None and record is None:
        return "I4: the broker has an entry without a record (R1)"
    if record is not None and record.attempt > RETRY + 1:
        return f"I5: failed {record.attempt} times"
    if entry is not None and entry.deliveries > MAX_DELIVERIES:
        return f"I5: delivered {entry.deliveries} times"
    allowed = 1 + state.retries + state.expiries + state.wipes
    if state.runs > allowed:
        return f"I6: {state.runs} runs, where retries, ended leases and wipes explain {allowed}"
    return ""


def broken_step(before: State, after: State) -> str:
    """What is wrong with a step, or nothing."""
    old, new = before.record, after.record
    if old is None or new is None or not old.status.terminal:
        return ""
    if old.status is not new.status or old.result != new.result:
        return f"I2, I3: the result changes from {old.result} to {new.result}"
    return ""


def is_end(state: State) -> bool:
    """Ended, forgotten by the broker, and nobody works on it (I4)."""
    if state.record is None:
        return False
    return state.record.status.terminal and state.entry is None and state.workers == (IDLE, IDLE)


def never_ending(
    came: dict[State, object], backward: dict[State, list[State]], ends: list[State]
) -> State | None:
    """The first state with a stored task from which no way without faults leads to an end."""
    good = set(ends)
    todo = deque(ends)
    while todo:
        for before in backward.get(todo.popleft(), ()):
            if before not in good:
                good.add(before)
                todo.append(before)
    return next((state for state in came if state not in good and state.record is not None), None)


def trace(came: dict[State, tuple[State, str] | None], state: State, broken: str) -> str:
    """The shortest way to a state, for people."""
    names = []
    at = state
    while (link := came[at]) is not None:
        at, name = link
        names.append(name)
    return f"{broken}\n  " + "\n  ".join(reversed(names)) + f"\n  {state}"
