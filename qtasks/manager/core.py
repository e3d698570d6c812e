"""`PluginManager`: pluggy registers, the chain calls."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from threading import get_ident
from types import MappingProxyType, ModuleType
from typing import Literal, NamedTuple, get_args

from qtasks.chain import (
    Chain,
    Host,
    Implementation,
    Observer,
    OnError,
    Trigger,
    compile_chain,
    compile_switch,
)
from qtasks.errors import PluginRegistrationError
from qtasks.hookspecs import MODULES
from qtasks.manager import discovery
from qtasks.manager.discovery import Quarantined
from qtasks.manager.explain import ChainLink, explain
from qtasks.manager.hook import HookRelay
from qtasks.manager.inspection import required
from qtasks.manager.registry import Registry
from qtasks.text import one_line

logger = logging.getLogger("qtasks.plugins")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """A registered plugin.

    Attributes:
        name: the name it is registered under.
        plugin: the plugin itself.
        origin: `"direct"`, or what its entry point refers to.
        distribution: what it was installed with; `None` if it was not found through an entry point.
        version: of that distribution; else the `__version__` of the plugin, or of the package that its code is in.
        triggers: the triggers it implements, in the order of their names.
        on_error: its own choice (rule 9); `None` is the default of each trigger.
        plugin_timeout: seconds that each of its implementations may take; `None` is no bound.
        requires: the capabilities that it declares in `qtasks_requires`.
    """

    name: str
    plugin: object
    origin: str
    distribution: str | None
    version: str | None
    triggers: tuple[str, ...]
    on_error: OnError | None
    plugin_timeout: float | None
    requires: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Options:
    on_error: OnError | None = None
    plugin_timeout: float | None = None  # None: the manager's
    origin: str = "direct"
    distribution: str | None = None
    version: str | None = None

    def told(self) -> str:
        """Where it comes from, for people."""
        if self.origin == "direct":
            return "by the application itself"
        return f"from {self.distribution} {self.version} ({self.origin})"


class _Observing(NamedTuple):
    observer: Observer
    idle: bool
    when: Callable[[], object] | None


class PluginManager:
    """Holds the plugins of one application and fires its triggers.

    `await pm.hook.<trigger>(…)` fires one; `pm.pluggy` is the pluggy manager behind it, and may be
    used directly.

    Parameters:
        plugin_timeout: seconds that one implementation may take, unless its plugin was registered
            with another bound; 0 or `None` is no bound.
    """

    def __init__(self, plugin_timeout: float | None = 5.0) -> None:
        self._timeout = _seconds(plugin_timeout)
        self._options: dict[str, _Options] = {}
        self._quarantine: list[Quarantined] = []
        self._observers: list[_Observing] = []
        self._host = Host(failed=self._failed, slow=self._slow, blind=self._blind)
        self.errors: Counter[tuple[str, str]] = Counter()
        """How often each (plugin, trigger) has failed, isolated or not."""
        self.hook = HookRelay(self._compiled, lambda: self.pluggy.triggers)
        self.unheard: frozenset[str] = frozenset()
        """The triggers that nobody is told of: no plugin implements them, and no observer asks for those. To fire
        one of these does nothing, so who fires many may leave it. Another set whenever that changes."""
        self.pluggy = Registry(self._changed)
        for module in MODULES:
            self.pluggy.add_hookspecs(module)
        for name in discovery.blocked():
            self.block(name)

    # --- Plugins --------------------------------------------------------------------------------

    def register(
        self,
        plugin: object,
        name: str | None = None,
        on_error: OnError | None = None,
        plugin_timeout: float | None = None,
    ) -> str:
        """Registers a plugin: an instance or a module with `@hookimpl` functions.

        Parameters:
            plugin: the plugin.
            name: its name; without one `plugin.qtasks_name`, or the name of its module or class.
            on_error: `"raise"` or `"isolate"` instead of the default of each trigger (rule 9).
            plugin_timeout: seconds that each implementation may take; `None` is the manager's
                bound, 0 none.

        Returns:
            Its name. If this name is blocked, nothing was registered; see `has`.

        Raises:
            PluginRegistrationError: something about it is wrong (rule 11); nothing was registered.
        """
        return self._register(plugin, name, _options(on_error, plugin_timeout))

    def _register(self, plugin: object, name: str | None, options: _Options) -> str:
        name = name or self.pluggy.get_canonical_name(plugin)
        self._check_free(name, options)
        if self.pluggy.register(plugin, name) is None:
            logger.info("plugin %r is blocked, and was not registered", name)
        else:
            self._options[name] = options
        return name

    def _check_free(self, name: str, options: _Options) -> None:
        if not self.has(name):
            return
        other = self._options.get(name, _Options())
        raise PluginRegistrationError(
            f"a plugin named {name!r} is registered already, {other.told()}; this one is {options.told()}: give one "
            "of the two another name with app.add_plugin(..., name=...), or leave it out",
            plugin=name,
        )

    def configure(
        self, name: str, on_error: OnError | None = None, plugin_timeout: float | None = None
    ) -> None:
        """Sets `on_error` and `plugin_timeout` of a plugin that is registered, an installed one, say.

        Raises:
            PluginRegistrationError: there is no such plugin.
        """
        self._known(name)
        old, new = self._options.get(name, _Options()), _options(on_error, plugin_timeout)
        self._options[name] = _Options(
            new.on_error, new.plugin_timeout, old.origin, old.distribution, old.version
        )
        self.hook.forget()

    def unregister(self, plugin_or_name: object) -> object:
        """Takes a plugin out; a chain that is running keeps it to its end (rule 13).

        Returns:
            The plugin.

        Raises:
            PluginRegistrationError: there is no such plugin.
        """
        if isinstance(plugin_or_name, str):
            name = plugin_or_name
        else:
            name = self.pluggy.get_name(plugin_or_name) or repr(plugin_or_name)
        plugin = self._known(name)
        self.pluggy.unregister(name=name)
        return plugin

    def _known(self, name: str) -> object:
        plugin: object = self.pluggy.get_plugin(name)
        if plugin is None:
            raise PluginRegistrationError(f"no plugin named {name!r} is registered", plugin=name)
        return plugin

    def block(self, name: str) -> None:
        """Keeps a plugin of this name out, and takes it out if it is registered."""
        self.pluggy.set_blocked(name)

    def blocked(self) -> list[str]:
        """The names that are kept out, by `block` or by `QTASKS_PLUGIN_BLOCK` in the environment."""
        return sorted(name for name, plugin in self.pluggy.list_name_plugin() if plugin is None)

    def has(self, name: str) -> bool:
        """Whether a plugin of this name is registered."""
        return self.pluggy.has_plugin(name)

    def plugins(self) -> list[PluginInfo]:
        """The registered plugins, in registration order."""
        triggers: dict[str, set[str]] = {}
        for trigger in self.pluggy.triggers:
            for _, place in self.pluggy.registered(trigger):
                triggers.setdefault(place.plugin, set()).add(trigger)
        return [
            self._info(name, plugin, tuple(sorted(triggers.get(name, ()))))
            for name, plugin in self.pluggy.list_name_plugin()
            if plugin is not None
        ]

    def _info(self, name: str, plugin: object, triggers: tuple[str, ...]) -> PluginInfo:
        options = self._options.get(name, _Options())
        return PluginInfo(
            name=name,
            plugin=plugin,
            origin=options.origin,
            distribution=options.distribution,
            version=options.version or discovery.version_of(plugin),
            triggers=triggers,
            on_error=options.on_error,
            plugin_timeout=self._bound(options),
            requires=required(plugin, name),
        )

    def set_capabilities(self, declared: Mapping[str, bool]) -> None:
        """Says what the stores of the application can do; from then on a plugin whose `qtasks_requires` names more
        is refused at registration. Done by `QueueTasks`.

        Parameters:
            declared: every capability there is, and whether the application has it.
        """
        self.pluggy.capabilities = dict(declared)

    def _changed(self) -> None:
        # A name that came back through pm.pluggy must not find the options of another plugin.
        names = {name for name, plugin in self.pluggy.list_name_plugin() if plugin is not None}
        self._options = {name: options for name, options in self._options.items() if name in names}
        self._plan_anew()

    def _plan_anew(self) -> None:
        self.hook.forget()
        idle = any(each.idle for each in self._observers)
        self.unheard = frozenset(
            () if idle else (name for name in self.pluggy.triggers if not self.pluggy.implemented(name))
        )

    # --- Discovery ------------------------------------------------------------------------------

    def load_installed(
        self, names: Literal["auto"] | Iterable[str] = "auto", strict: bool = False, *, asked: bool = False
    ) -> list[str]:
        """Registers installed plugins, from the entry-point group `qtasks.plugins`.

        A plugin that fails to import or to register is put into quarantine with its reason, and
        `QTASKS_PLUGIN_AUTOLOAD=0` in the environment turns all of this off.

        Parameters:
            names: which: `"auto"` is all, in the order of their names; else in the order given.
            strict: raise instead of putting into quarantine.
            asked: a person asked for these names (on the command line), so `QTASKS_PLUGIN_AUTOLOAD=0` does not
                count; a blocked one stays out nevertheless.

        Returns:
            The names of the plugins that were registered.

        Raises:
            PluginRegistrationError: in strict mode: a plugin failed, or is not installed.
        """
        if not asked and not discovery.enabled():
            logger.info("%s turns installed plugins off", discovery.AUTOLOAD)
            return []
        found = discovery.installed(names)
        for rejected in found.rejected:
            if not self.pluggy.is_blocked(rejected.name):
                self._reject(rejected, strict)
        loaded = []
        for point in found.points:
            if self.pluggy.is_blocked(point.name):
                continue
            try:
                self._load(point)
            except KeyboardInterrupt:
                raise
            # Whatever it is: a plugin that calls sys.exit on import must not take the host down either.
            except BaseException as error:
                self._reject(discovery.quarantined(point, error), strict)
            else:
                loaded.append(point.name)
        return loaded

    def _load(self, point: EntryPoint) -> None:
        distribution, version = discovery.owner(point)
        options = _Options(origin=point.value, distribution=distribution, version=version)
        self._check_free(point.name, options)  # before anything of it is imported
        self._register(discovery.load(point), point.name, options)

    def _reject(self, rejected: Quarantined, strict: bool) -> None:
        if strict:
            raise PluginRegistrationError(
                f"installed plugin {rejected.name!r}: {rejected.reason}", plugin=rejected.name
            ) from rejected.error
        logger.error("plugin %r is in quarantine: %s", rejected.name, rejected.reason)
        self._quarantine.append(rejected)

    def quarantined(self) -> list[Quarantined]:
        """The installed plugins that were left out, and why."""
        return list(self._quarantine)

    # --- Triggers -------------------------------------------------------------------------------

    @property
    def triggers(self) -> Mapping[str, Trigger]:
        """All declared triggers by name."""
        return MappingProxyType(self.pluggy.triggers)

    def add_hookspecs(self, module: ModuleType | type) -> None:
        """Adds the triggers of a third party's component, declared with `@hookspec` in a module.

        Raises:
            ValueError: it declares none, or one whose name exists.
        """
        self.pluggy.add_hookspecs(module)

    def explain(self, trigger: str) -> list[ChainLink]:
        """The chain of a trigger in the order in which it runs, and why it is so.

        Raises:
            LookupError: there is no such trigger.
        """
        if trigger not in self.pluggy.triggers:
            raise LookupError(f"there is no trigger {trigger!r}")
        return explain(self.pluggy, trigger)

    def bind_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Binds the triggers to the event loop of the application, whose thread this is called on.

        From then on a chain that is fired from another thread raises `WrongLoopError`; `None` unbinds.
        """
        self._host.thread = None if loop is None else get_ident()
        self.hook.forget()

    def _compiled(self, name: str) -> Chain:
        trigger = self.pluggy.triggers[name]
        implementations = []
        for impl, place in self.pluggy.arranged(name):
            options = self._options.get(place.plugin, _Options())
            implementations.append(
                Implementation(
                    trigger=trigger,
                    plugin=place.plugin,
                    function=impl.function,
                    argnames=tuple(impl.argnames),
                    wrapper=impl.wrapper,
                    asynchronous=inspect.iscoroutinefunction(impl.function),
                    on_error=options.on_error,
                    timeout=self._bound(options),
                )
            )
        chain = compile_chain(trigger, implementations, self._host)
        for each in self._observers:
            if each.when is not None:
                # A chain of its own: what is fired otherwise goes on as if there were no such observer.
                idle = (*self._host.idle_observers, each.observer) if each.idle else self._host.idle_observers
                host = replace(
                    self._host, observers=(*self._host.observers, each.observer), idle_observers=idle
                )
                chain = compile_switch(
                    trigger, chain, compile_chain(trigger, implementations, host), each.when
                )
        return chain

    def _bound(self, options: _Options) -> float | None:
        return (self._timeout if options.plugin_timeout is None else options.plugin_timeout) or None

    # --- Observers ------------------------------------------------------------------------------

    def add_observer(
        self, observer: Observer, *, idle: bool = False, when: Callable[[], object] | None = None
    ) -> None:
        """Adds a callable that is told of every call of a plugin, as a `PluginCall`.

        Without observers this costs nothing. An observer that raises is logged; the chain goes on.

        Parameters:
            observer: is called on the event loop, so it has to be quick.
            idle: tell it also of triggers that no plugin implements.
            when: tell it only of what is fired while this is true; it is asked at each firing, in the context of
                the caller, and has to be quick: the `get` of a `ContextVar`, say. What is fired meanwhile costs next
                to nothing more where it is not.
        """
        self._observers.append(_Observing(observer, idle, when))
        self._observe()

    def remove_observer(self, observer: Observer) -> None:
        """Removes an observer.

        Raises:
            ValueError: it was not added.
        """
        for i, known in enumerate(self._observers):
            if known.observer == observer:
                del self._observers[i]
                return self._observe()
        raise ValueError(f"{observer!r} is not an observer")

    def _observe(self) -> None:
        everywhere = [each for each in self._observers if each.when is None]
        self._host.observers = tuple(each.observer for each in everywhere)
        self._host.idle_observers = tuple(each.observer for each in everywhere if each.idle)
        self._plan_anew()

    # --- What chains report ---------------------------------------------------------------------

    def _failed(self, impl: Implementation, error: BaseException, isolated: bool) -> None:
        self.errors[impl.plugin, impl.trigger.name] += 1
        if isolated:
            logger.error("%s; the error was isolated", one_line(error), exc_info=error.__cause__ or error)

    def _slow(self, impl: Implementation, seconds: float) -> None:
        logger.warning(
            "plugin %r blocked the event loop for %.3f s in trigger %r, longer than its plugin_timeout of "
            "%s s; a plain function cannot be cancelled: make it `async def`, or quicker",
            impl.plugin,
            seconds,
            impl.trigger.name,
            impl.timeout,
        )

    def _blind(self, observer: Observer, error: Exception) -> None:
        logger.error("observer %r failed", observer, exc_info=error)


def _options(on_error: OnError | None, plugin_timeout: float | None) -> _Options:
    if on_error is not None and on_error not in get_args(OnError):
        raise ValueError(f"on_error is 'raise', 'isolate' or None, not {on_error!r}")
    return _Options(on_error, None if plugin_timeout is None else _seconds(plugin_timeout))


def _seconds(value: float | None) -> float:
    if value is None:
        return 0.0
    if not 0 <= value < math.inf:
        raise ValueError(f"plugin_timeout is a finite number of seconds >= 0, not {value!r}")
    return float(value)
