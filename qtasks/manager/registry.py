"""The pluggy manager that a `PluginManager` holds: pluggy's, with the checks of rule 11.

Only public methods are overridden, so whoever registers directly on `pm.pluggy` meets the same
checks, and chains are compiled anew then too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import pluggy

from qtasks.chain import Place, Trigger, arrange
from qtasks.errors import PluginError, PluginRegistrationError
from qtasks.manager.inspection import check_api, check_requires, combined_order, implementations, plugin_order
from qtasks.markers import PROJECT, trigger_of

Arranged: TypeAlias = list[tuple[pluggy.HookImpl, Place]]


class Registry(pluggy.PluginManager):
    """pluggy's manager with declared triggers.

    Parameters:
        changed: called whenever a plugin or a trigger has come or gone.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        super().__init__(PROJECT)
        self.triggers: dict[str, Trigger] = {}
        self.specs: dict[str, Callable[..., Any]] = {}
        self.capabilities: dict[str, bool] | None = None
        self._changed = changed

    # --- Plugins --------------------------------------------------------------------------------

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Checks and registers a plugin.

        Returns:
            Its name; `None` if this name is blocked.

        Raises:
            PluginRegistrationError: something about the plugin is wrong; nothing is registered.
        """
        if plugin is None:
            raise PluginRegistrationError("None is not a plugin: register a module or an instance")
        name = name or self.get_canonical_name(plugin)
        if self.is_blocked(name):
            return None
        self._check_duplicate(plugin, name)
        check_api(plugin, name)
        check_requires(plugin, name, self.capabilities)
        plugin_order(plugin, name)
        found = implementations(plugin, name, self.triggers, self.parse_hookimpl_opts)
        try:
            super().register(plugin, name)
            for trigger in {item.trigger for item in found}:
                self.arranged(trigger)
        except pluggy.PluginValidationError as error:
            raise PluginRegistrationError(f"plugin {name!r}: {error}", plugin=name) from error
        except PluginError:
            super().unregister(name=name)
            raise
        finally:
            self._changed()
        return name

    def unregister(self, plugin: object | None = None, name: str | None = None) -> Any:
        """Takes a plugin out; a chain that runs keeps it to its end (rule 13)."""
        try:
            return super().unregister(plugin, name)
        finally:
            self._changed()

    def get_canonical_name(self, plugin: object) -> str:
        """The name of a plugin that was given none: `qtasks_name`, or that of its module or class."""
        name = getattr(plugin, "qtasks_name", None) or getattr(plugin, "__name__", None)
        return str(name or type(plugin).__name__)

    def _check_duplicate(self, plugin: object, name: str) -> None:
        if self.has_plugin(name):
            raise PluginRegistrationError(
                f"a plugin named {name!r} is registered already, {self.get_plugin(name)!r}: "
                "give this one another name with name=…",
                plugin=name,
            )
        for other, registered in self.list_name_plugin():
            if registered is plugin:
                raise PluginRegistrationError(
                    f"the plugin {plugin!r} is registered already, as {other!r}", plugin=name
                )

    # --- Triggers -------------------------------------------------------------------------------

    def add_hookspecs(self, module_or_class: ModuleType | type) -> None:
        """Adds the triggers that a module or class declares with `@hookspec`.

        Raises:
            ValueError: there are none, one has a name that exists, or one is declared with pluggy's
                own marker, which does not say what it replaces.
        """
        new: dict[str, Callable[..., Any]] = {}
        for attribute in dir(module_or_class):
            if self.parse_hookspec_opts(module_or_class, attribute) is None:
                continue
            function = inspect.getattr_static(module_or_class, attribute)
            if trigger_of(function) is None:
                raise ValueError(f"declare the trigger {attribute!r} with qtasks.hookspec, not with pluggy's")
            if attribute in self.triggers:
                raise ValueError(f"a trigger named {attribute!r} exists already")
            new[attribute] = function
        super().add_hookspecs(module_or_class)
        for attribute, function in new.items():
            trigger = trigger_of(function)
            if trigger is not None:
                self.triggers[attribute] = trigger
                self.specs[attribute] = function
        self._changed()

    # --- Order ----------------------------------------------------------------------------------

    def implemented(self, trigger: str) -> bool:
        """Whether a plugin implements this trigger."""
        caller: pluggy.HookCaller = getattr(self.hook, trigger)
        return bool(caller.get_hookimpls())

    def registered(self, trigger: str) -> Arranged:
        """The implementations of a trigger in registration order, each with what decides its place."""
        caller: pluggy.HookCaller = getattr(self.hook, trigger)
        found = caller.get_hookimpls()
        # pluggy lists a trylast group newest first, and the other groups oldest first.
        trylast = [impl for impl in found if impl.trylast]
        ordered = [impl for impl in found if not impl.trylast] + trylast[::-1]
        return [(impl, _place(impl)) for impl in ordered]

    def arranged(self, trigger: str) -> Arranged:
        """The implementations in the order in which they run: the wrappers, then the chain (rule 6).

        Raises:
            PluginOrderError: their before and after contradict each other.
        """
        found = self.registered(trigger)
        result: Arranged = []
        for wrapper in (True, False):
            group = [item for item in found if item[0].wrapper is wrapper]
            result += [group[i] for i in arrange(trigger, [place for _, place in group])]
        return result


def _place(impl: pluggy.HookImpl) -> Place:
    order = combined_order(plugin_order(impl.plugin, impl.plugin_name), impl.function)
    return Place(
        plugin=impl.plugin_name,
        tryfirst=impl.tryfirst,
        trylast=impl.trylast,
        before=order.before,
        after=order.after,
    )
