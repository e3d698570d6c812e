"""The trace: which plugin changed which value of a task from what to what, as data, as JSON and as a tree.

Rich is imported where a tree is made: the core does without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from qtasks.chain import PluginCall
from qtasks.text import one_line

if TYPE_CHECKING:
    from rich.tree import Tree

REDACTED: Final = "(redacted)"
"""Stands for a value that is kept out."""
ABSENT: Final = "(absent)"
"""Stands in a change for a value that was not there before, or is not there any more."""
LONGEST: Final = 200
"""Characters of a value, and of the path to it, that are kept; arguments may be large."""
MOST: Final = 100
"""Changes that are kept of one call: a plugin may replace each item of a long list."""
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
        version: of that plugin, where it says one.
        changes: what it replaced.
        seconds: how long it took.
        error: what it raised; `None` if it did not.
        wrapper: whether it ran around the chain.
        signal: whether there was nothing that it could replace.
    """

    trigger: str
    plugin: str
    version: str | None = None
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
        changes = tuple(Change(**_known(Change._fields, change)) for change in data["changes"])
        return cls(**{**_known(cls.__slots__, data), "changes": changes})


def _known(fields: Sequence[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """What this version knows of it: in a rolling upgrade a newer process may have written more."""
    return {name: value for name, value in data.items() if name in fields}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TracePart:
    """What one process did for a task at one time: the producer when it was added, or a worker in one delivery.

    Attributes:
        side: `"producer"` or `"worker"`.
        calls: in the order in which they happened.
        began, ended: Unix seconds.
        worker, attempt, delivery: of a worker: its owner id, the failures before, the claims of this attempt.
        outcome: how the delivery ended: an outcome, `"rejected"` or `"lost"`.
        left_out: calls beyond those that are kept.
    """

    side: str
    calls: tuple[TraceCall, ...]
    began: float
    ended: float
    worker: str = ""
    attempt: int = 0
    delivery: int = 0
    outcome: str = ""
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain data (JSON)."""
        return {**dataclasses.asdict(self), "calls": [call.to_dict() for call in self.calls]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TracePart:
        """The part that `to_dict` was taken of."""
        calls = tuple(TraceCall.from_dict(call) for call in data["calls"])
        return cls(**{**_known(cls.__slots__, data), "calls": calls})

    @property
    def title(self) -> str:
        """What it is, in a line."""
        if self.side == "producer":
            return "producer"
        again = f", delivery {self.delivery}" if self.delivery > 1 else ""
        return f"worker {self.worker}, attempt {self.attempt + 1}{again}: {self.outcome}"


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """Every call of a trigger for one task, on the producer and on the workers, as it was stored with the task."""

    uuid: UUID
    parts: tuple[TracePart, ...]

    @property
    def calls(self) -> tuple[TraceCall, ...]:
        """The calls of all parts."""
        return tuple(call for part in self.parts for call in part.calls)

    def to_dict(self) -> dict[str, Any]:
        """As plain data (JSON)."""
        return {"uuid": str(self.uuid), "parts": [part.to_dict() for part in self.parts]}

    def tree(self, title: str = "", *, idle: bool = True) -> Tree:
        """As a tree (of rich): parts, triggers, plugins, changes.

        Parameters:
            title: stands at its root; the uuid if empty.
            idle: show triggers that no plugin implements, too.
        """
        from rich.text import Text
        from rich.tree import Tree

        tree = Tree(Text(title or str(self.uuid), style="bold"))
        for part in self.parts:
            branch = tree.add(Text(part.title, style="bold blue"))
            _add_calls(branch, part.calls, idle=idle)
            if part.left_out:
                branch.add(Text(f"({part.left_out} more calls were not kept)", style="dim"))
        return tree


def taken(call: PluginCall, redact: Redact | None, version: str | None = None) -> TraceCall:
    """What is kept of a call.

    Parameters:
        redact: (trigger, path) -> whether a value is kept out; it is asked for the path `error`, too.
        version: of the plugin.
    """
    found: list[tuple[Change, str]] = []
    for name, before in call.before.items():
        after = call.after[name]
        if after is not before:
            _differ(name, name, before, after, found)
    changes = [change for change, _ in found]
    error = None if call.error is None else f"{type(call.error).__name__}: {one_line(call.error)}"
    if redact is not None:
        changes = [
            Change(shut, REDACTED, REDACTED) if redact(call.trigger, change.path) else change
            for change, shut in found
        ]
        if call.error is not None and redact(call.trigger, "error"):
            error = f"{type(call.error).__name__}: {REDACTED}"
    changes = [change._replace(path=_cut(change.path, LONGEST)) for change in changes]
    return TraceCall(
        trigger=call.trigger, plugin=call.plugin, version=version, changes=tuple(changes), seconds=call.seconds,
        error=None if error is None else _cut(error, LONGEST), wrapper=call.wrapper, signal=not call.before,
    )  # fmt: skip


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
        uuid = call.uuid
        if uuid is None or (self.only is not None and uuid not in self.only):
            return
        kept = self._calls.setdefault(uuid, [])
        if len(kept) < self._limit:
            kept.append(taken(call, self._redact))

    def calls(self, uuid: UUID) -> list[TraceCall]:
        """What was recorded of a task, in the order in which it happened."""
        return list(self._calls.get(uuid, ()))

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that was recorded, by uuid, as plain data (JSON)."""
        return {str(uuid): [call.to_dict() for call in calls] for uuid, calls in self._calls.items()}


# --- Differences ----------------------------------------------------------------------------------


def _differ(path: str, shut: str, before: Any, after: Any, changes: list[tuple[Change, str]]) -> None:
    """Adds what is different, each with its path as it may be shown where values may not (`shut`)."""
    if len(changes) > MOST:
        return
    pairs = _parts(before, after)
    if pairs is not None:
        for suffix, old, new in pairs:
            if old is not new:
                # The keys of a dict are values too, except in `extra`, which is no secret.
                named = isinstance(before, dict) and not shut.endswith("extra")
                _differ(path + suffix, shut + ("[…]" if named else suffix), old, new, changes)
    elif type(before) is not type(after) or before != after:
        if len(changes) == MOST:
            path = shut = "(more changes)"
            before = after = ABSENT
        changes.append((Change(path, _shown(before), _shown(after)), shut))


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
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(title, style="bold"))
    _add_calls(tree, calls, idle=idle)
    return tree


def _add_calls(tree: Tree, calls: Iterable[TraceCall], *, idle: bool) -> None:
    from rich.text import Text

    for trigger, together in groupby(calls, key=lambda call: call.trigger if call.plugin else None):
        if trigger is not None:
            branch = tree.add(Text(trigger, style="cyan"))
            for call in together:
                _add_call(branch, call)
        elif idle:
            tree.add(Text(f"(no plugin) {', '.join(call.trigger for call in together)}", style="dim"))


def _add_call(branch: Tree, call: TraceCall) -> None:
    from rich.text import Text

    line = Text(call.plugin, style="bold green" if call.changes else "green")
    if call.version:
        line.append(f" {call.version}", style="dim")
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
