"""The broker against a small model of it, in random programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, precondition, rule

from qtasks.components.primitives import (
    DeliveryHandle,
    DropVerdict,
    HoldVerdict,
    Nack,
    PushItem,
    PushVerdict,
    QueueSize,
)
from qtasks.testing.bench import Factory
from qtasks.testing.checks import Suite, check
from qtasks.testing.stateful import DELAYS, LEASES, STEPS, UUIDS, Machine, run_machine

MAX_DELIVERIES = 3
QUEUES = ("a", "b")
uuids = st.sampled_from(UUIDS)
priorities = st.sampled_from((-128, 0, 127))


@dataclass
class Entry:
    """What the model knows of an entry. `due` and `until` are Unix seconds; `held` is its token."""

    queue: str
    priority: int
    available_at: float
    due: float
    deliveries: int = 0
    restored: bool = False
    held: DeliveryHandle | None = None
    until: float = 0.0
    buried: bool = False


class BrokerMachine(Machine):
    """Steps of producers, workers and sweepers; old tokens are used again and again."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Any, Entry] = {}
        self.epoch = 0

    def delay(self, seconds: float) -> float:
        """A delay; where the clock is not ours, one that is never over."""
        return seconds if self.virtual or not seconds else 3600.0

    def holder(self, token: DeliveryHandle) -> Entry | None:
        """The entry that this token holds."""
        entry = self.model.get(token.uuid)
        return entry if entry is not None and entry.held == token else None

    @rule(
        batch=st.lists(
            st.tuples(uuids, st.sampled_from(QUEUES), priorities, st.sampled_from(DELAYS)), max_size=4
        )
    )
    def push(self, batch: list[tuple[Any, str, int, float]]) -> None:
        items, expected = [], []
        for uuid, queue, drawn, delay in batch:
            priority = drawn if self.capabilities.priorities else 0
            at = self.now + (self.delay(delay) if self.capabilities.delayed else 0.0)
            items.append(PushItem(uuid, queue, priority, at))
            if uuid in self.model:
                expected.append(PushVerdict.ALREADY_THERE)
            else:
                self.model[uuid] = Entry(queue, priority, at, at)
                expected.append(PushVerdict.PUSHED)
        assert self.do(self.component.push_many(items)) == expected

    @rule(
        target=tokens,
        n=st.integers(0, 3),
        queues=st.sampled_from((["a"], ["b"], ["a", "b"], ["b", "a"])),
        owner=st.sampled_from("AB"),
        lease=st.sampled_from(LEASES),
    )
    def claim(self, n: int, queues: list[str], owner: str, lease: float) -> Any:
        lease = lease if self.virtual else 3600.0
        due = {
            uuid: entry
            for uuid, entry in self.model.items()
            if entry.queue in queues and entry.held is None and not entry.buried and entry.due <= self.now
        }
        got = self.do(self.component.claim(n, queues, owner, lease))
        order = [(queues.index(due[token.uuid].queue), due[token.uuid].priority) for token in got]
        ranks = sorted((queues.index(entry.queue), entry.priority) for entry in due.values())
        assert order == ranks[:n], "these are not the first due entries in order"
        for token in got:
            entry = due[token.uuid]
            assert token.epoch > self.epoch, "the epoch does not rise"
            self.epoch = token.epoch
            assert token.owner == owner
            assert token.deliveries == entry.deliveries + 1
            assert token.restored is entry.restored
            assert (token.queue, token.priority) == (entry.queue, entry.priority)
            assert token.available_at == entry.available_at
            entry.deliveries, entry.restored = token.deliveries, False
            entry.held, entry.until = token, self.now + lease
        return multiple(*got)

    @rule(token=tokens)
    def ack(self, token: DeliveryHandle) -> None:
        expected = DropVerdict.DONE if self.holder(token) else DropVerdict.LOST
        assert self.do(self.component.ack_many([token])) == [expected]
        if expected is DropVerdict.DONE:
            del self.model[token.uuid]

    @rule(token=tokens, delay=st.sampled_from(DELAYS), back=st.integers(0, 1))
    def nack(self, token: DeliveryHandle, delay: float, back: int) -> None:
        entry, delay = self.holder(token), self.delay(delay)
        nack = Nack(token, delay, token.deliveries - back)
        expected = DropVerdict.LOST if entry is None else DropVerdict.DONE
        assert self.do(self.component.nack_many([nack])) == [expected]
        if entry is not None:
            entry.held, entry.due, entry.deliveries = None, self.now + delay, nack.deliveries

    @rule(token=tokens)
    def bury(self, token: DeliveryHandle) -> None:
        entry = self.holder(token)
        expected = DropVerdict.LOST if entry is None else DropVerdict.DONE
        assert self.do(self.component.bury_many([token], "why")) == [expected]
        if entry is not None:
            entry.held, entry.buried = None, True

    @rule(token=tokens, lease=st.sampled_from(LEASES))
    def extend(self, token: DeliveryHandle, lease: float) -> None:
        entry, lease = self.holder(token), lease if self.virtual else 3600.0
        (verdict,) = self.do(self.component.extend_many([token], lease))
        if entry is None:
            assert verdict is HoldVerdict.LOST
        elif entry.until > self.now:
            assert verdict is HoldVerdict.HELD
        if entry is not None and verdict is HoldVerdict.HELD:
            entry.until = self.now + lease

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        over = {
            uuid: entry
            for uuid, entry in self.model.items()
            if entry.held is not None and entry.until <= self.now
        }
        report = self.do(self.component.sweep(limit, MAX_DELIVERIES))
        found = [*report.restored, *(each.uuid for each in report.buried)]
        assert len(set(found)) == len(found) == min(limit, len(over))
        assert set(found) <= over.keys(), "the lease of this entry runs"
        for uuid in report.restored:
            entry = over[uuid]
            assert entry.deliveries < MAX_DELIVERIES
            entry.held, entry.restored, entry.due = None, True, self.now
        for each in report.buried:
            entry = over[each.uuid]
            assert entry.deliveries >= MAX_DELIVERIES
            assert entry.held is not None
            assert each.epoch == entry.held.epoch
            entry.held, entry.buried = None, True

    @rule(batch=st.lists(uuids, max_size=2))
    def discard(self, batch: list[Any]) -> None:
        self.do(self.component.discard_many(batch))
        for uuid in batch:
            self.model.pop(uuid, None)

    @rule()
    def audit(self) -> None:
        assert self.do(self.component.audit(10)) == []

    @rule()
    def flush(self) -> None:
        self.do(self.component.flush())
        self.model.clear()

    @precondition(lambda self: self.virtual)
    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @invariant()
    def the_broker_agrees(self) -> None:
        known = self.do(self.component.contains_many(UUIDS))
        assert known == [uuid in self.model for uuid in UUIDS]
        buried = {each.uuid for each in self.do(self.component.buried(10))}
        assert buried == {uuid for uuid, entry in self.model.items() if entry.buried}
        counted: dict[str, Counter[str]] = {}
        for entry in self.model.values():
            state = "leased" if entry.held else "ready" if entry.due <= self.now else "delayed"
            if not entry.buried:
                counted.setdefault(entry.queue, Counter())[state] += 1
        expected = {queue: QueueSize(**counts) for queue, counts in counted.items()}
        got = {queue: size for queue, size in self.do(self.component.size()).items() if any(size)}
        assert got == expected


class Model(Suite):
    """The state machine."""

    @check("BROKER-95")
    def test_random_programs(self, make_component: Factory) -> None:
        """In random programs of all primitives, with old tokens and a moving clock, the broker does what
        a small model of it does.

        If this fails, check the last step of the shrunk program against the rule of its name in
        `qtasks.testing.broker.model`.
        """
        run_machine(BrokerMachine, make_component)
