"""Checks of a plugin: what each of its implementations does with the values of a trigger."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qtasks import PluginCall, PluginResultError, hookimpl
from qtasks.testing.bench import KitFailure
from qtasks.testing.checks import check
from qtasks.testing.plugin.base import PluginChecks
from qtasks.testing.plugin.compared import frozen, told
from qtasks.testing.plugin.registration import silent
from qtasks.testing.plugin.stage import CONTROL, MakePlugin, Outcome, Stage, data, for_examples, shown

MARK = "kit.mark"


class Returns(PluginChecks):
    """The implementations of a plugin, one trigger at a time."""

    @check("PLUGIN-20")
    def test_its_returns_fit_the_table(self, make_component: MakePlugin) -> None:
        """What it returns fits the table of triggers: known keys, the right shape, values of the declared types,
        the same uuid (rules 3, 5, 8; R9).

        If this fails, check the return of the implementation named against `qtasks triggers NAME`.
        """
        with self.stage(make_component) as stage:
            for trigger in stage.triggers(signals=False):

                def look(values: dict[str, Any], trigger: str = trigger) -> None:
                    raised = stage.fire(trigger, values).raised
                    if isinstance(raised, PluginResultError):
                        raise KitFailure(f"{raised}\n  in {shown(trigger, values)}")

                for_examples(stage, trigger, look)

    @check("PLUGIN-21")
    def test_it_does_not_fail_on_valid_values(self, make_component: MakePlugin) -> None:
        """No implementation raises for values that a component may give it, other than control flow in a
        replacement trigger before the run (rules 9, 10).

        If this fails, check that it takes arguments and results of any JSON, absent keys of `extra`, and tasks that
        it has never seen before; a plugin that means to refuse raises TaskRejected, TaskDefer or TaskCancelError.
        """
        with self.stage(make_component) as stage:
            for trigger in stage.triggers():

                def look(values: dict[str, Any], trigger: str = trigger) -> None:
                    stage.app.pm.errors.clear()
                    raised = stage.fire(trigger, values).raised
                    if isinstance(raised, (*CONTROL, PluginResultError)):
                        return
                    if raised is not None or stage.app.pm.errors:
                        what = raised or "it raised in a signal; the log has the traceback"
                        raise KitFailure(f"{what}\n  in {shown(trigger, values)}")

                for_examples(stage, trigger, look)

    @check("PLUGIN-22")
    def test_it_mutates_nothing(self, make_component: MakePlugin) -> None:
        """It changes nothing that it was given in place, neither at once nor later (rule 12).

        If this fails, check that it builds new values: `{**extra, "a": 1}`, `(*args, 1)`, `dataclasses.replace`.
        """
        with self.stage(make_component) as stage:
            kept: list[tuple[str, dict[str, Any], Any]] = []
            for trigger in stage.triggers():

                def look(values: dict[str, Any], trigger: str = trigger) -> None:
                    given = data(values)
                    before, text = (
                        {name: frozen(value) for name, value in given.items()},
                        shown(trigger, given),
                    )
                    stage.fire(trigger, values)
                    _unchanged(text, given, before)
                    if len(kept) < 200:
                        kept.append((text, given, before))

                for_examples(stage, trigger, look)
            for text, given, before in kept:
                _unchanged(text, given, before, "later, ")

    @check("PLUGIN-23")
    def test_it_keeps_its_place_in_the_chain(self, make_component: MakePlugin) -> None:
        """Between other plugins each implementation is called once per firing, with the values as those before it
        left them; one that says nothing leaves the values alone; who comes after it sees what it left
        (rules 1, 2, 4).

        If this fails, check that it does not fire its own trigger again, and does not register or remove plugins.
        """
        with self.stage(make_component) as stage:
            own = {info.name for info in stage.app.pm.plugins()}
            triggers = stage.triggers()
            stage.app.add_plugin(silent(*triggers), name="kit.last")
            calls: list[PluginCall] = []
            stage.app.pm.add_observer(calls.append)
            for trigger in triggers:

                def look(values: dict[str, Any], trigger: str = trigger) -> None:
                    calls.clear()
                    outcome = stage.fire(trigger, values)
                    _in_its_place(stage, own, trigger, values, calls, outcome)

                for_examples(stage, trigger, look)
            assert {info.name for info in stage.app.pm.plugins()} == {*own, "kit.last"}, (
                "plugins came or went while triggers were fired"
            )

    @check("PLUGIN-24")
    def test_what_others_attached_survives(self, make_component: MakePlugin) -> None:
        """Keys of `extra` that are not its own, and fields of an update that it does not mean, stay as they are.

        If this fails, check that it returns `{**model.extra, "mine": …}`, not an `extra` of its own, and for
        `broker_update` and `storage_update` only the fields that it changes.
        """
        with self.stage(make_component) as stage:
            for trigger in stage.triggers(signals=False):

                def look(values: dict[str, Any], trigger: str = trigger) -> None:
                    marked = {name: _marked(trigger, name, value) for name, value in values.items()}
                    outcome = stage.fire(trigger, marked)
                    for name, after in outcome.values.items():
                        for what in _lost(trigger, name, marked[name], after):
                            raise KitFailure(f"{what} is lost\n  in {shown(trigger, marked)}")

                for_examples(stage, trigger, look)

    @check("PLUGIN-25")
    def test_its_wrappers_let_errors_through_or_turn_them(self, make_component: MakePlugin) -> None:
        """When the chain that a wrapper runs around fails, the wrapper raises nothing by mistake: what the caller
        gets is the error of the chain, a control flow, or a value.

        If this fails, check that the wrapper has its yield in try/finally, and does not use what it never got.
        """
        with self.stage(make_component) as stage:
            around = [trigger for trigger in stage.triggers() if _has_wrapper(stage, trigger)]
            stage.app.add_plugin(_failing(*around), name="kit.fails", on_error="raise")
            for trigger in around:

                def look(values: dict[str, Any], trigger: str = trigger) -> None:
                    raised = stage.fire(trigger, values).raised
                    blamed = getattr(raised, "plugin", "kit.fails")
                    if blamed != "kit.fails" and not isinstance(raised, CONTROL):
                        raise KitFailure(f"{raised}\n  in {shown(trigger, values)}")

                for_examples(stage, trigger, look)


def _unchanged(text: str, given: Mapping[str, Any], before: Mapping[str, Any], when: str = "") -> None:
    for name, value in given.items():
        if frozen(value) != before[name]:
            raise KitFailure(f"{when}it changed {name!r} in place to {told(value)}\n  in {text}")


def _in_its_place(
    stage: Stage, own: set[str], trigger: str, values: Mapping[str, Any], calls: list[PluginCall], outcome: Outcome
) -> None:  # fmt: skip
    text = shown(trigger, values)
    expected = [link.plugin for link in stage.app.pm.explain(trigger) if link.plugin in own]
    mine = [call for call in calls if call.plugin in own and call.trigger == trigger]
    if outcome.raised is None and len(mine) != len(expected):
        raise KitFailure(f"{len(mine)} calls instead of {len(expected)} for one firing\n  in {text}")
    inner = [call for call in calls if call.trigger == trigger and not call.wrapper]
    now: Mapping[str, Any] = {name: values[name] for name in stage.app.pm.triggers[trigger].replaces}
    for call in inner:
        for name, before in call.before.items():
            if before is not now[name] and frozen(before) != frozen(now[name]):
                raise KitFailure(f"{call.plugin} was not given the {name!r} that came before it\n  in {text}")
        now = call.after


def _marked(trigger: str, name: str, value: Any) -> Any:
    if name == "extra":
        return {**value, MARK: [1]}
    if name == "kw" and trigger in ("broker_update", "storage_update"):
        return {**value, "extra": {**value["extra"], MARK: [1]}}
    if name in ("model", "task_status", "task", "result") and hasattr(value, "extra"):
        return dataclasses.replace(value, extra={**value.extra, MARK: [1]})
    return value


def _lost(trigger: str, name: str, before: Any, after: Any) -> list[str]:
    lost = []
    if name == "kw" and trigger in ("broker_update", "storage_update"):
        lost += [f"the field {key!r} of the update" for key in before if key not in after]
        before, after = before["extra"], after.get("extra", {})
    elif hasattr(before, "extra"):
        before, after = before.extra, after.extra
    elif name != "extra":
        return lost
    if MARK in before and after.get(MARK) != before[MARK]:
        lost.append("what another plugin keeps in extra")
    return lost


def _has_wrapper(stage: Stage, trigger: str) -> bool:
    return any(link.kind == "wrapper" for link in stage.app.pm.explain(trigger))


def _failing(*triggers: str) -> Any:
    class Failing:
        pass

    def make() -> Any:
        def fails(self: Any) -> None:
            raise RuntimeError("the chain fails")

        return fails

    for trigger in triggers:
        setattr(Failing, trigger, hookimpl(specname=trigger, tryfirst=True)(make()))
    return Failing()
