"""The storage against a small model of it, in random programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from qtasks.components.primitives import (
    Added,
    Buried,
    CancelVerdict,
    Outcome,
    Settle,
    SettleVerdict,
    Start,
    Update,
)
from qtasks.schemas import TaskStatusEnum
from qtasks.testing import samples
from qtasks.testing.bench import Factory
from qtasks.testing.checks import Suite, check
from qtasks.testing.stateful import DELAYS, STEPS, UUIDS, Machine, run_machine

uuids = st.sampled_from(UUIDS)
epochs = st.integers(1, 5)
owners = st.sampled_from("AB")
LIVES = 30.25
"""Seconds that a finished record is kept."""


@dataclass
class Row:
    """What the model knows of a record."""

    digest: str
    unique_key: str | None
    available_at: float
    created_at: float
    status: str = "new"
    epoch: int = 0
    owner: str = ""
    returning: Any = None
    attempt: int = 0
    progress: Any = None
    cancel_requested: bool = False
    dead: bool = False
    expires_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether it is not terminal."""
        return self.status in ("new", "process")


class StorageMachine(Machine):
    """Steps of producers, workers with all kinds of tokens, clients and the janitor."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, Row] = {}

    @rule(
        uuid=uuids, digest=st.sampled_from("xy"), key=st.sampled_from((None, "k", "l")),
        delay=st.sampled_from(DELAYS),
    )  # fmt: skip
    def add(self, uuid: UUID, digest: str, key: str | None, delay: float) -> None:
        at = self.now + (delay if self.virtual or not delay else 3600.0)
        row = self.model.get(uuid)
        holders = [u for u, r in self.model.items() if key is not None and r.open and r.unique_key == key]
        given = samples.record(uuid, now=self.now, digest=digest, unique_key=key, available_at=at)
        ((kind, stands),) = self.do(self.component.add_many([given]))
        if row is not None:
            assert kind is (Added.SAME if row.digest == digest else Added.CONFLICT)
        elif holders:
            assert (kind, [stands]) == (Added.EXISTS, holders)
        else:
            assert kind is Added.ADDED
            self.model[uuid] = Row(digest, key, at, given.created_at)

    @rule(uuid=uuids, epoch=epochs, owner=owners)
    def start(self, uuid: UUID, epoch: int, owner: str) -> None:
        row = self.model.get(uuid)
        (verdict,) = self.do(self.component.start_many([samples.handle(uuid, epoch, owner)]))
        if row is None:
            assert verdict.kind is Start.MISSING
        elif not row.open:
            assert verdict.kind is Start.TERMINAL
        elif (epoch, owner) == (row.epoch, row.owner) and row.status == "process":
            assert verdict.kind is Start.STARTED
        elif epoch <= row.epoch:
            assert (verdict.kind, verdict.epoch) == (Start.CONFLICT, row.epoch)
        elif row.available_at > self.now:
            assert verdict.kind is Start.NOT_DUE
        else:
            assert verdict.kind is Start.STARTED
            row.status, row.epoch, row.owner = "process", epoch, owner

    @rule(
        uuid=uuids, epoch=epochs, owner=owners, outcome=st.sampled_from(Outcome), value=st.integers(0, 3),
        then=st.none() | uuids,
    )  # fmt: skip
    def settle(
        self, uuid: UUID, epoch: int, owner: str, outcome: Outcome, value: int, then: UUID | None
    ) -> None:
        row = self.model.get(uuid)
        settle = self._settle(uuid, epoch, owner, outcome, value)
        if then is not None:
            settle.then = (samples.record(then, now=self.now, digest="then"),)
        (verdict,) = self.do(self.component.settle_many([settle]))
        if row is None or (row.epoch, row.owner) != (epoch, owner):
            assert verdict is SettleVerdict.REJECTED
        elif row.status != "process":
            assert verdict is SettleVerdict.ALREADY_MINE
        else:
            assert verdict is SettleVerdict.ACCEPTED
            for name, new in settle.changes.items():
                if hasattr(row, name):
                    setattr(row, name, new)
            if settle.nack is not None and "available_at" not in settle.changes:
                row.available_at = self.now + settle.nack.delay
            if then is not None and then not in self.model:
                self.model[then] = Row("then", None, self.now, self.now)

    def _settle(self, uuid: UUID, epoch: int, owner: str, outcome: Outcome, value: int) -> Settle:
        token, now = samples.handle(uuid, epoch, owner), self.now
        if outcome is Outcome.SUCCESS:
            made = samples.success(token, now, value)
        elif outcome is Outcome.ERROR:
            made = samples.error(token, now, dead=bool(value % 2))
        elif outcome is Outcome.CANCEL:
            made = samples.cancel(token, now)
        elif outcome is Outcome.RETRY:
            made = samples.retry(token, now, attempt=value)
        else:
            made = samples.release(token, now)
        if outcome.terminal:
            made.changes["expires_at"] = now + LIVES
        return made

    @rule(uuid=uuids, epoch=st.integers(0, 5))
    def bury(self, uuid: UUID, epoch: int) -> None:
        row = self.model.get(uuid)
        at = self.now + LIVES
        (done,) = self.do(self.component.bury_many([Buried(uuid, epoch, "why")], expires_at=at))
        assert done is (row is not None and row.open and row.epoch <= epoch)
        if done and row is not None:
            row.status, row.dead, row.owner, row.expires_at = "error", True, "", at

    @rule(uuid=uuids)
    def cancel(self, uuid: UUID) -> None:
        row = self.model.get(uuid)
        at = self.now + LIVES
        (verdict,) = self.do(self.component.cancel_many([uuid], "why", expires_at=at))
        if row is None:
            assert verdict is CancelVerdict.MISSING
        elif not row.open:
            assert verdict is CancelVerdict.TERMINAL
        elif row.status == "process":
            assert verdict is CancelVerdict.REQUESTED
            row.cancel_requested = True
        else:
            assert verdict is CancelVerdict.CANCELLED
            row.status, row.owner, row.expires_at = "cancel", "", at

    @rule(uuid=uuids, value=st.integers(0, 3))
    def update(self, uuid: UUID, value: int) -> None:
        row = self.model.get(uuid)
        (done,) = self.do(self.component.update_many([Update(uuid, {"progress": value})]))
        assert done is (row is not None and row.open)
        if done and row is not None:
            row.progress = value

    @rule(uuid=uuids)
    def delete(self, uuid: UUID) -> None:
        row = self.model.get(uuid)
        (done,) = self.do(self.component.delete_many([uuid]))
        assert done is (row is not None and not row.open)
        if done:
            del self.model[uuid]

    @rule()
    def purge(self) -> None:
        over = [
            uuid
            for uuid, row in self.model.items()
            if not row.open and row.expires_at is not None and row.expires_at < self.now
        ]
        assert self.do(self.component.purge(self.now, 100)) == len(over)
        for uuid in over:
            del self.model[uuid]

    @rule()
    def flush(self) -> None:
        self.do(self.component.flush())
        self.model.clear()

    @precondition(lambda self: self.virtual)
    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @invariant()
    def the_storage_agrees(self) -> None:
        for uuid, got in zip(UUIDS, self.do(self.component.get_many(UUIDS)), strict=True):
            row = self.model.get(uuid)
            assert (got is None) is (row is None), "a record is lost, or came back"
            if got is not None and row is not None:
                assert got.status.value == TaskStatusEnum(row.status).value
                for name in Row.__dataclass_fields__.keys() - {"status"}:
                    assert getattr(got, name) == getattr(row, name), name

    @invariant()
    def the_indexes_agree(self) -> None:
        counts = {key: n for key, n in self.do(self.component.counts()).items() if n}
        expected = Counter(str(TaskStatusEnum(row.status)) for row in self.model.values())
        dead = [uuid for uuid, row in self.model.items() if row.dead]
        assert counts == {**expected, **({"dead": len(dead)} if dead else {})}
        page = self.do(self.component.scan_dead(None, 100))
        assert sorted(each.uuid for each in page.records) == sorted(dead)
        page = self.do(self.component.scan(None, 100))
        assert sorted(each.uuid for each in page.records) == sorted(self.model)
        page = self.do(self.component.scan_open(None, 100, self.now + 1))
        assert sorted(each.uuid for each in page.records) == sorted(
            u for u, r in self.model.items() if r.open
        )
        asked = self.do(self.component.cancel_requested_many(UUIDS))
        running = [uuid in self.model and self.model[uuid].status == "process" for uuid in UUIDS]
        wanted = [uuid in self.model and self.model[uuid].cancel_requested for uuid in UUIDS]
        assert [a for a, r in zip(asked, running, strict=True) if r] == [
            w for w, r in zip(wanted, running, strict=True) if r
        ]


class Model(Suite):
    """The state machine."""

    @check("STORAGE-120")
    def test_random_programs(self, make_component: Factory) -> None:
        """In random programs of all primitives, with tokens of all kinds and a moving clock, the storage
        does what a small model of it does.

        If this fails, check the last step of the shrunk program against the rule of its name in
        `qtasks.testing.storage.model`.
        """
        run_machine(StorageMachine, make_component)
