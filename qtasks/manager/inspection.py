"""The checks at registration: a mistake in a plugin is an error there, never a silence later (rule 11)."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qtasks.chain import Trigger
from qtasks.errors import PluginRegistrationError
from qtasks.markers import PROJECT, ImplOrder, names, order_of

API_VERSION: Final = (1, 0)
"""The version of the plugin interface, which a plugin's `qtasks_api` is compared with."""


class PluginWarning(UserWarning):
    """Something about a plugin is probably a mistake."""


@dataclass(frozen=True, slots=True)
class Found:
    """One implementation that a plugin has, checked."""

    trigger: str
    attribute: str
    function: Callable[..., Any]
    options: Mapping[str, Any]


def implementations(
    plugin: object,
    name: str,
    triggers: Mapping[str, Trigger],
    options_of: Callable[[object, str], Mapping[str, Any] | None],
) -> list[Found]:
    """The implementations of a plugin.

    Parameters:
        plugin: the plugin.
        name: the name it is to have.
        triggers: the known triggers.
        options_of: gives the options of pluggy's marker, or `None` for what is not marked.

    Raises:
        PluginRegistrationError: one of them is wrong.
    """
    found = []
    for attribute in dir(plugin):
        options = options_of(plugin, attribute)
        if options is None:
            value = inspect.getattr_static(plugin, attribute, None)
            if f"{PROJECT}_impl" in getattr(value, "__dict__", ()):
                kind = type(value).__name__
                raise _error(
                    name, attribute, f"it is a {kind}, which pluggy passes over: write a function", value
                )
            if attribute in triggers:
                _warn_undecorated(plugin, name, attribute)
            continue
        function = getattr(plugin, attribute)
        trigger = options.get("specname") or attribute
        if trigger not in triggers:
            if options.get("optionalhook"):
                continue
            raise _error(
                name, trigger, f"there is no trigger {trigger!r}{_similar(trigger, triggers)}", function
            )
        _check(plugin, name, triggers[trigger], attribute, function, options)
        found.append(Found(trigger, attribute, function, options))
    return found


def _check(
    plugin: object,
    name: str,
    trigger: Trigger,
    attribute: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
) -> None:
    if inspect.isclass(plugin) and inspect.isfunction(inspect.getattr_static(plugin, attribute)):
        raise _error(
            name,
            trigger.name,
            f"the plugin is the class {plugin.__name__!r}, so its method {attribute!r} has no self: "
            f"register an instance, {plugin.__name__}()",
            function,
        )
    if inspect.ismethod(function) and not inspect.isclass(function.__self__):
        first = next(iter(inspect.signature(function.__func__).parameters), "")
        if first in trigger.params:
            raise _error(
                name, trigger.name, f"its first parameter is {first!r}: add self before it", function
            )
    _check_parameters(name, trigger, function)
    if options.get("hookwrapper"):
        raise _error(name, trigger.name, "hookwrapper=True is pluggy's old style: use wrapper=True", function)
    if inspect.isasyncgenfunction(function):
        raise _error(
            name,
            trigger.name,
            "it is an async generator: use `async def` without yield, or wrapper=True",
            function,
        )
    generator = inspect.isgeneratorfunction(function)
    if options.get("wrapper") and not generator:
        raise _error(
            name, trigger.name, "wrapper=True needs a plain generator, a `def` with one yield", function
        )
    if generator and not options.get("wrapper"):
        raise _error(name, trigger.name, "it is a generator: use wrapper=True, or return the value", function)


def _check_parameters(name: str, trigger: Trigger, function: Callable[..., Any]) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            problem = f"it takes {star}{parameter.name}; name the parameters it needs"
        elif parameter.kind is parameter.KEYWORD_ONLY:
            problem = f"its parameter {parameter.name!r} is keyword-only; remove the * before it"
        elif parameter.default is not parameter.empty:
            problem = f"its parameter {parameter.name!r} has a default, which would never be used"
        elif parameter.name not in trigger.params:
            problem = (
                f"the trigger has no parameter {parameter.name!r}{_similar(parameter.name, trigger.params)}; "
                f"it has {', '.join(trigger.params) or 'none'}"
            )
        else:
            continue
        raise _error(name, trigger.name, problem, function)


def plugin_order(plugin: object, name: str) -> ImplOrder:
    """What `qtasks_before` and `qtasks_after` of a plugin say.

    Raises:
        PluginRegistrationError: they are no names.
    """
    try:
        return ImplOrder(
            names(getattr(plugin, "qtasks_before", ()), "qtasks_before"),
            names(getattr(plugin, "qtasks_after", ()), "qtasks_after"),
        )
    except TypeError as error:
        raise PluginRegistrationError(f"plugin {name!r}: {error}", plugin=name) from error


def combined_order(plugin: ImplOrder, function: Callable[..., Any]) -> ImplOrder:
    """The order of one implementation: its own, and its plugin's."""
    own = order_of(function)
    return ImplOrder(own.before | plugin.before, own.after | plugin.after)


def check_api(plugin: object, name: str, version: tuple[int, ...] = API_VERSION) -> None:
    """Compares `qtasks_api` of a plugin (such as `">=1,<2"`) with the version of the plugin interface.

    Raises:
        PluginRegistrationError: it does not fit, or is no such specification.
    """
    wanted = getattr(plugin, "qtasks_api", None)
    if wanted is None:
        return
    if not isinstance(wanted, str) or not all(map(_CLAUSE.fullmatch, wanted.split(","))):
        raise PluginRegistrationError(
            f'plugin {name!r}: qtasks_api must be such as ">=1,<2", not {wanted!r}', plugin=name
        )
    for operator, number in _CLAUSE.findall(wanted):
        if not _fits(version, operator, tuple(map(int, number.split(".")))):
            current = ".".join(map(str, version))
            raise PluginRegistrationError(
                f"plugin {name!r} needs the plugin interface {wanted}, but this is {current}: "
                "install a version of the plugin that fits",
                plugin=name,
            )


def required(plugin: object, name: str) -> frozenset[str]:
    """The capabilities in `qtasks_requires` of a plugin.

    Raises:
        PluginRegistrationError: these are no names.
    """
    given = getattr(plugin, "qtasks_requires", ())
    try:
        return names(given, "qtasks_requires")
    except TypeError:
        raise PluginRegistrationError(
            f'plugin {name!r}: qtasks_requires must be names of capabilities, such as ("shared",), not {given!r}',
            plugin=name,
        ) from None


def check_requires(plugin: object, name: str, declared: Mapping[str, bool] | None) -> None:
    """Compares `qtasks_requires` of a plugin (such as `("shared",)`) with what the application's stores declare.

    Parameters:
        declared: every capability and whether it is there; `None` where there is no application yet.

    Raises:
        PluginRegistrationError: one is not there, or is no capability.
    """
    wanted = required(plugin, name)
    if declared is None or not wanted:
        return
    if unknown := sorted(wanted - declared.keys()):
        raise PluginRegistrationError(
            f"plugin {name!r} needs {', '.join(unknown)}, which is no capability"
            f"{_similar(unknown[0], declared)}: correct its qtasks_requires",
            plugin=name,
        )
    if lacking := sorted(each for each in wanted if not declared[each]):
        raise PluginRegistrationError(
            f"plugin {name!r} needs {', '.join(lacking)}, which the stores of this application do not declare: "
            "choose another backend, or leave the plugin out",
            plugin=name,
        )


_CLAUSE: Final = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")


def _fits(version: tuple[int, ...], operator: str, wanted: tuple[int, ...]) -> bool:
    width = max(len(version), len(wanted))
    left = version + (0,) * (width - len(version))
    right = wanted + (0,) * (width - len(wanted))
    return {
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
        "==": left == right,
        "!=": left != right,
    }[operator]


def _warn_undecorated(plugin: object, name: str, attribute: str) -> None:
    value = inspect.getattr_static(plugin, attribute)
    if inspect.isfunction(getattr(value, "__func__", value)):
        warnings.warn(
            f"plugin {name!r} has a method {attribute!r}, which is the name of a trigger, but it is not "
            f"decorated: add @hookimpl, or rename it",
            PluginWarning,
            stacklevel=5,
        )


def _similar(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # for mistakes only; every worker would keep it

    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _error(name: str, trigger: str, problem: str, function: Callable[..., Any]) -> PluginRegistrationError:
    plain = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(plain, "__code__", None)
    where = f"\n  {getattr(plain, '__qualname__', plain)}{_signature(function)}"
    if code is not None:
        where += f", {code.co_filename}:{code.co_firstlineno}"
    return PluginRegistrationError(
        f"plugin {name!r} cannot be registered: its implementation of {trigger!r} is wrong: {problem}{where}",
        plugin=name,
        trigger=trigger,
    )


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(…)"
