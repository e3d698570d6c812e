"""What the state machines share: each program of steps runs against a fresh component and a small model.

A machine is synchronous, as hypothesis wants it; it has an event loop of its own for the component.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from qtasks.testing.bench import EVENT_TIMEOUT, Bench, Factory

T = TypeVar("T")

UUIDS = [UUID(int=n) for n in range(1, 5)]
"""Few, so that steps meet."""

DELAYS = (0.0, 10.5)
LEASES = (15.25, 50.25)
STEPS = (4.0, 12.0, 40.0)
"""No sum of steps is a delay or a lease, so nothing is due exactly now."""


class Machine(RuleBasedStateMachine):
    """The base of the state machines.

    Attributes:
        factory: makes components, as the fixture `make_component` does.
        component: the one that the program runs against.
        capabilities: what it declares.
        virtual: whether its clock can be moved.
    """

    factory: ClassVar[Factory]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._bench: Bench[Any] = Bench(type(self).factory)
        self.do(self._bench.__aenter__())
        self.component = self.do(self._bench.open())
        self.capabilities = self._bench.capabilities
        self.virtual = self.capabilities.virtual_clock

    @property
    def now(self) -> float:
        """The component's time."""
        return self._bench.now()

    def do(self, awaitable: Awaitable[T]) -> T:
        """Runs one primitive to its end."""

        async def run() -> T:
            async with asyncio.timeout(EVENT_TIMEOUT):
                return await awaitable

        return self._runner.run(run())

    def advance(self, seconds: float) -> None:
        """Moves the clock."""
        self.do(self._bench.elapse(seconds))

    def teardown(self) -> None:
        """Closes the component."""
        self.do(self._bench.__aexit__())
        self._runner.close()


def run_machine(machine: type[Machine], factory: Factory) -> None:
    """Runs programs of a machine against components of this factory, under hypothesis' present profile."""
    bound = type(machine.__name__, (machine,), {"factory": staticmethod(factory)})
    run_state_machine_as_test(bound)
