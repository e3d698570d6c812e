"""TraceRecorder: which plugin changed which value of a task from what to what, as a tree and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from rich.text import Text
from rich.tree import Tree

from qtasks.chain import PluginCall

ABSENT: Final = "(absent)"
"""Stands in a change for a value that was not there before, or is not there any more."""
LONGEST: Final = 200
"""Characters of a value that are kept; arguments may be large."""
SHOWN: Final = 40
"""Characters of a value in the tree."""

Redact = Callable[[str, str], bool]
"""(trigger, path) -> whether the value at this path is kept out of the trace."""


class Change(NamedTuple):
    """One value that a plugin replaced. `path` is like `model.extra['a']` or `args[0]`; values are as by `repr`."""

    path: str
    before: str
    after: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TraceCall:
    """One call of one implementation for one task.

    Attributes:
        trigger, plugin: what was called; `plugin` is empty for a trigger that no plugin implements.
        changes: what it replaced.
        seconds: how long it took.
        error: what it raised; `None` if it did not.
        wrapper: whether it ran around the chain.
        signal: whether there was nothing that it could replace.
    """

    trigger: str
    plugin: str
    changes: tuple[Change, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    wrapper: bool = False
    signal: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain data (JSON)."""
        return {**dataclasses.asdict(self), "changes": [change._asdict() for change in self.changes]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TraceCall:
        """The call that `to_dict` was taken of."""
        return cls(**{**data, "changes": tuple(Change(**change) for change in data["changes"])})


class TraceRecorder:
    """Keeps the calls of plugins, by task. It is an observer: `pm.add_observer(recorder, idle=True)`.

    Parameters:
        only: the uuids to record; `None` records every task.
        redact: (trigger, path) -> whether a value is kept out; none is by default.
        limit: calls kept per task at most; the first ones are kept.
    """

    def __init__(
        self, only: Iterable[UUID] | None = None, *, redact: Redact | None = None, limit: int = 1000
    ) -> None:
        self.only = None if only is None else frozenset(only)
        self._redact = redact
        self._limit = limit
        self._calls: dict[UUID, list[TraceCall]] = {}

    def __call__(self, call: PluginCall) -> None:
        """Takes one call; those that belong to no task are left out."""
        uuid = _uuid_of(call.given)
        if uuid is None or (self.only is not None and uuid not in self.only):
            return
        kept = self._calls.setdefault(uuid, [])
        if len(kept) < self._limit:
            kept.append(self._taken(call))

    def _taken(self, call: PluginCall) -> TraceCall:
        changes: list[Change] = []
        for name, before in call.before.items():
            after = call.after[name]
            if after is not before:
                _differ(name, before, after, changes)
        if self._redact is not None:
            changes = [
                Change(change.path, "(redacted)", "(redacted)")
                if self._redact(call.trigger, change.path)
                else change
                for change in changes
            ]
        return TraceCall(
            trigger=call.trigger, plugin=call.plugin, changes=tuple(changes), seconds=call.seconds,
            error=None if call.error is None else f"{type(call.error).__name__}: {call.error}", wrapper=call.wrapper,
            signal=not call.before,
        )  # fmt: skip

    def calls(self, uuid: UUID) -> list[TraceCall]:
        """What was recorded of a task, in the order in which it happened."""
        return list(self._calls.get(uuid, ()))

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that was recorded, by uuid, as plain data (JSON)."""
        return {str(uuid): [call.to_dict() for call in calls] for uuid, calls in self._calls.items()}


def _uuid_of(given: Mapping[str, Any]) -> UUID | None:
    found = given.get("uuid")
    if found is None:
        found = getattr(given.get("task_broker"), "uuid", None) or getattr(given.get("task"), "uuid", None)
    return found if isinstance(found, UUID) else None


# --- Differences ----------------------------------------------------------------------------------


def _differ(path: str, before: Any, after: Any, changes: list[Change]) -> None:
    pairs = _parts(before, after)
    if pairs is not None:
        for suffix, old, new in pairs:
            if old is not new:
                _differ(path + suffix, old, new, changes)
    elif type(before) is not type(after) or before != after:
        changes.append(Change(path, _shown(before), _shown(after)))


def _parts(before: Any, after: Any) -> list[tuple[str, Any, Any]] | None:
    """The two values taken apart alike; `None` where they cannot be."""
    if dataclasses.is_dataclass(before) and type(before) is type(after):
        names = [field.name for field in dataclasses.fields(before) if field.compare]
        return [(f".{name}", getattr(before, name), getattr(after, name)) for name in names]
    if isinstance(before, dict) and isinstance(after, dict):
        keys = {**before, **after}
        return [(f"[{key!r}]", before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys]
    if isinstance(before, (list, tuple)) and type(before) is type(after) and len(before) == len(after):
        return [(f"[{i}]", *pair) for i, pair in enumerate(zip(before, after, strict=True))]
    return None


def _shown(value: Any) -> str:
    return _cut(ABSENT if value is ABSENT else repr(value), LONGEST)


def _cut(text: str, longest: int = SHOWN) -> str:
    """The text, shortened in its middle."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


# --- The tree -------------------------------------------------------------------------------------


def render_tree(title: str, calls: Iterable[TraceCall], *, idle: bool = True) -> Tree:
    """The calls of one task as a tree: triggers, plugins, changes.

    Parameters:
        title: stands at its root.
        calls: the calls, in their order.
        idle: show triggers that no plugin implements, too.
    """
    tree = Tree(Text(title, style="bold"))
    for trigger, together in groupby(calls, key=lambda call: call.trigger if call.plugin else None):
        if trigger is not None:
            branch = tree.add(Text(trigger, style="cyan"))
            for call in together:
                _add_call(branch, call)
        elif idle:
            tree.add(Text(f"(no plugin) {', '.join(call.trigger for call in together)}", style="dim"))
    return tree


def _add_call(branch: Tree, call: TraceCall) -> None:
    line = Text(call.plugin, style="bold green" if call.changes else "green")
    if call.wrapper:
        line.append(" (wrapper)", style="dim")
    if not call.changes and call.error is None:
        line.append("  listened" if call.signal else "  changed nothing", style="dim")
    line.append(f"  {call.seconds * 1000:.2f} ms", style="dim")
    node = branch.add(line)
    for change in call.changes:
        node.add(
            Text.assemble(
                change.path, ": ", (_cut(change.before), "red"), " → ", (_cut(change.after), "green")
            )
        )
    if call.error is not None:
        node.add(Text(f"raised {call.error}", style="red"))
