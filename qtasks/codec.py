"""JSON as the stores keep it: the only form in which a value leaves the process."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from qtasks.errors import EncodeError


class Encoded(bytes):
    """A value that is JSON already. `encode` passes it on, so whoever had to encode a value (to measure
    it, say) can hand the result to a store instead of having it encoded twice.
    """

    __slots__ = ()


def encode(value: Any) -> Encoded:
    """Writes a value as JSON (UTF-8).

    Beside plain data it takes what pydantic takes: dataclasses, models, dates, UUIDs, enums, sets.
    Bytes become URL-safe base64; NaN and the infinities are written as `NaN`, `Infinity`, `-Infinity`.

    Raises:
        EncodeError: the value, or something in it, has no JSON form; the message names it.
    """
    if type(value) is Encoded:
        return value
    return Encoded(encode_once(value))


def encode_once(value: Any) -> bytes:
    """As `encode`, for what nobody encodes again."""
    try:
        return to_json(value, bytes_mode="base64", inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise EncodeError(_explain(value, error)) from error


def decode(data: bytes | str) -> Any:
    """Reads what `encode` wrote.

    Raises:
        ValueError: the data is not JSON.
    """
    return from_json(data)


def _explain(value: Any, error: Exception) -> str:
    path, culprit = _culprit(value)
    where = f" at {path}" if path else ""
    # The value itself is not shown: this text is logged and stored, and the value may be a secret.
    return f"{type(culprit).__name__}{where} cannot be written as JSON: {error}"


def _culprit(value: Any, path: str = "", depth: int = 0) -> tuple[str, Any]:
    """The innermost container item that fails by itself; best effort, only for the message."""
    items: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        items = [(f"{path}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    if depth < 32:
        for inner, item in items:
            try:
                to_json(item, bytes_mode="base64", inf_nan_mode="constants")
            except (PydanticSerializationError, ValueError, RecursionError):
                return _culprit(item, inner, depth + 1)
    return path, value
