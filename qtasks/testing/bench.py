"""The workbench of a check: makes, binds, opens and closes components, and moves their clock."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, TypeVar

from qtasks.components.primitives import Capabilities
from qtasks.config import QueueConfig
from qtasks.inmemory import VirtualClock
from qtasks.manager import PluginManager

C = TypeVar("C")
T = TypeVar("T")

Factory = Callable[..., Any]
"""`make_component()` gives a fresh component over an empty store of its own; `make_component(like=c)`
another component over the store of `c`. The factory may be async. What it gives is not yet bound and
not yet open."""

EVENT_TIMEOUT = 10.0
"""Seconds after which an event that should have come is given up."""


class KitFailure(AssertionError):
    """The component does not do what the contract says."""


class Bench(Generic[C]):
    """The components of one check. Use it as an async context manager.

    Attributes:
        capabilities: what the component declares.
        short: seconds of a lease or delay that a check lets run out.
        long: seconds of a lease or delay that never runs out during a check.
        patience: seconds after which an event that should have come is given up.
    """

    patience: ClassVar[float] = EVENT_TIMEOUT

    def __init__(self, factory: Factory, capabilities: Capabilities | None = None) -> None:
        self._factory = factory
        self._declared = capabilities
        self._made: list[Any] = []
        self._spare: Any = None
        self._clock = VirtualClock()
        self.long = 3600.0

    async def __aenter__(self) -> Bench[C]:
        self._spare = await self._make()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for made in self._made:
            for part in parts_of(made):
                await part.close()

    @property
    def capabilities(self) -> Capabilities:
        """What the component declares; of a pair, what both declare."""
        if self._declared is not None:
            return self._declared
        return common([part.capabilities for part in parts_of(self._made[0])])

    @property
    def short(self) -> float:
        """Seconds of a lease or delay that a check lets run out."""
        return 30.0 if self.capabilities.virtual_clock else 0.3

    def priority(self, value: int) -> int:
        """This priority; 0 for a broker that declares none."""
        return value if self.capabilities.priorities else 0

    def now(self) -> float:
        """The time of the components, Unix seconds."""
        return self._clock() if self.capabilities.virtual_clock else time.time()

    async def elapse(self, seconds: float) -> None:
        """Lets this time pass: the virtual clock jumps; a clock that cannot be replaced is waited for."""
        if self.capabilities.virtual_clock:
            self._clock.advance(seconds)
        else:
            await asyncio.sleep(seconds + 0.02)

    async def eventually(self, look: Callable[[], Awaitable[T]], told: str) -> T:
        """Looks again and again until there is something (true) to see.

        Parameters:
            look: looks.
            told: what is waited for, for the message.
        """
        deadline = time.monotonic() + self.patience
        while not (seen := await look()):
            if self.capabilities.virtual_clock or time.monotonic() > deadline:
                raise KitFailure(f"it did not come about that {told}")
            await asyncio.sleep(0.01)
        return seen

    async def within(self, awaitable: Awaitable[T], told: str, seconds: float | None = None) -> T:
        """Awaits, but not for ever.

        Parameters:
            awaitable: what is awaited.
            told: what it is, for the message.
            seconds: the bound; without it `patience`.
        """
        seconds = self.patience if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                return await awaitable
        except TimeoutError:
            raise KitFailure(f"{told} did not come to an end within {seconds} s") from None

    async def make(
        self, *, like: C | None = None, app: str = "kit", config: QueueConfig | None = None,
        pm: PluginManager | None = None,
    ) -> C:  # fmt: skip
        """A component that is bound but not open."""
        spare: C | None = self._spare if like is None else None
        if spare is not None:
            self._spare = None
        made = spare if spare is not None else await self._make(like)
        pm = pm or PluginManager()
        for part in parts_of(made):
            if self.capabilities.virtual_clock:
                part.clock = self._clock
            part.bind(pm, app_name=app, config=config)
        return made

    async def open(
        self, *, like: C | None = None, app: str = "kit", config: QueueConfig | None = None,
        pm: PluginManager | None = None,
    ) -> C:  # fmt: skip
        """A component that is bound and open.

        Parameters:
            like: another one whose store it is to share; without it the store is new and empty.
            app: the name of its application.
            config: the settings of its application.
            pm: the plugins of its application.
        """
        made = await self.make(like=like, app=app, config=config, pm=pm)
        for part in parts_of(made):
            await part.open()
        return made

    async def _make(self, like: C | None = None) -> C:
        given = self._factory() if like is None else self._factory(like=like)
        made: C = await given if inspect.isawaitable(given) else given
        self._made.append(made)
        return made


def parts_of(made: Any) -> tuple[Any, ...]:
    """The components in what a factory gave: one, or a pair."""
    return made if isinstance(made, tuple) else (made,)


def common(declared: list[Capabilities]) -> Capabilities:
    """What all of them declare."""
    first, *others = declared
    return Capabilities(
        **{
            name: all(getattr(each, name) for each in (first, *others))
            for name in Capabilities.__dataclass_fields__
        }
    )
