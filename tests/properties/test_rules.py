"""The rules of a trigger (DESIGN, section 1), each as a property of its own.

Most play a random case and hold it against the oracle, a plain left fold; which variety the case
has depends on the rule. The same properties must fail on the mutants: see `mutants.py`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtasks.errors import (
    PluginError,
    PluginNestingError,
    PluginRegistrationError,
    PluginTimeoutError,
    TaskDefer,
)
from tests.properties.cases import (
    MANY_KEYS,
    MODELS,
    REPLACING,
    SIGNALS,
    Act,
    Case,
    Impl,
    cases,
)
from tests.properties.lab import REAL, Lab
from tests.properties.oracle import expect
from tests.properties.play import Stage, drive, play

PROPERTIES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Lab, Any], None]]] = {}


def rule(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[[Lab, Any], None]], Callable[[], None]]:
    """Makes a test of the real chain, and keeps the property for the mutants."""

    def decorate(check: Callable[[Lab, Any], None]) -> Callable[[], None]:
        PROPERTIES[check.__name__] = (strategy, check)

        @given(strategy)
        def test(case: Any) -> None:
            check(REAL, case)

        test.__name__ = check.__name__
        test.__doc__ = check.__doc__
        return test

    return decorate


def holds(lab: Lab, case: Case) -> None:
    """The chain does what the oracle says: results, errors, what each plugin saw, what was counted."""
    expected, actual = expect(case), play(lab, case)
    assert actual.refused == expected.refused
    for told, came in zip(expected.outcomes, actual.outcomes, strict=True):
        assert came.seen == told.seen
        assert came.error == told.error
        assert came.result == told.result
        assert came.failures == told.failures


@rule(cases(what="good", most=8))
def test_rule_01_each_sees_the_values_as_replaced_before_it(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="", triggers=REPLACING))
def test_rule_02_none_leaves_every_value_as_it_is(lab: Lab, case: Case) -> None:
    holds(lab, case)
    values = [MODELS[case.trigger].given[key] for key in MODELS[case.trigger].replaces]
    result = play(lab, case).outcomes[0].result
    assert result == (values[0] if len(values) == 1 else tuple(values))


@rule(cases(what="good", triggers=(*MANY_KEYS, "fields")))
def test_rule_03_a_mapping_a_pair_and_kwargs_update_what_they_name(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good", triggers=("one",), least=2))
def test_rule_04_the_last_that_returned_a_value_has_the_last_word(lab: Lab, case: Case) -> None:
    holds(lab, case)
    spoken = [impl.act.value for impl in (*case.plugins, *case.added) if impl.act.value is not None]
    assert play(lab, case).outcomes[1].result == (spoken[-1] if spoken else 0)


@rule(cases(what="good nul wrong", triggers=("maybe", "many", "steer", "fields", "two", "one")))
def test_rule_05_null_sets_none_where_the_type_admits_it(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good", order=True, changing=True, most=8, least=2))
def test_rule_06_order(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good nul", order=True, wrappers=True, most=4))
def test_rule_07_wrappers_run_around_the_chain(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good wrong error control bail", wrappers=True, on_error=True, most=4))
def test_rule_07_wrappers_see_and_turn_what_the_chain_raises(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good wrong", triggers=REPLACING, most=3))
def test_rule_08_what_a_plugin_returns_is_checked(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="wrong", triggers=("two", "many"), most=2))
def test_rule_08_a_wrong_shape_is_refused(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="wrong", triggers=("fields",), most=2))
def test_rule_08_a_wrong_key_is_refused(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good error bail", on_error=True))
def test_rule_09_signals_isolate_and_replacements_raise(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="error", triggers=SIGNALS, on_error=True, most=3))
def test_rule_09_signals_raise_only_where_they_may(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(
    st.lists(
        st.tuples(st.sampled_from(["quick", "waits", "hangs", "stubborn", "blind", "lazy"]), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_rule_09_plugin_timeout_bounds_what_waits(lab: Lab, behaviours: list[tuple[str, bool]]) -> None:
    hangs = ("hangs", "stubborn", "blind", "lazy")

    async def main() -> None:
        pm = lab.manager(plugin_timeout=0.01)
        ran: list[int] = []
        for i, (behaviour, isolate) in enumerate(behaviours):
            plugin = _waiting(lab, behaviour, i, ran)
            pm.register(plugin, name=f"p{i}", on_error="isolate" if isolate else None)
        fatal = next((i for i, (kind, safe) in enumerate(behaviours) if kind in hangs and not safe), None)
        fired = pm.hook.global_config_get(global_config=None, name="n", key="k", result=0)
        if fatal is None:
            returning = [i + 1 for i, (kind, _) in enumerate(behaviours) if kind not in hangs]
            assert await fired == (returning[-1] if returning else 0)
        else:
            with pytest.raises(PluginTimeoutError) as caught:
                await fired
            assert (caught.value.plugin, caught.value.trigger) == (f"p{fatal}", "global_config_get")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        last = len(behaviours) if fatal is None else fatal + 1
        assert ran == list(range(last))
        late = {f"p{i}" for i, (kind, _) in enumerate(behaviours[:last]) if kind in hangs}
        assert {plugin for plugin, _ in pm.errors} == late

    async def bounded() -> None:
        async with asyncio.timeout(2):
            await main()

    asyncio.run(bounded())


def _waiting(lab: Lab, behaviour: str, i: int, ran: list[int]) -> object:
    async def quick() -> int:
        ran.append(i)
        return i + 1

    async def waits() -> int:
        ran.append(i)
        for _ in range(3):
            await asyncio.sleep(0)
        return i + 1

    async def hangs() -> int:
        ran.append(i)
        await asyncio.Event().wait()
        return 99

    async def stubborn() -> int:
        """Takes the cancellation for something else, and returns as if nothing was."""
        try:
            return await hangs()
        except asyncio.CancelledError:
            return 98

    async def blind() -> int:
        """Raises something of its own while it is cancelled."""
        try:
            return await hangs()
        finally:
            raise ValueError("in clean-up")

    class Async:
        @lab.hookimpl
        async def global_config_get(self, result: int) -> int:
            return await {"quick": quick, "waits": waits, "stubborn": stubborn, "blind": blind}.get(
                behaviour, hangs
            )()

    class Lazy:
        @lab.hookimpl
        def global_config_get(self, result: int) -> Any:
            return hangs()

    return Lazy() if behaviour == "lazy" else Async()


@rule(cases(what="good error control", triggers=("steer", "produce", "one", "note", "many"), on_error=True))
def test_rule_10_control_flow_is_never_isolated_before_the_run(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(cases(what="good control", triggers=("produce",), most=4))
def test_rule_10_a_defer_lets_a_producer_trigger_go_on(lab: Lab, case: Case) -> None:
    holds(lab, case)


@rule(
    st.tuples(
        st.sampled_from(["one", "many", "note", "fields"]),
        st.sampled_from(
            [
                "misspelled",
                "unknown parameter",
                "default",
                "star",
                "double star",
                "keyword-only",
                "async generator",
                "generator",
                "no generator",
                "hookwrapper",
                "duplicate",
                "class",
                "no self",
                "circle",
            ]
        ),
        st.booleans(),
    )
)
def test_rule_11_mistakes_are_errors_at_registration(lab: Lab, case: tuple[str, str, bool]) -> None:
    trigger, mistake, directly = case
    model = MODELS[trigger]
    stage = Stage(lab)
    stage.register((Impl("good"),), model)
    before = drive(getattr(stage.pm.hook, trigger)(**copy.deepcopy(model.given)))
    plugin, name = _mistaken(lab, trigger, mistake)
    with pytest.raises(PluginRegistrationError) as caught:
        (stage.pm.pluggy if directly else stage.pm).register(plugin, name)
    assert repr(name) in str(caught.value)
    assert [info.name for info in stage.pm.plugins()] == ["good"]
    stage.seen.clear()
    assert drive(getattr(stage.pm.hook, trigger)(**copy.deepcopy(model.given))) == before
    assert [name for name, _ in stage.seen] == ["good"]


def _mistaken(lab: Lab, trigger: str, mistake: str) -> tuple[object, str]:
    """A plugin with this mistake, and the name to register it under."""
    param = next(iter(MODELS[trigger].given))
    heads = {
        "misspelled": f"def {trigger}s(self): pass",
        "unknown parameter": f"def {trigger}(self, {param}x): pass",
        "default": f"def {trigger}(self, {param}=1): pass",
        "star": f"def {trigger}(self, *{param}): pass",
        "double star": f"def {trigger}(self, **{param}): pass",
        "keyword-only": f"def {trigger}(self, *, {param}): pass",
        "async generator": f"async def {trigger}(self): yield",
        "generator": f"def {trigger}(self): yield",
        "no generator": f"def {trigger}(self): pass",
        "hookwrapper": f"def {trigger}(self): yield",
        "no self": f"def {trigger}({param}): pass",
    }
    namespace: dict[str, Any] = {}
    exec(heads.get(mistake, f"def {trigger}(self): pass"), namespace)
    function = next(value for key, value in namespace.items() if not key.startswith("__"))
    options: dict[str, Any] = {"wrapper": mistake == "no generator"}
    if mistake == "circle":
        options = {"before": "good", "after": "good"}
    if mistake == "hookwrapper":
        import pluggy

        marked = pluggy.HookimplMarker("qtasks")(function, hookwrapper=True)
    else:
        marked = lab.hookimpl(**options)(function)
    cls = type("Mistaken", (), {function.__name__: marked})
    return (cls if mistake == "class" else cls()), "good" if mistake == "duplicate" else "mistaken"


@rule(cases(what="good wrong error", triggers=("many", "two", "fields"), wrappers=True))
def test_rule_12_the_chain_changes_nothing_in_place(lab: Lab, case: Case) -> None:
    model = MODELS[case.trigger]
    stage = Stage(lab)
    stage.register(case.plugins, model)
    given, snapshot = copy.deepcopy(model.given), copy.deepcopy(model.given)
    try:
        result = drive(getattr(stage.pm.hook, model.name)(**given))
    except PluginError:
        result = None
    assert given == snapshot
    if all(impl.act == Act() for impl in case.plugins) and not any(impl.around for impl in case.plugins):
        values = result if len(model.replaces) > 1 else (result,)
        assert all(value is given[key] for key, value in zip(model.replaces, values, strict=True))


@rule(
    st.tuples(
        cases(what="good", triggers=("one", "many", "note"), most=5, order=True),
        st.integers(0, 4),
        st.sampled_from(["unregister", "register", "unregister on pluggy", "register on pluggy", "block"]),
    )
)
def test_rule_13_a_running_chain_keeps_its_plan(lab: Lab, case: tuple[Case, int, str]) -> None:
    """Plugins come and go while the chain runs: it goes on as it was, and the next one is new."""
    chain, at, change = case
    model = MODELS[chain.trigger]
    plain = Case(chain.trigger, chain.plugins)
    stage = Stage(lab)
    stage.register(chain.plugins, model)
    names = [info.name for info in stage.pm.plugins()]
    if not names:
        return
    extra = Impl("extra", act=Act(value=next(iter((77,))) if model.shape == "value" else None))
    original = stage.act

    def act_and_change(act: Act) -> Any:
        if len(stage.seen) == min(at, len(names) - 1) + 1:
            stage.act = original  # type: ignore[method-assign]
            _change(stage, change, names[0], extra, model)
        return original(act)

    stage.act = act_and_change  # type: ignore[method-assign]
    assert stage.fire(model).seen == expect(plain).outcomes[0].seen
    there = [impl for impl in chain.plugins if impl.name in names]
    if change.startswith("register"):
        there.append(extra)
    else:
        there = [impl for impl in there if impl.name != names[0]]
    assert stage.fire(model).seen == expect(Case(chain.trigger, tuple(there))).outcomes[0].seen


def _change(stage: Stage, change: str, name: str, extra: Impl, model: Any) -> None:
    if change == "unregister":
        stage.pm.unregister(name)
    elif change == "unregister on pluggy":
        stage.pm.pluggy.unregister(name=name)
    elif change == "block":
        stage.pm.block(name)
    elif change == "register":
        stage.register((extra,), model)
    else:
        stage.pm.pluggy.register(stage.plugin(extra, model), extra.name)


@rule(
    st.tuples(
        st.integers(1, 20), st.lists(st.sampled_from(["async", "lazy", "task"]), min_size=20, max_size=20)
    )
)
def test_rule_13_nesting_deeper_than_16_raises(lab: Lab, case: tuple[int, list[str]]) -> None:
    depth, kinds = case

    async def main() -> None:
        pm = lab.manager()
        level = 0

        async def inner() -> None:
            nonlocal level
            level += 1
            if level < depth:
                fired = pm.hook.global_config_get(global_config=None, name="n", key="k", result=None)
                await (asyncio.ensure_future(fired) if kinds[level - 1] == "task" else fired)

        class Async:
            @lab.hookimpl
            async def global_config_get(self) -> None:
                await inner()

        class Lazy:
            @lab.hookimpl
            def global_config_get(self) -> Any:
                return inner()

        pm.register(Lazy() if kinds[0] == "lazy" else Async(), name="circular")
        fired = pm.hook.global_config_get(global_config=None, name="n", key="k", result=None)
        if depth <= 16:
            await fired
            assert level == depth
        else:
            with pytest.raises(PluginNestingError, match="'circular'") as caught:
                await fired
            assert caught.value.plugin == "circular"
            assert level == 16

    asyncio.run(main())


@rule(
    cases(what="good nul wrong error control bail", order=True, wrappers=True, on_error=True, changing=True)
)
def test_all_rules_together(lab: Lab, case: Case) -> None:
    holds(lab, case)


def test_the_oracle_knows_a_chain_by_hand() -> None:
    """The oracle itself, on a chain worked out by hand, so that both cannot be wrong in the same way."""
    plugins = (
        Impl("a", act=Act(value={"number": 5}), group="trylast"),
        Impl("b", act=Act(value={"number": 1, "text": None, "items": [2]})),
        Impl("c", act=Act(error="ValueError"), on_error="isolate"),
        Impl("d", act=Act(value={"number": "wrong"}), on_error="isolate", before=("b",)),
    )
    outcome = expect(Case("many", plugins)).outcomes[0]
    assert outcome.result == (5, "t", [2])
    assert [name for name, _ in outcome.seen] == ["c", "d", "b", "a"]
    assert outcome.failures == {"c": 1, "d": 1}
    assert expect(Case("note", (Impl("a", act=Act(value=1)),))).outcomes[0].result is None
    assert {trigger for trigger in MODELS if not MODELS[trigger].replaces} == set(SIGNALS)
    assert TaskDefer(1).values is None
