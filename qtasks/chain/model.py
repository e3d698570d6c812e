"""What a chain is made of: the trigger, its implementations, and what an observer is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

Shape: TypeAlias = Literal["mapping", "value", "pair", "kwargs"]
OnError: TypeAlias = Literal["raise", "isolate"]

MAX_NESTING: Final = 16


class Null(Enum):
    """The type of `NULL`."""

    NULL = "NULL"

    def __repr__(self) -> str:
        return "qtasks.NULL"


NULL: Final = Null.NULL
"""What a plugin returns to set a value to `None` for real (rule 5); a plain `None` changes nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Trigger:
    """A declared trigger.

    Attributes:
        name: its name, as a plugin spells it.
        params: its parameters, in order.
        replaces: the parameters whose values may be replaced; none makes it a signal.
        shape: the shape of a return; `None` for a signal.
        control_flow: whether a plugin may steer the task here (rule 10).
        defers: whether a `TaskDefer` lets the chain go on, and is raised at its end with the values as
            all plugins left them: a plugin after it (encryption, say) must not be skipped.
        must_go_on: whether `on_error="raise"` has no effect here (rule 9).
        keeps_uuid: replaceable parameters whose new value must have the same `uuid` (R9).
        declared: gives the type of a parameter; called when a value of it is first replaced.
        fields: for the shape `kwargs`: gives the types of the keys; `None` takes any key.
        protected: for the shape `kwargs`: keys that must stay as they are.
    """

    name: str
    params: tuple[str, ...]
    replaces: tuple[str, ...] = ()
    shape: Shape | None = None
    control_flow: bool = False
    defers: bool = False
    must_go_on: bool = False
    keeps_uuid: tuple[str, ...] = ()
    declared: Callable[[str], Any] = field(default=lambda _param: Any, repr=False)
    fields: Callable[[], Mapping[str, Any]] | None = field(default=None, repr=False)
    protected: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Checks that the parts fit each other, so that a wrong declaration fails where it stands."""
        unknown = [param for param in self.replaces if param not in self.params]
        if unknown:
            raise ValueError(f"trigger {self.name!r} replaces {unknown}, which are not its parameters")
        wanted = {"value": 1, "pair": 2, "kwargs": 1}
        if self.shape is None:
            if self.replaces:
                raise ValueError(f"trigger {self.name!r} replaces values, so it has to say returns=…")
        elif not self.replaces:
            raise ValueError(f"trigger {self.name!r} has returns={self.shape!r}, but replaces nothing")
        elif len(self.replaces) != wanted.get(self.shape, len(self.replaces)):
            raise ValueError(
                f"trigger {self.name!r} returns a {self.shape}, which replaces {wanted[self.shape]} "
                f"parameter(s), not {len(self.replaces)}"
            )

    @property
    def signal(self) -> bool:
        """Whether its return value is ignored."""
        return self.shape is None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Implementation:
    """One plugin's function for one trigger, with what was decided about it.

    Attributes:
        trigger: the trigger it implements.
        plugin: the name of the plugin.
        function: what is called.
        argnames: the parameters it takes, in its own order.
        wrapper: whether it is a generator around the whole chain (rule 7).
        asynchronous: whether it is known to be `async def`.
        on_error: the plugin's own choice; `None` is the default of the trigger (rule 9).
        timeout: seconds; `None` is no bound.
    """

    trigger: Trigger
    plugin: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    wrapper: bool = False
    asynchronous: bool = False
    on_error: OnError | None = None
    timeout: float | None = None

    @property
    def isolated(self) -> bool:
        """Whether its errors are kept from the caller (rule 9)."""
        if self.on_error == "isolate":
            return True
        if not self.trigger.signal:
            return False
        return self.on_error != "raise" or self.trigger.must_go_on


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCall:
    """One call of one implementation, as an observer is told of it.

    Attributes:
        trigger: the name of the trigger.
        plugin: the name of the plugin; empty for a trigger that no plugin implements, of which
            only observers added with `idle=True` are told.
        given: every parameter as the trigger was called with it.
        before, after: the replaceable parameters before and after this implementation.
        seconds: how long it took (for a wrapper: with all that it wraps).
        error: what it raised, as it went on or was isolated.
        wrapper: whether it is a wrapper.
    """

    trigger: str
    plugin: str
    given: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    seconds: float
    error: BaseException | None = None
    wrapper: bool = False

    @property
    def uuid(self) -> UUID | None:
        """The task that it was about; `None` where it was about none, or about several."""
        found = self.given.get("uuid")
        for name in ("task_broker", "task"):
            if found is None:
                found = getattr(self.given.get(name), "uuid", None)
        return found if isinstance(found, UUID) else None


Observer: TypeAlias = Callable[[PluginCall], object]
"""Is called after each call of a plugin; must be quick, must not raise, and must not change anything."""
