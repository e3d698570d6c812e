"""Registration, order, observers and the rest of what `PluginManager` does (the rules: tests/properties)."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import types
from typing import Any

import pytest

from qtasks.chain import PluginCall
from qtasks.errors import PluginError, PluginOrderError, PluginRegistrationError, WrongLoopError
from qtasks.manager import PluginManager, PluginWarning
from qtasks.markers import hookimpl, hookspec

CONFIG: dict[str, Any] = {"global_config": None, "name": "n", "key": "k", "result": 0}


class Add:
    """Adds a number to what `global_config_get` found."""

    def __init__(self, number: int) -> None:
        self.number = number

    @hookimpl
    def global_config_get(self, result: int) -> int:
        return result + self.number


class AsyncAdd(Add):
    @hookimpl
    async def global_config_get(self, result: int) -> int:
        await asyncio.sleep(0)
        return result + self.number


class Broken:
    @hookimpl
    def global_config_get(self) -> None:
        raise ValueError("broken")

    @hookimpl
    def broker_start(self) -> None:
        raise ValueError("broken")


async def test_pm_hook_is_an_async_function_that_is_swapped() -> None:
    pm = PluginManager()
    before = pm.hook.global_config_get
    assert asyncio.iscoroutinefunction(before)
    assert pm.hook.global_config_get is before
    pm.register(Add(1))
    assert pm.hook.global_config_get is not before
    assert await pm.hook.global_config_get(**CONFIG) == 1
    assert await before(**CONFIG) == 0


async def test_wrong_names_and_arguments_fail_at_run_time_too() -> None:
    pm = PluginManager()
    with pytest.raises(AttributeError, match=r"'broker_strat'; did you mean 'broker_start'\?"):
        pm.hook.broker_strat  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match="worker"):
        await pm.hook.broker_start(broker=None)  # type: ignore[call-arg, arg-type]


def test_names() -> None:
    pm = PluginManager()

    class Named(Add):
        qtasks_name = "named"

    assert pm.register(Add(1)) == "Add"
    assert pm.register(Add(2), name="second") == "second"
    assert pm.register(Named(3)) == "named"
    with pytest.raises(PluginRegistrationError, match="named 'Add' is registered already"):
        pm.register(Add(4))
    same = Add(5)
    pm.register(same, name="fifth")
    with pytest.raises(PluginRegistrationError, match="is registered already, as 'fifth'"):
        pm.register(same, name="sixth")
    with pytest.raises(PluginRegistrationError, match="None is not a plugin"):
        pm.register(None)
    assert [info.name for info in pm.plugins()] == ["Add", "second", "named", "fifth"]


async def test_modules_static_and_class_methods_are_plugins() -> None:
    module = types.ModuleType("acme")

    @hookimpl
    def global_config_get(result: int) -> int:
        return result + 1

    module.global_config_get = global_config_get  # type: ignore[attr-defined]

    class Methods:
        @staticmethod
        @hookimpl
        def global_config_get(result: int) -> int:
            return result * 10

        @classmethod
        @hookimpl
        def broker_start(cls, broker: object) -> None: ...

    pm = PluginManager()
    assert pm.register(module) == "acme"
    pm.register(Methods)
    assert await pm.hook.global_config_get(**CONFIG) == 10
    assert pm.plugins()[1].triggers == ("broker_start", "global_config_get")


def test_an_error_says_which_definition_is_wrong_and_what_was_meant() -> None:
    class Wrong:
        @hookimpl
        def global_config_get(self, resut: int) -> None: ...

    with pytest.raises(PluginRegistrationError) as caught:
        PluginManager().register(Wrong(), name="acme")
    text = str(caught.value)
    assert "plugin 'acme'" in text
    assert "no parameter 'resut' (did you mean 'result'?)" in text
    assert "Wrong.global_config_get" in text
    assert __file__ in text
    assert (caught.value.plugin, caught.value.trigger) == ("acme", "global_config_get")


def test_an_undecorated_method_named_like_a_trigger_is_a_warning() -> None:
    class Forgot:
        def broker_start(self) -> None: ...

    with pytest.warns(PluginWarning, match="'broker_start', which is the name of a trigger"):
        PluginManager().register(Forgot())


def test_a_decorated_object_that_is_no_function_is_refused() -> None:
    class Partial:
        broker_start = hookimpl(functools.partial(print, "started"))

    with pytest.raises(PluginRegistrationError, match="'broker_start' is wrong: it is a partial"):
        PluginManager().register(Partial())


async def test_an_optional_hook_and_a_specname() -> None:
    class Other:
        @hookimpl(optionalhook=True)
        def somebody_elses(self) -> None: ...

        @hookimpl(specname="global_config_get")
        def twice(self, result: int) -> int:
            return result + 2

    pm = PluginManager()
    pm.register(Other())
    assert await pm.hook.global_config_get(**CONFIG) == 2


async def test_on_error_timeout_and_configure() -> None:
    pm = PluginManager(plugin_timeout=2.0)
    pm.register(Broken(), on_error="isolate", plugin_timeout=0)
    assert await pm.hook.global_config_get(**CONFIG) == 0
    info = pm.plugins()[0]
    assert (info.on_error, info.plugin_timeout) == ("isolate", None)
    pm.configure("Broken", on_error="raise")
    assert (pm.plugins()[0].on_error, pm.plugins()[0].plugin_timeout) == ("raise", 2.0)
    with pytest.raises(PluginError, match="ValueError: broken"):
        await pm.hook.broker_start(broker=None, worker=None)  # type: ignore[arg-type]
    assert pm.errors == {("Broken", "global_config_get"): 1, ("Broken", "broker_start"): 1}
    with pytest.raises(ValueError, match="on_error"):
        pm.register(Add(1), on_error="ignore")  # type: ignore[arg-type]
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="plugin_timeout"):
            pm.register(Add(1), plugin_timeout=wrong)
    with pytest.raises(PluginRegistrationError, match="no plugin named 'nobody'"):
        pm.configure("nobody")


async def test_an_isolated_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    pm = PluginManager()
    pm.register(Broken(), name="acme")
    await pm.hook.broker_start(broker=None, worker=None)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "'acme'" in record.getMessage()
    assert "'broker_start'" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_unregister_block_and_has() -> None:
    pm = PluginManager()
    plugin = Add(1)
    pm.register(plugin, name="one", on_error="isolate")
    assert pm.unregister("one") is plugin
    assert not pm.has("one")
    pm.register(plugin, name="one")
    assert pm.plugins()[0].on_error is None
    assert pm.unregister(plugin) is plugin
    with pytest.raises(PluginRegistrationError, match="'one'"):
        pm.unregister("one")
    pm.register(plugin, name="one")
    pm.block("one")
    assert not pm.has("one")
    assert pm.register(Add(2), name="one") == "one"
    assert not pm.has("one")
    assert pm.plugins() == []
    assert await pm.hook.global_config_get(**CONFIG) == 0


async def test_order_by_plugin_attributes_and_explain() -> None:
    class First(Add):
        qtasks_before = "second"

    class Wrapper:
        @hookimpl(wrapper=True)
        def global_config_get(self) -> Any:
            return (yield) + 100

    pm = PluginManager()
    pm.register(Add(1), name="second")
    pm.register(First(2), name="first")
    pm.register(Wrapper(), name="around")
    assert await pm.hook.global_config_get(**CONFIG) == 103
    links = pm.explain("global_config_get")
    assert [(link.position, link.plugin, link.kind) for link in links] == [
        (1, "around", "wrapper"),
        (2, "first", "def"),
        (3, "second", "def"),
    ]
    assert "asks to run before 'second'" in links[1].why
    assert "moved" in links[1].why
    assert "'first' asks to run before it" in links[2].why
    assert links[0].why.startswith("a wrapper")
    with pytest.raises(LookupError, match="'nothing'"):
        pm.explain("nothing")

    class Circle(Add):
        qtasks_before = ("first",)
        qtasks_after = ("second", "unknown")

    with pytest.raises(
        PluginOrderError, match=r"'circle'.*'first'.*'second'|'first'.*'second'.*'circle'"
    ) as caught:
        pm.register(Circle(3), name="circle")
    assert caught.value.trigger == "global_config_get"
    assert not pm.has("circle")


async def test_observers_are_told_of_every_call() -> None:
    pm = PluginManager()
    pm.register(Add(1), name="one")
    pm.register(AsyncAdd(2), name="two")
    calls: list[PluginCall] = []
    idle: list[PluginCall] = []
    pm.add_observer(calls.append)
    pm.add_observer(idle.append, idle=True)
    assert await pm.hook.global_config_get(**CONFIG) == 3
    assert [(call.trigger, call.plugin, call.before, call.after) for call in calls] == [
        ("global_config_get", "one", {"result": 0}, {"result": 1}),
        ("global_config_get", "two", {"result": 1}, {"result": 3}),
    ]
    assert all(call.error is None and call.seconds >= 0 and call.given["key"] == "k" for call in calls)
    await pm.hook.broker_stop(broker=None)  # type: ignore[arg-type]
    assert len(calls) == 2
    assert (idle[-1].trigger, idle[-1].plugin, idle[-1].after) == ("broker_stop", "", {})
    pm.register(Broken(), name="broken")
    with pytest.raises(PluginError) as caught:
        await pm.hook.global_config_get(**CONFIG)
    assert (calls[-1].plugin, calls[-1].error) == ("broken", caught.value)
    pm.remove_observer(calls.append)
    pm.remove_observer(idle.append)
    seen = len(calls)
    with pytest.raises(PluginError):
        await pm.hook.global_config_get(**CONFIG)
    assert len(calls) == seen
    with pytest.raises(ValueError, match="is not an observer"):
        pm.remove_observer(calls.append)


def test_unheard_is_what_neither_a_plugin_nor_an_observer_is_told_of() -> None:
    pm = PluginManager()
    every = frozenset(pm.triggers)
    assert pm.unheard == every
    pm.register(Add(1), name="one")
    pm.pluggy.register(Add(2), name="other")
    assert pm.unheard == every - {"global_config_get"}
    pm.unregister("one")
    pm.pluggy.set_blocked("other")
    assert pm.unheard == every

    def plugins_only(call: PluginCall) -> None: ...
    def everything(call: PluginCall) -> None: ...

    pm.add_observer(plugins_only)
    assert pm.unheard == every
    pm.add_observer(everything, idle=True, when=lambda: False)
    assert pm.unheard == frozenset()
    pm.remove_observer(everything)
    pm.add_observer(everything, idle=True)
    assert pm.unheard == frozenset()
    pm.remove_observer(everything)
    assert pm.unheard == every


async def test_observers_see_wrappers_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def global_config_get(self) -> Any:
            return (yield) + 100

    calls: list[PluginCall] = []

    def bad(call: PluginCall) -> None:
        raise RuntimeError("blind")

    pm = PluginManager()
    pm.register(Wrapper(), name="around")
    pm.register(Add(1), name="one")
    pm.add_observer(bad)
    pm.add_observer(calls.append)
    assert await pm.hook.global_config_get(**CONFIG) == 101
    assert [(call.plugin, call.wrapper, call.before, call.after) for call in calls] == [
        ("one", False, {"result": 0}, {"result": 1}),
        ("around", True, {"result": 1}, {"result": 101}),
    ]
    assert "observer" in caplog.text


async def test_triggers_belong_to_the_bound_loop() -> None:
    pm = PluginManager()
    pm.register(Add(1))
    pm.bind_loop(asyncio.get_running_loop())
    assert await pm.hook.global_config_get(**CONFIG) == 1
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(pm.hook.global_config_get(**CONFIG))
        except WrongLoopError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "qtasks.sync" in str(caught[0])
    pm.bind_loop(None)
    assert await asyncio.to_thread(lambda: asyncio.run(pm.hook.global_config_get(**CONFIG))) == 1


def test_qtasks_api_and_required_capabilities() -> None:
    pm = PluginManager()
    for number, fits in enumerate((">=1,<2", "==1.0", "!=2", ">0.9, <=1")):
        plugin = Add(1)
        plugin.qtasks_api = fits  # type: ignore[attr-defined]
        pm.register(plugin, name=f"fits{number}")
    for wrong in (">=2", "<1", "1.0", 1, ">=1,", "~=1.0"):
        plugin = Add(1)
        plugin.qtasks_api = wrong  # type: ignore[attr-defined]
        with pytest.raises(PluginRegistrationError, match="plugin"):
            pm.register(plugin, name="wrong")
    needy = Add(1)
    needy.qtasks_requires = ("shared", "streams")  # type: ignore[attr-defined]
    pm.register(needy, name="before there is an application")
    pm.unregister(needy)
    pm.set_capabilities({"shared": True, "streams": False})
    with pytest.raises(PluginRegistrationError, match="'needy' needs streams, which the stores"):
        pm.register(needy, name="needy")
    with pytest.raises(PluginRegistrationError, match="'needy' needs streams"):
        pm.pluggy.register(needy, name="needy")
    assert not pm.has("needy")
    pm.set_capabilities({"shared": True, "streams": True})
    assert pm.register(needy, name="needy") == "needy"
    for wrong in (("share",), "share", (1,), 7):
        plugin = Add(1)
        plugin.qtasks_requires = wrong  # type: ignore[attr-defined]
        with pytest.raises(
            PluginRegistrationError, match=r"did you mean 'shared'|must be names of capabilities"
        ):
            pm.register(plugin, name="wrong")


async def test_third_party_triggers_obey_the_same_rules() -> None:
    module = types.ModuleType("acme_specs")

    @hookspec(replaces=("number",), returns="value")
    def acme_number(number: int) -> int | None:
        """Replaces the number."""

    module.acme_number = acme_number  # type: ignore[attr-defined]
    pm = PluginManager()
    pm.add_hookspecs(module)

    class Plugin:
        @hookimpl
        def acme_number(self, number: int) -> str:
            return "7" if number else "x"

    pm.register(Plugin())
    fire: Any = pm.hook
    assert await fire.acme_number(number=1) == 7
    with pytest.raises(PluginError, match="expected int"):
        await fire.acme_number(number=0)
    with pytest.raises(ValueError, match="exists already"):
        pm.add_hookspecs(module)
    with pytest.raises(ValueError, match="did not find any"):
        pm.add_hookspecs(types.ModuleType("empty"))


def test_a_wrong_declaration_fails_where_it_stands() -> None:
    def acme(number: int, text: str) -> None: ...
    def default(number: int = 1) -> None: ...

    for options in (
        {"replaces": ("nothing",), "returns": "value"},
        {"replaces": ("number",)},
        {"returns": "value"},
        {"replaces": ("number", "text"), "returns": "value"},
        {"replaces": ("number",), "returns": "pair"},
    ):
        with pytest.raises(ValueError, match="'acme'"):
            hookspec(**options)(acme)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="'default'"):
        hookspec(default)
