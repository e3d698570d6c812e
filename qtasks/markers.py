"""The markers of qtasks over pluggy's: `@hookspec` declares a trigger, `@hookimpl` implements one.

What they add to pluggy's options sits in attributes of their own, so pluggy stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final, TypeVar, cast, get_type_hints, overload

import pluggy

from qtasks.chain import Shape, Trigger

PROJECT: Final = "qtasks"
"""The project name of pluggy: its markers set `qtasks_impl` and `qtasks_spec`."""

F = TypeVar("F", bound=Callable[..., Any])

_spec = pluggy.HookspecMarker(PROJECT)
_impl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class ImplOrder:
    """Where an implementation wants to stand: the names of the plugins it runs before and after."""

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()


def names(value: str | Iterable[str], where: str) -> frozenset[str]:
    """A set of plugin names, from one name or several.

    Raises:
        TypeError: these are no names.
    """
    found: frozenset[object] = frozenset([value] if isinstance(value, str) else value)
    if not all(isinstance(name, str) and name for name in found):
        raise TypeError(f"{where} takes the names of plugins, not {value!r}")
    return cast(frozenset[str], found)


@overload
def hookimpl(function: F, /) -> F: ...
@overload
def hookimpl(
    *,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
    tryfirst: bool = False,
    trylast: bool = False,
    wrapper: bool = False,
    optionalhook: bool = False,
    specname: str | None = None,
) -> Callable[[F], F]: ...
def hookimpl(
    function: F | None = None,
    /,
    *,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
    tryfirst: bool = False,
    trylast: bool = False,
    wrapper: bool = False,
    optionalhook: bool = False,
    specname: str | None = None,
) -> F | Callable[[F], F]:
    """Marks a function or method of a plugin as the implementation of the trigger of its name.

    Parameters:
        before, after: names of plugins that this implementation runs before and after; this beats
            tryfirst and trylast, and unknown names are ignored (rule 6).
        tryfirst, trylast: puts it into the first or the last group.
        wrapper: it is a plain generator that runs around the whole chain (rule 7).
        optionalhook: it is no mistake if there is no such trigger (a third party's, say).
        specname: the trigger it implements, where its own name is another.
    """
    order = ImplOrder(names(before, "before"), names(after, "after"))
    mark = _impl(
        tryfirst=tryfirst, trylast=trylast, wrapper=wrapper, optionalhook=optionalhook, specname=specname
    )

    def decorate(function: F) -> F:
        cast(Any, function).qtasks_order = order
        return mark(function)

    return decorate if function is None else decorate(function)


def order_of(function: Callable[..., Any]) -> ImplOrder:
    """What `before` and `after` of `@hookimpl` said of a function."""
    order: ImplOrder = getattr(function, "qtasks_order", ImplOrder())
    return order


@overload
def hookspec(function: F, /) -> F: ...
@overload
def hookspec(
    *,
    replaces: Iterable[str] = (),
    returns: Shape | None = None,
    control_flow: bool = False,
    defers: bool = False,
    must_go_on: bool = False,
    keeps_uuid: Iterable[str] = (),
    fields: Callable[[], Mapping[str, Any]] | None = None,
    protected: Iterable[str] = (),
    since: str = "0.1.0",
) -> Callable[[F], F]: ...
def hookspec(
    function: F | None = None,
    /,
    *,
    replaces: Iterable[str] = (),
    returns: Shape | None = None,
    control_flow: bool = False,
    defers: bool = False,
    must_go_on: bool = False,
    keeps_uuid: Iterable[str] = (),
    fields: Callable[[], Mapping[str, Any]] | None = None,
    protected: Iterable[str] = (),
    since: str = "0.1.0",
) -> F | Callable[[F], F]:
    """Declares the trigger that the decorated function describes: its name, parameters and docstring.

    Parameters:
        replaces: the parameters whose values may be replaced; none makes it a signal. The type that a
            replaced value is checked against is the annotation of the parameter.
        returns: the shape of a return (rule 3):

            - `"value"`: the new value of the only parameter in `replaces`;
            - `"mapping"`: a mapping with some of `replaces` as keys;
            - `"pair"`: a tuple of two, either of which may be `None`, or the mapping form;
            - `"kwargs"`: a mapping merged key by key over the only parameter in `replaces`.
        control_flow: a plugin may cancel, defer or reject the task here (rule 10).
        defers: a `TaskDefer` is raised only when all plugins have run, with the values as they left them.
        must_go_on: `on_error="raise"` has no effect here (rule 9).
        keeps_uuid: replaceable parameters whose new value must have the same `uuid`.
        fields: for `"kwargs"`: gives the types of the keys; without it any key is taken.
        protected: for `"kwargs"`: keys that must stay as they are.
        since: the version that introduced it.

    Raises:
        ValueError: these do not fit together, or a parameter is not a plain positional one.
    """

    def decorate(function: F) -> F:
        plain = cast(FunctionType, function)
        trigger = Trigger(
            name=plain.__name__,
            params=_params(plain),
            replaces=tuple(replaces),
            shape=returns,
            control_flow=control_flow,
            defers=defers,
            must_go_on=must_go_on,
            keeps_uuid=tuple(keeps_uuid),
            declared=_declared(plain),
            fields=fields,
            protected=frozenset(protected),
        )
        cast(Any, function).qtasks_trigger = trigger
        cast(Any, function).qtasks_since = since
        return _spec(function)

    return decorate if function is None else decorate(function)


def trigger_of(function: Callable[..., Any]) -> Trigger | None:
    """The trigger that a hookspec function declares; `None` if it is none, or a bare pluggy one."""
    trigger: Trigger | None = getattr(function, "qtasks_trigger", None)
    return trigger


def _params(function: FunctionType) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise ValueError(
                f"parameter {parameter.name!r} of trigger {function.__name__!r} must be a plain one: "
                "no default, no *args or **kwargs, not keyword-only"
            )
        if parameter.name.startswith("_"):
            raise ValueError(f"parameter {parameter.name!r} of trigger {function.__name__!r} starts with _")
    found = [parameter.name for parameter in parameters]
    if found and found[0] == "self" and "." in function.__qualname__.rpartition("<locals>.")[2]:
        found = found[1:]  # triggers may be declared in a class; pluggy strips it likewise
    return tuple(found)


def _declared(function: FunctionType) -> Callable[[str], Any]:
    def declared(param: str) -> Any:
        # Only this annotation is resolved: others may name components, which are not imported here.
        def holder() -> None: ...

        holder.__annotations__ = {param: function.__annotations__.get(param, Any)}
        return get_type_hints(holder, globalns=function.__globals__, include_extras=True)[param]

    return declared
