"""A plugin that writes down every trigger that is fired, and may replace values."""

from __future__ import annotations

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
        returns: by trigger, what the recorder returns.
    """

    fired: list[Fired] = field(default_factory=list)
    returns: dict[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The names of the triggers that were fired, in order."""
        return [each.trigger for each in self.fired]

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
        return made.returns.get(name)

    # A plugin's parameters are told by its signature, and a function with a signature that is only
    # known here can be made in no other way.
    listed = ", ".join(params)
    pairs = ", ".join(f"{param!r}: {param}" for param in params)
    scope: dict[str, Any] = {"record": record}
    exec(f"def {name}({listed}):\n    return record({{{pairs}}})\n", scope)  # noqa: S102
    function: Callable[..., Any] = scope[name]
    return hookimpl(function)
