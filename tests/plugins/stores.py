"""The bytes of a store, read past qtasks: what somebody sees who gets hold of the file, or of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis


def raw_store(url: str) -> bytes:
    """Everything in the store behind a URL: the SQLite file with its WAL, or every key of the Redis database."""
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///"))
        parts = [path.read_bytes() for path in sorted(file.parent.glob(file.name + "*"))]
    else:
        with redis.Redis.from_url(url) as client:
            parts = [key + b" " + b" ".join(_flat(_value(client, key))) for key in client.scan_iter()]
    assert any(parts), "the store is empty: there is nothing to look at"
    return b"\n".join(parts)


def _value(client: redis.Redis, key: bytes) -> Any:
    kind = client.type(key)
    read = {
        b"string": client.get, b"hash": client.hgetall, b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1), b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }  # fmt: skip
    return read[kind](key)


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        return [part for pair in value.items() for each in pair for part in _flat(each)]
    if isinstance(value, list | set | tuple):
        return [part for each in value for part in _flat(each)]
    return [value] if isinstance(value, bytes) else []
