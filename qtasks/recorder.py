"""A plugin that writes down every trigger that is fired, and may replace values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from qtasks.hookspecs import MODULES
from qtasks.markers import hookimpl, trigger_of


@dataclass(frozen=True, slots=True)
class Fired:
    """One trigger that was fired, with the values of its parameters."""

    trigger: str
    values: dict[str, Any]


def triggers_of(*components: str) -> dict[str, tuple[str, ...]]:
    """The parameters of the triggers of these components, by trigger.

    Parameters:
        components: the beginnings of their names, `"broker"` say; none takes all.
    """
    found = {}
    for module in MODULES:
        for value in vars(module).values():
            trigger = trigger_of(value) if callable(value) else None
            if trigger is not None and trigger.name.startswith(components or ("",)):
                found[trigger.name] = trigger.params
    return found


@dataclass
class Recorder:
    """Implements every trigger of the components named. Register it with `pm.register(recorder)`.

    Attributes:
        fired: what was fired, in order.
        returns: by trigger, what the recorder returns; an exception is raised, and a function is called with the
            values of the parameters.
    """

    fired: list[Fired] = field(default_factory=list)
    returns: dict[str, Any] = field(default_factory=dict)
    _changed: list[asyncio.Event] = field(default_factory=list)

    def names(self) -> list[str]:
        """The names of the triggers that were fired, in order."""
        return [each.trigger for each in self.fired]

    def of(self, trigger: str) -> list[dict[str, Any]]:
        """The values of each call of a trigger."""
        return [each.values for each in self.fired if each.trigger == trigger]

    async def until(self, trigger: str, times: int = 1) -> None:
        """Returns when a trigger has been fired so often.

        Raises:
            KitFailure: it was not, within the time for an event.
        """
        from qtasks.testing.bench import Bench, KitFailure  # the tests of applications do without the kit

        changed = asyncio.Event()
        self._changed.append(changed)
        try:
            async with asyncio.timeout(Bench.patience):
                while len(self.of(trigger)) < times:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            seen = len(self.of(trigger))
            raise KitFailure(f"{trigger} was fired {seen} times, not {times} times") from None
        finally:
            self._changed.remove(changed)

    def clear(self) -> None:
        """Forgets what was fired and what is returned."""
        self.fired.clear()
        self.returns.clear()


def recorder(*components: str) -> Recorder:
    """A recorder for the triggers of these components (`"broker"`, `"storage"`, …; none: all)."""
    made = Recorder()
    for name, params in triggers_of(*components).items():
        setattr(made, name, _implementation(made, name, params))
    return made


def _implementation(made: Recorder, name: str, params: Iterable[str]) -> Callable[..., Any]:
    def record(values: dict[str, Any]) -> Any:
        made.fired.append(Fired(name, values))
        for changed in made._changed:
            changed.set()
        answer = made.returns.get(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer(values) if callable(answer) else answer

    # A plugin's parameters are told by its signature, and a function with a signature that is only
    # known here can be made in no other way.
    listed = ", ".join(params)
    pairs = ", ".join(f"{param!r}: {param}" for param in params)
    scope: dict[str, Any] = {"record": record}
    exec(f"def {name}({listed}):\n    return record({{{pairs}}})\n", scope)  # noqa: S102
    function: Callable[..., Any] = scope[name]
    return hookimpl(function)
