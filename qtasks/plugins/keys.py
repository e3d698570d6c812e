"""Digests of keys: equal values have one in all processes, and nobody reads the value out of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic_core import to_jsonable_python


def digest(value: Any) -> str:
    """The digest of anything that has a JSON form; the order of a dict or a set makes no difference."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    # A set has no order of its own, and would differ from process to process.
    if isinstance(value, set | frozenset):
        return sorted(value, key=lambda item: json.dumps(item, sort_keys=True, default=_plain))
    return to_jsonable_python(value)
