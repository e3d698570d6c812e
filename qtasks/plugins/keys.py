"""Digests of keys: equal values have one in all processes, and nobody reads the value out of it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from qtasks import QueueConfig


def digest(value: Any, config: QueueConfig) -> str:
    """The digest of anything that has a JSON form; the order of a dict or a set makes no difference.

    It is keyed with the setting `digest_key`, as that of the arguments: without the key nobody can find a short value
    by trying all of them.
    """
    secret = config.digest_key
    key = b"" if secret is None else hashlib.blake2b(secret.get_secret_value().encode()).digest()
    text = json.dumps(_plain(value), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20, key=key).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_name(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # A set has no order of its own, and would differ from process to process.
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=lambda item: json.dumps(item, sort_keys=True))
    return to_jsonable_python(value, inf_nan_mode="constants", bytes_mode="base64")


def _name(key: Any) -> str:
    """The key of a dict as it is in JSON: numbers and uuids, say, are texts there."""
    return key if isinstance(key, str) else str(next(iter(to_jsonable_python({key: None}))))
