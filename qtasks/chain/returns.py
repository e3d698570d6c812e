"""How a returned value is folded into the values of a trigger: rules 2, 3, 5 and 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter, ValidationError

from qtasks.chain.model import NULL, Implementation, Trigger
from qtasks.errors import PluginResultError

Take: TypeAlias = Callable[[Implementation, Any, Any, Any], Any]
"""(implementation, returned, current, uuid) -> new current. `current` is what the caller of the
trigger gets: the value itself where one parameter is replaceable, else the tuple of all, in order."""

_SHOWN: Final = 200


class Values:
    """The declared types of one trigger's parameters, as validators that are built when first needed."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self._adapters: dict[str, TypeAdapter[Any] | None] = {}
        self._field_adapters: dict[str, TypeAdapter[Any] | None] = {}
        self._fields: Mapping[str, Any] | None = None

    def checked(self, impl: Implementation, param: str, value: Any, current: Any, uuid: Any) -> Any:
        """The value as the declared type of the parameter has it.

        Raises:
            PluginResultError: the type does not take it, or it has another uuid.
        """
        try:
            adapter = self._adapters[param]
        except KeyError:
            adapter = self._adapters[param] = _adapter(self.trigger.declared(param))
        new = _validated(impl, param, adapter, self.trigger.declared, value)
        if param in self.trigger.keeps_uuid and new is not None:
            expected = uuid if uuid is not None else current.uuid
            if new.uuid != expected:
                raise _wrong(impl, param, f"a value with the same uuid, {expected}", new)
        return new

    def known(self, impl: Implementation, key: Any) -> None:
        """Checks a key of a `kwargs` return.

        Raises:
            PluginResultError: it is no string, or no field.
        """
        if not isinstance(key, str):
            raise _wrong(impl, None, "keys that are strings", key)
        if self.trigger.fields is None or key in self.trigger.protected:
            return
        if self._fields is None:
            self._fields = self.trigger.fields()
        if key not in self._fields:
            raise _unknown(impl, key, tuple(k for k in self._fields if k not in self.trigger.protected))

    def checked_field(self, impl: Implementation, key: str, value: Any, current: Mapping[str, Any]) -> Any:
        """The value of one known key of a `kwargs` return, as the type of the field has it.

        Raises:
            PluginResultError: the key is protected, or its type does not take the value.
        """
        if key in self.trigger.protected:
            # `{**kw, "priority": 1}` names every key: only a change is a mistake.
            if key in current and current[key] == value:
                return current[key]
            raise _wrong(impl, key, "this key to stay as it is; plugins cannot change it", value)
        if self._fields is None:
            return None if value is NULL else value
        try:
            adapter = self._field_adapters[key]
        except KeyError:
            adapter = self._field_adapters[key] = _adapter(self._fields[key])
        return _validated(impl, key, adapter, self._fields.__getitem__, value)


def taker(trigger: Trigger) -> Take:
    """The function that folds a return of this trigger; one per trigger, so validators are shared."""
    take = _TAKERS.get(trigger)
    if take is None:
        make = {"value": _take_value, "mapping": _take_mapping, "pair": _take_pair, "kwargs": _take_kwargs}
        take = _TAKERS[trigger] = make[trigger.shape or "value"](Values(trigger))
    return take


_TAKERS: WeakKeyDictionary[Trigger, Take] = WeakKeyDictionary()


def _take_value(values: Values) -> Take:
    (param,) = values.trigger.replaces or ("",)

    def take(impl: Implementation, returned: Any, current: Any, uuid: Any) -> Any:
        return values.checked(impl, param, returned, current, uuid)

    return take


def _take_mapping(values: Values) -> Take:
    replaces = values.trigger.replaces
    single = len(replaces) == 1

    def take(impl: Implementation, returned: Any, current: Any, uuid: Any) -> Any:
        if not isinstance(returned, Mapping):
            raise _wrong(impl, None, f"a mapping with some of the keys {_listed(replaces)}", returned)
        for key in returned:
            if key not in replaces:
                raise _unknown(impl, key, replaces)
        new = tuple(
            old if (value := returned.get(param)) is None else values.checked(impl, param, value, old, uuid)
            for param, old in zip(replaces, (current,) if single else current, strict=True)
        )
        return new[0] if single else new

    return take


def _take_pair(values: Values) -> Take:
    replaces = values.trigger.replaces
    by_key = _take_mapping(values)

    def take(impl: Implementation, returned: Any, current: Any, uuid: Any) -> Any:
        if isinstance(returned, Mapping):
            return by_key(impl, returned, current, uuid)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise _wrong(impl, None, f"a tuple ({', '.join(replaces)}), or a mapping of these", returned)
        return by_key(impl, dict(zip(replaces, returned, strict=True)), current, uuid)

    return take


def _take_kwargs(values: Values) -> Take:
    (param,) = values.trigger.replaces
    protected = values.trigger.protected

    def fields(
        impl: Implementation, returned: Mapping[Any, Any], current: Mapping[str, Any]
    ) -> dict[str, Any]:
        for key in returned:
            values.known(impl, key)
        return {
            key: values.checked_field(impl, key, new, current)
            for key, new in returned.items()
            if new is not None
        }

    def take(impl: Implementation, returned: Any, current: Any, uuid: Any) -> Any:
        if not isinstance(returned, Mapping):
            raise _wrong(impl, None, f"a mapping that is merged over {param!r}", returned)
        whole = returned.get(param) if len(returned) == 1 else None
        if whole is None and len(returned) == 1 and param in returned:
            return current
        if isinstance(whole, Mapping):
            kept = {key: value for key, value in current.items() if key in protected}
            return kept | fields(impl, whole, current)
        if whole is not None:
            raise _wrong(impl, param, "a mapping", whole)
        return {**current, **fields(impl, returned, current)}

    return take


def _adapter(declared: Any) -> TypeAdapter[Any] | None:
    return None if declared is Any else TypeAdapter(declared)


def _validated(
    impl: Implementation,
    key: str,
    adapter: TypeAdapter[Any] | None,
    declared: Callable[[str], Any],
    value: Any,
) -> Any:
    if value is NULL:
        value = None
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" if item["loc"] else item["msg"]
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:3]
        )
        raise _wrong(impl, key, f"{_name(declared(key))} ({details})", value) from error


def _name(declared: Any) -> str:
    if isinstance(declared, type) and not hasattr(declared, "__args__"):
        return declared.__qualname__
    return str(declared).replace("typing.", "")


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(repr(key) for key in keys)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # a broken __repr__ must not hide the mistake it belongs to
        text = f"<repr failed: {error!r}>"
    return (text if len(text) <= _SHOWN else text[:_SHOWN] + "…") + f" ({type(value).__name__})"


def _wrong(impl: Implementation, key: str | None, expected: str, got: Any) -> PluginResultError:
    of = "" if key is None else f" for {key!r}"
    return PluginResultError(
        f"plugin {impl.plugin!r} returned a wrong value{of} from trigger {impl.trigger.name!r}: "
        f"expected {expected}, got {_shown(got)}",
        plugin=impl.plugin,
        trigger=impl.trigger.name,
    )


def _unknown(impl: Implementation, key: Any, known: tuple[str, ...]) -> PluginResultError:
    return PluginResultError(
        f"plugin {impl.plugin!r} returned the unknown key {key!r} from trigger {impl.trigger.name!r}: "
        f"expected one of {_listed(known)}",
        plugin=impl.plugin,
        trigger=impl.trigger.name,
    )
