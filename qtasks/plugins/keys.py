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
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=20, key=key).hexdigest()


def _plain(value: Any) -> Any:
    # A set has no order of its own, and would differ from process to process.
    if isinstance(value, set | frozenset):
        return sorted(value, key=lambda item: json.dumps(item, sort_keys=True, default=_plain))
    return to_jsonable_python(value)
