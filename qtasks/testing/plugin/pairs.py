"""Which plugins do not commute: on which trigger the order of two of them matters, with the smallest example."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from qtasks import PluginManager, TaskDefer, TaskFunction
from qtasks.testing.plugin.compared import alike, frozen, told
from qtasks.testing.plugin.stage import CONTROL, Outcome, Stage, examples, shown, shrink

TIMES = 4
"""So many times the usual number of examples: only values that both plugins change show anything."""


@dataclass(frozen=True, slots=True)
class OrderMatters:
    """Two plugins that do not commute on a trigger.

    Attributes:
        trigger: the trigger.
        first, second: the plugins, in the order in which they run.
        declared: whether they say so themselves (before, after, tryfirst, trylast): their order is then the same
            whatever the order of registration.
        example: the smallest firing found for which the order matters.
        as_is, turned: what comes of it in this order, and with the two turned round.
    """

    trigger: str
    first: str
    second: str
    declared: bool
    example: str
    as_is: str
    turned: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data (JSON)."""
        return asdict(self)


class _Differs(AssertionError):
    def __init__(self, found: OrderMatters) -> None:
        super().__init__(f"{found.first} and {found.second} do not commute on {found.trigger}")
        self.found = found


def order_matters(
    plugins: Mapping[str, Any], *, tasks: Iterable[TaskFunction[..., Any]] = ()
) -> list[OrderMatters]:
    """The pairs of plugins that do not commute, trigger by trigger.

    Each plugin is put alone into an application in memory, and the values that one left are given to the other, in
    both orders. Where a plugin gives another value each time (a nonce, a random delay), only its form counts. A
    wrapper runs around the chain wherever it was registered, so it is compared with other wrappers only.

    Parameters:
        plugins: the plugins by name, in registration order; what makes one will do.
        tasks: declared tasks that examples are about, in the place of those of the kit.
    """
    from qtasks.testing.plugin.suite import factory_of

    tasks = tuple(tasks)
    found = []
    with ExitStack() as stack:
        stages = {
            name: stack.enter_context(Stage({name: factory_of(plugin)()}, tasks)) for name, plugin in plugins.items()
        }  # fmt: skip
        for pair in combinations(stages, 2):
            found += list(_of_pair(*pair, stages))
    return found


def _of_pair(one: str, other: str, stages: Mapping[str, Stage]) -> Iterator[OrderMatters]:
    mine = stages[other].triggers(signals=False)
    for trigger in stages[one].triggers(signals=False):
        if trigger not in mine or _kind(stages[one], trigger) != _kind(stages[other], trigger):
            continue
        usual, turned = (_arranged(trigger, stages, names) for names in ((one, other), (other, one)))
        matters = _look_for(trigger, usual, stages, declared=usual == turned)
        if matters is not None:
            yield matters


def _kind(stage: Stage, trigger: str) -> set[bool]:
    return {link.kind == "wrapper" for link in stage.app.pm.explain(trigger)}


def _arranged(trigger: str, stages: Mapping[str, Stage], names: tuple[str, str]) -> tuple[str, str]:
    pm = PluginManager()
    for name in names:
        (info,) = stages[name].app.pm.plugins()
        pm.register(info.plugin, name=name)
    first, second = dict.fromkeys(link.plugin for link in pm.explain(trigger))
    return first, second


def _look_for(
    trigger: str, order: tuple[str, str], stages: Mapping[str, Stage], *, declared: bool
) -> OrderMatters | None:
    first, second = (stages[name] for name in order)
    replaces = first.app.pm.triggers[trigger].replaces

    def look(values: dict[str, Any]) -> None:
        given = {name: _copied(value) for name, value in values.items()}
        as_is, again = (_one_after_another(trigger, values, first, second) for _ in range(2))
        turned = _one_after_another(trigger, values, second, first)
        if type(as_is.raised) is type(turned.raised) and alike(as_is.values, again.values, turned.values):
            return
        names = [name for name in replaces if frozen(as_is.values[name]) != frozen(turned.values[name])]
        raise _Differs(
            OrderMatters(
                trigger,
                *order,
                declared,
                shown(trigger, given),
                _told(as_is, names or replaces),
                _told(turned, names or replaces),
            )
        )

    try:
        for values in examples(first, trigger, times=TIMES):
            try:
                look(values)
            except _Differs:
                shrink(first.values(trigger), look)
                raise
    except _Differs as differs:
        return differs.found
    return None


def _one_after_another(trigger: str, values: Mapping[str, Any], *stages: Stage) -> Outcome:
    now = dict(values)
    deferred: TaskDefer | None = None
    outcome = Outcome({})
    for stage in stages:
        outcome = stage.fire(trigger, {name: _own(stage, value) for name, value in now.items()})
        now.update(outcome.values)
        if isinstance(outcome.raised, TaskDefer) and stage.app.pm.triggers[trigger].defers:
            if deferred is None or outcome.raised.seconds > deferred.seconds:
                deferred = outcome.raised
        elif outcome.raised is not None:
            return outcome
    return Outcome(outcome.values, deferred)


def _own(stage: Stage, value: Any) -> Any:
    return stage.own(value) or copy.deepcopy(value)


def _copied(value: Any) -> Any:
    return value if hasattr(type(value), "bind") or hasattr(value, "pm") else copy.deepcopy(value)


def _told(outcome: Outcome, names: Iterable[str]) -> str:
    if isinstance(outcome.raised, CONTROL):
        return f"{type(outcome.raised).__name__}: {outcome.raised}"
    if outcome.raised is not None:
        return str(outcome.raised)
    return ", ".join(f"{name}={told(outcome.values[name])}" for name in names)
