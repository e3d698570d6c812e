"""The kit itself: it sees what is broken, names it, and says why it skips."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import Phase, settings

from qtasks.components.broker import Broker
from qtasks.components.delivery import ColocatedDelivery, SplitDelivery, delivery_of, push_item
from qtasks.components.memory import MemoryBroker, MemorySpace, MemoryStorage
from qtasks.components.primitives import Capabilities
from qtasks.components.storage import Storage
from qtasks.recorder import triggers_of
from qtasks.testing import (
    ApplicationSuite,
    Bench,
    BrokerSuite,
    GlobalConfigSuite,
    PairingSuite,
    StarterSuite,
    StatsSuite,
    StorageSuite,
    Suite,
    TaskExecutorSuite,
    Verdict,
    WorkerSuite,
    check,
    run_check,
    run_suite,
)
from qtasks.testing.pairing import pair as pairs
from tests.conformance.mutants import MUTANTS, Mutant

SUITES = {
    "BROKER": BrokerSuite,
    "STORAGE": StorageSuite,
    "CONFIG": GlobalConfigSuite,
    "PAIRING": PairingSuite,
    "WORKER": WorkerSuite,
    "EXECUTOR": TaskExecutorSuite,
    "STARTER": StarterSuite,
    "STATS": StatsSuite,
    "APP": ApplicationSuite,
}


def memory(like=None):
    return MemoryBroker(like.space if like else MemorySpace())


def two_spaces(like=None):
    broker, storage = (like[0].space, like[1].space) if like else (MemorySpace(), MemorySpace())
    return MemoryBroker(broker), MemoryStorage(storage)


@pytest.fixture
def unshrunk():
    """State machines that stop at the first failure: shrinking it is of no use here."""
    usual = settings.default
    settings.register_profile("unshrunk", parent=usual, phases=[Phase.generate])
    settings.load_profile("unshrunk")
    yield
    settings.register_profile("unshrunk", parent=usual)
    settings.load_profile("unshrunk")


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
async def test_the_kit_sees_the_mutant(mutant: Mutant, monkeypatch, unshrunk):
    monkeypatch.setattr(Bench, "patience", 0.5)
    with pytest.raises(AssertionError) as caught:
        await run_check(mutant.suite, mutant.check, mutant.factory)
    assert str(caught.value).startswith(f"{mutant.check}: ")
    mistakes = (TypeError, AttributeError, NameError)
    assert not isinstance(caught.value.__cause__, mistakes), "the mutant itself is at fault"
    assert any("If this fails, check " in note for note in caught.value.__notes__)


def test_there_are_many_different_mutants():
    assert len(MUTANTS) > 200, "docs/conformance.md says so"
    assert len({mutant.check for mutant in MUTANTS}) > 150
    assert {mutant.suite for mutant in MUTANTS} == set(SUITES.values())


class PushFirst(SplitDelivery):
    """Breaks R1."""

    async def add(self, records):
        await self.broker.push_many([push_item(record) for record in records])
        return await self.storage.add_many(records)


class AckFirst(SplitDelivery):
    """Breaks R2."""

    async def settle(self, settles):
        await self.broker.ack_many([settle.handle for settle in settles if settle.nack is None])
        return await super().settle(settles)


class AckRejected(SplitDelivery):
    """Breaks R6."""

    async def settle(self, settles):
        verdicts = await super().settle(settles)
        await self.broker.discard_many([settle.handle.uuid for settle in settles])
        return verdicts


class RunTerminal(SplitDelivery):
    """Breaks R7."""

    async def claim(self, n, queues, owner, lease):
        handles = await self.broker.claim(n, queues, owner, lease)
        await self.storage.start_many(handles)
        found = await self.storage.get_many([handle.uuid for handle in handles])
        return [(handle, record) for handle, record in zip(handles, found, strict=True) if record]


class ForgetSame(SplitDelivery):
    """Leaves a task that was stored and not queued."""

    async def add(self, records):
        found = await self.storage.get_many([record.uuid for record in records])
        if all(found):
            return await self.storage.add_many(records)
        return await super().add(records)


@pytest.mark.parametrize(
    ("delivery", "check_id"),
    [
        (PushFirst, "PAIRING-41"),
        (AckFirst, "PAIRING-43"),
        (AckRejected, "PAIRING-07"),
        (RunTerminal, "PAIRING-08"),
        (ForgetSame, "PAIRING-40"),
    ],
)
async def test_the_kit_sees_broken_steps(delivery, check_id, monkeypatch):
    await run_check(PairingSuite, check_id, two_spaces)
    monkeypatch.setattr(pairs, "delivery_of", delivery)
    with pytest.raises(AssertionError, match=f"^{check_id}: "):
        await run_check(PairingSuite, check_id, two_spaces)


# --- Ids, advice, versions ------------------------------------------------------------------------


def test_ids_are_unique_and_named_after_their_suite():
    checks = [each for suite in SUITES.values() for each in suite.checks()]
    assert len(checks) > 150
    assert max(Counter(each.id for each in checks).values()) == 1
    for prefix, suite in SUITES.items():
        assert all(each.id.startswith(f"{prefix}-") for each in suite.checks())


def test_every_test_of_a_suite_is_a_check():
    for suite in SUITES.values():
        tests = {name for base in suite.__mro__ for name in vars(base) if name.startswith("test")}
        assert tests == {each.method for each in suite.checks()}


def test_every_trigger_has_a_check(request):
    sources = "".join(
        path.read_text() for path in (request.config.rootpath / "qtasks" / "testing").rglob("*.py")
    )
    for trigger in triggers_of():
        assert f'"{trigger}"' in sources, f"no check looks for {trigger}"


def test_every_primitive_is_used(request):
    sources = "".join(
        path.read_text() for path in (request.config.rootpath / "qtasks" / "testing").rglob("*.py")
    )
    for contract in (Broker, Storage):
        for name in contract.__abstractmethods__:
            assert f".{name}" in sources, f"no check uses {contract.__name__}.{name}"


def test_a_check_without_advice_is_refused():
    with pytest.raises(ValueError, match="If this fails"):

        @check("X-1")
        async def test_x(self, bench):
            """It holds."""


def test_a_check_with_an_unknown_capability_is_refused():
    with pytest.raises(ValueError, match="flying"):
        check("X-1", needs=("flying",))


def test_a_check_is_not_overridden():
    with pytest.raises(TypeError, match="BROKER-01"):

        class Mine(BrokerSuite):
            async def test_a_pushed_entry_is_claimed(self, bench):
                """Nothing to see here."""


@pytest.mark.parametrize("name", ["admit", "fell_short", "held", "bench", "workbench", "checks"])
def test_what_decides_on_a_check_is_not_overridden(name):
    with pytest.raises(TypeError, match=f"overrides {name}"):
        type("Mine", (BrokerSuite,), {name: lambda self, *args: None})


def test_a_check_is_not_overridden_by_a_mixin():
    class Mixin:
        async def test_a_pushed_entry_is_claimed(self, bench):
            """Nothing to see here."""

    with pytest.raises(TypeError, match="BROKER-01 never runs"):
        type("Mine", (Mixin, BrokerSuite), {})


def test_an_expected_failure_may_be_named_by_its_test():
    mine = type("Mine", (BrokerSuite,), {"expected_failures": {"test_a_pushed_entry_is_claimed": "known"}})
    assert mine.expected_failures == {"BROKER-01": "known"}


def test_a_check_is_not_hidden_by_its_name():
    class One(Suite):
        @check("X-1")
        async def test_x(self, bench):
            """It holds.

            If this fails, check everything.
            """

    class Two(Suite):
        @check("X-2")
        async def test_x(self, bench):
            """It holds too.

            If this fails, check everything.
            """

    with pytest.raises(TypeError, match="X-2 never runs"):
        type("Both", (One, Two), {}).checks()


def test_an_expected_failure_names_a_check():
    with pytest.raises(TypeError, match="BROKER-999"):

        class Mine(BrokerSuite):
            expected_failures: ClassVar = {"BROKER-999": "a typing error"}


async def test_an_expected_failure_is_strict():
    class Mine(BrokerSuite):
        expected_failures: ClassVar = {"BROKER-01": "known", "BROKER-07": "known, they think"}

    class Broken(MemoryBroker):
        async def push_many(self, items):
            return []

    with pytest.raises(pytest.xfail.Exception, match="BROKER-01: known"):
        await run_check(Mine, "BROKER-01", lambda like=None: Broken())
    with pytest.raises(AssertionError, match="BROKER-07 holds now"):
        await run_check(Mine, "BROKER-07", memory)


async def test_a_skip_names_the_capability():
    with pytest.raises(pytest.skip.Exception, match="BROKER-74 needs the capability 'durable'"):
        await run_check(BrokerSuite, "BROKER-74", memory)
    with pytest.raises(pytest.skip.Exception, match=r"STORAGE-74 .* 'streams'"):
        await run_check(StorageSuite, "STORAGE-74", lambda like=None: MemoryStorage())


async def test_an_undeclared_capability_must_be_refused():
    class Modest(MemoryStorage):
        capabilities = replace(MemoryStorage.capabilities, streams=False)

    with pytest.raises(AssertionError, match=r"^STORAGE-74: DID NOT RAISE"):
        await run_check(StorageSuite, "STORAGE-74", lambda like=None: Modest())


class Modest(MemoryBroker):
    """First in, first out, at once, in two steps: no priorities, no delayed tasks, nothing co-located."""

    capabilities = Capabilities(virtual_clock=True, priorities=False, delayed=False)

    async def push_many(self, items):
        return await super().push_many(
            [item._replace(available_at=min(item.available_at, self.clock())) for item in items]
        )


@pytest.mark.parametrize("ids", ["all but the model", pytest.param("the model", marks=pytest.mark.nightly)])
def test_a_broker_that_declares_little_conforms(ids):
    """What it does not declare is refused, and what needs it is skipped by name."""

    def make(like=None):
        return Modest(like.space if like else MemorySpace())

    # It is a subclass, so it has the atomic steps that it does not declare.
    others = [each.id for each in BrokerSuite.checks() if each.id not in ("BROKER-79", "BROKER-95")]
    ids = others if ids == "all but the model" else ["BROKER-95"]
    report = run_suite(BrokerSuite, make, only=ids)
    assert report.of(Verdict.FALLS_SHORT) == []
    if ids == ["BROKER-95"]:
        return
    skipped = {result.check.id: result.capability for result in report.of(Verdict.SKIPPED)}
    assert {"BROKER-08": "priorities", "BROKER-12": "delayed"}.items() <= skipped.items()
    assert not skipped.keys() & {"BROKER-91", "BROKER-92"}


async def test_undeclared_steps_are_not_used():
    broker, storage = MemoryBroker(space := MemorySpace()), MemoryStorage(space)
    assert isinstance(delivery_of(broker, storage), ColocatedDelivery)
    broker, storage = Modest(space), MemoryStorage(space)
    assert isinstance(delivery_of(broker, storage), SplitDelivery)


async def test_a_later_check_is_skipped_for_an_older_suite():
    class Later(Suite):
        @check("X-1", since=2)
        async def test_x(self, bench):
            """It holds.

            If this fails, check everything.
            """
            raise AssertionError

    with pytest.raises(pytest.skip.Exception, match="X-1 came with kit version 2"):
        await run_check(Later, "X-1", memory)


async def test_a_declaration_of_the_suite_counts():
    class Told(BrokerSuite):
        capabilities = Capabilities(virtual_clock=True)

    with pytest.raises(pytest.skip.Exception, match="notifications"):
        await run_check(Told, "BROKER-54", memory)


async def test_an_unknown_check():
    with pytest.raises(LookupError, match="BROKER-999"):
        await run_check(BrokerSuite, "BROKER-999", memory)


def test_the_core_does_not_import_pytest():
    code = "import sys, qtasks, qtasks.components.memory, qtasks.components.sqlite; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
