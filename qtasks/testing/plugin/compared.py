"""Values of triggers compared: frozen as they are, as text, and path by path."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qtasks import TaskExecSchema

LONGEST = 160
PLAIN = (str, bytes, int, float, bool, type(None))


def frozen(value: Any) -> Any:
    """A picture of a value that later changes do not reach; equal pictures are of equal values and types."""
    if isinstance(value, Mapping):
        return type(value), tuple((key, frozen(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(frozen(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(frozen, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple((name, frozen(getattr(value, name))) for name in _fields(value))
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, BaseException):
        return type(value), frozen(value.args)
    return type(value), id(value)


def _fields(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value) if field.compare]


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """A value taken apart: what stands at which path, such as `.extra['a'][0]`. A container is a leaf of its own
    (its type and size), so that two values have the same leaves only if they have the same form."""
    if isinstance(value, Mapping):
        parts = {f"[{key!r}]": item for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        parts = {f"[{i}]": item for i, item in enumerate(value)}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f".{name}": getattr(value, name) for name in _fields(value)}
    else:
        return {path: frozen(value)}
    found = {path: (type(value), len(parts))}
    for suffix, item in parts.items():
        found.update(leaves(item, path + suffix))
    return found


def alike(first: Any, again: Any, other: Any) -> bool:
    """Whether `other` is what `first` and `again` are: two values that came about in the same way. Where these two
    differ, it is another value each time (a nonce, a random delay), and only its form counts: its type, and the
    mark before a colon that both texts begin with."""
    left, same, right = leaves(first), leaves(again), leaves(other)
    absent = object()
    noise = {path for path in left.keys() | same.keys() if left.get(path, absent) != same.get(path, absent)}
    if left.keys() - noise != right.keys() - noise:
        return False
    return all(
        left[path] == right[path]
        or (path in noise and path in same and _of_one_form(left[path], same[path], right[path]))
        for path in left.keys() & right.keys()
    )


def _of_one_form(first: Any, again: Any, other: Any) -> bool:
    if first[0] != other[0]:
        return False
    if first[0] is not str or again[0] is not str:
        return True
    mark = first[1][: first[1].rfind(":") + 1]
    return not again[1].startswith(mark) or bool(other[1].startswith(mark))


def told(value: Any) -> str:
    """A value as text; schemas show the fields that are not at their defaults, and a declaration its name."""
    if isinstance(value, TaskExecSchema):
        return f"<task {value.name!r}>"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = []
        for field in dataclasses.fields(value):
            now = getattr(value, field.name)
            if not field.compare or not field.repr or _is_default(field, now):
                continue
            parts.append(f"{field.name}={_cut(repr(now))}")
        return f"{type(value).__name__}({', '.join(parts)})"
    return _cut(repr(value))


def _is_default(field: dataclasses.Field[Any], now: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(now == field.default)
    factory = field.default_factory
    return factory is not dataclasses.MISSING and now == factory()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
