"""Checks of a plugin: what it declares, how it is registered, and how it starts and stops."""

from __future__ import annotations

import asyncio
import threading
import warnings
from types import ModuleType
from typing import Any

from qtasks import QueueTasks, hookimpl
from qtasks.errors import PluginRegistrationError
from qtasks.manager import PluginManager
from qtasks.testing.bench import KitFailure
from qtasks.testing.checks import CAPABILITIES, check
from qtasks.testing.plugin.base import PluginChecks
from qtasks.testing.plugin.stage import MakePlugin, Stage, made

JOIN = 0.5
"""Seconds that a thread is given to end."""


class Registration(PluginChecks):
    """A plugin is registered, started and stopped."""

    @check("PLUGIN-01")
    def test_it_registers(self, make_component: MakePlugin) -> None:
        """It registers without an error and without a warning, and implements at least one trigger.

        If this fails, check what the error says: it names the implementation that is wrong.
        """
        plugin = asyncio.run(made(make_component()))
        pm = PluginManager()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            name = pm.register(plugin, name=self.plugin_name or None)
        assert not warned, f"registering it warns: {warned[0].message}"
        (info,) = (info for info in pm.plugins() if info.name == name)
        assert info.triggers, (
            f"the plugin {name!r} implements no trigger: decorate its methods with @hookimpl"
        )

    @check("PLUGIN-02")
    def test_registering_is_idempotent(self, make_component: MakePlugin) -> None:
        """A second registration is refused and changes nothing; taken out, nothing of it is left; registered
        again, it has the same places.

        If this fails, check that the plugin makes no implementations when it is looked at, and has one name.
        """
        plugin = asyncio.run(made(make_component()))
        pm = PluginManager()
        name = pm.register(plugin, name=self.plugin_name or None)
        chains = _chains(pm)
        for other_name in (name, f"{name}-2"):
            try:
                pm.register(plugin, name=other_name)
            except PluginRegistrationError:
                continue
            raise KitFailure(f"the plugin was registered twice, as {name!r} and as {other_name!r}")
        assert _chains(pm) == chains, "a refused registration changed the chains"
        assert pm.unregister(name) is plugin
        assert not any(_chains(pm).values()), "taken out, it still has implementations"
        assert pm.register(plugin, name=self.plugin_name or None) == name, "it changed its name"
        assert _chains(pm) == chains, "registered again, it has other implementations"

    @check("PLUGIN-03")
    def test_its_declarations_are_usable(self, make_component: MakePlugin) -> None:
        """What it needs are capabilities that exist, and it does not ask to run before or after itself.

        If this fails, check `qtasks_requires`, `qtasks_before`, `qtasks_after`, and before and after of `@hookimpl`.
        """
        pm = PluginManager()
        name = pm.register(asyncio.run(made(make_component())), name=self.plugin_name or None)
        (info,) = pm.plugins()
        unknown = info.requires - CAPABILITIES
        assert not unknown, f"qtasks_requires names what is no capability: {', '.join(sorted(unknown))}"
        for trigger in info.triggers:
            for _, place in pm.pluggy.registered(trigger):
                assert name not in place.before | place.after, (
                    f"it asks to run before or after itself: {trigger}"
                )

    @check("PLUGIN-04")
    def test_it_can_stand_beside_those_it_names(self, make_component: MakePlugin) -> None:
        """With each plugin that it asks to run before or after, in either order of registration, there is an order.

        If this fails, check that it does not ask to run before and after the same plugin.
        """
        plugin = asyncio.run(made(make_component()))
        pm = PluginManager()
        pm.register(plugin, name=self.plugin_name or None)
        (info,) = pm.plugins()
        for trigger in info.triggers:
            for _, place in pm.pluggy.registered(trigger):
                for named in sorted(place.before | place.after):
                    for first in (True, False):
                        both = PluginManager()
                        for one in (True, False) if first else (False, True):
                            if one:
                                both.register(plugin, name=self.plugin_name or None)
                            else:
                                both.register(silent(trigger), name=named)

    @check("PLUGIN-10")
    def test_it_starts_and_stops(self, make_component: MakePlugin) -> None:
        """It lives through start and stop of an application, through a second time, and in another event loop;
        none of the triggers of that fails.

        If this fails, check that what it makes at a start (connections, locks, tasks) is made anew at each, on the
        running loop, and that it stops where it was never started.
        """
        for _ in range(2):
            with self.stage(make_component) as stage:
                stage.do(_reopened(stage.app))
                failed = _failures(stage.app)
            failed += _failures(stage.app)
            assert not failed, f"it failed in {failed}"
        Stage({self.plugin_name: make_component()})._runner.close()  # never started

    @check("PLUGIN-11")
    def test_it_leaves_nothing_running(self, make_component: MakePlugin) -> None:
        """When the application has closed, no asyncio task and no thread of the plugin is left.

        If this fails, check that what it starts in a …_start trigger it ends in the …_stop trigger.
        """
        threads = set(threading.enumerate())
        with self.stage(make_component) as stage:
            stage.do(_served(stage.app))
            left = stage.do(_left_after_close(stage.app))
            stage.do(stage.app.open())
        assert not left, f"tasks are still running after the application has closed: {', '.join(left)}"
        for thread in set(threading.enumerate()) - threads:
            if not thread.daemon:
                thread.join(JOIN)
                assert not thread.is_alive(), f"the thread {thread.name!r} is still running"


def silent(*triggers: str) -> ModuleType:
    """A plugin that implements triggers and never says anything."""
    made = ModuleType("silent")
    for trigger in triggers:
        implementation = hookimpl(specname=trigger)(_silence())
        setattr(made, trigger, implementation)
    return made


def _silence() -> Any:
    def nothing() -> None:
        return None

    return nothing


def _chains(pm: PluginManager) -> dict[str, list[str]]:
    return {trigger: [link.function for link in pm.explain(trigger)] for trigger in pm.triggers}


def _failures(app: QueueTasks) -> str:
    return ", ".join(f"{trigger} ({count} times)" for (_, trigger), count in app.pm.errors.items())


async def _reopened(app: QueueTasks) -> None:
    await app.close()
    await app.open()
    await _served(app)


async def _served(app: QueueTasks) -> None:
    await app.serve(until_idle=True)


async def _left_after_close(app: QueueTasks) -> list[str]:
    await app.close()
    await asyncio.sleep(0)  # what was cancelled ends here
    await asyncio.sleep(0)
    own = asyncio.current_task()
    return [task.get_name() for task in asyncio.all_tasks() if task is not own and not task.done()]
