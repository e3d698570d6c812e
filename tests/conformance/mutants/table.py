"""The table of mutants, and how a broken class becomes a component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.components.memory.entries import Entries
from qtasks.components.memory.records import Records
from qtasks.components.memory.space import AppState
from qtasks.testing import (
    ApplicationSuite,
    BrokerSuite,
    GlobalConfigSuite,
    PairingSuite,
    StarterSuite,
    StatsSuite,
    StorageSuite,
    Suite,
    TaskExecutorSuite,
    WorkerSuite,
)

Factory = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """A broken component, and the check that must fall short of it."""

    fault: str
    suite: type[Suite]
    check: str
    factory: Factory

    def __str__(self) -> str:
        return f"{self.check}: {self.fault}"


MUTANTS: list[Mutant] = []


def space_of(entries: type[Entries] = Entries, records: type[Records] = Records) -> type[MemorySpace]:
    """A space with broken insides."""

    class Broken(MemorySpace):
        def app(self, name: str) -> AppState:
            if name not in self._apps:
                self._apps[name] = AppState(entries=entries(), records=records())
            return super().app(name)

    return Broken


def single(component: type, space: type[MemorySpace]) -> Factory:
    return lambda like=None: component(like.space if like else space())


def pair(broker: type[MemoryBroker], space: type[MemorySpace]) -> Factory:
    def make(like=None):
        shared = like[0].space if like else space()
        return broker(shared), MemoryStorage(shared)

    return make


def mutant(fault: str, check: str) -> Callable[[type], type]:
    """Puts a broken class into the table: the suite follows from the check, the wiring from the class."""

    def decorate(broken: type) -> type:
        entries = broken if issubclass(broken, Entries) else Entries
        records = broken if issubclass(broken, Records) else Records
        space = broken if issubclass(broken, MemorySpace) else space_of(entries, records)
        kind = check.partition("-")[0]
        component = (
            broken if broken.__mro__[1].__name__.startswith("Memory") and space is not broken else None
        )
        if kind == "PAIRING":
            MUTANTS.append(Mutant(fault, PairingSuite, check, pair(component or MemoryBroker, space)))
        else:
            suite, usual = {
                "BROKER": (BrokerSuite, MemoryBroker),
                "STORAGE": (StorageSuite, MemoryStorage),
                "CONFIG": (GlobalConfigSuite, MemoryGlobalConfig),
            }[kind]
            MUTANTS.append(Mutant(fault, suite, check, single(component or usual, space)))
        return broken

    return decorate


def component_mutant(fault: str, check: str) -> Callable[[type], type]:
    """Puts a broken component of an application, or a broken application, into the table."""
    suite = {
        "WORKER": WorkerSuite, "EXECUTOR": TaskExecutorSuite, "STARTER": StarterSuite, "STATS": StatsSuite,
        "APP": ApplicationSuite,
    }[check.partition("-")[0]]  # fmt: skip

    def decorate(broken: type) -> type:
        def application(config):
            return broken("kit", "memory://", config=config)

        MUTANTS.append(Mutant(fault, suite, check, application if suite is ApplicationSuite else broken))
        return broken

    return decorate
