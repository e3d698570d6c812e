"""The Redis global config: one hash, with versions and expiry in its values."""

from __future__ import annotations

import struct
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from qtasks.codec import decode, encode
from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Capabilities, Versioned
from qtasks.components.redis.broker import CAPABILITIES
from qtasks.components.redis.link import RedisLink
from qtasks.components.redis.target import Target
from qtasks.components.redis.wire import number

_LENGTH = struct.Struct(">I")
_VALUE = struct.Struct(">dd")


class RedisGlobalConfig(GlobalConfig):
    """Shares values through Redis ≥ 6.2 or Valkey.

    Parameters:
        where: a URL, or the link that it shares with broker and storage.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, where: str | Target | RedisLink) -> None:
        super().__init__()
        self.link = where if isinstance(where, RedisLink) else RedisLink(where)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.link.target.masked})"

    async def open(self) -> None:
        await self.link.open(self, self.app_name, self.config)

    async def close(self) -> None:
        await self.link.close(self)

    async def put(
        self, name: str, key: str, value: Any, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        version: int | None = await self.link.run(
            "config_put",
            [
                _field(name, key), encode(value), b"" if ttl is None else number(ttl),
                b"" if if_version is None else b"%d" % if_version,
            ],
        )  # fmt: skip
        return version

    async def fetch(self, name: str, key: str) -> Versioned | None:
        found = await self._read(_field(name, key), b"one")
        return found.get((name, key))

    async def fetch_all(self, name: str) -> dict[str, Versioned]:
        prefix = _field(name, "")
        return {key: item for (_, key), item in (await self._read(prefix, b"all")).items()}

    async def match(self, pattern: str) -> dict[str, dict[str, Versioned]]:
        found: dict[str, dict[str, Versioned]] = {}
        for (name, key), item in (await self._read(b"", b"all")).items():
            if fnmatchcase(f"{name}:{key}", pattern):
                found.setdefault(name, {})[key] = item
        return found

    async def delete(self, name: str, key: str, if_version: int | None = None) -> bool:
        version = b"" if if_version is None else b"%d" % if_version
        return bool(await self.link.run("config_delete", [_field(name, key), version]))

    async def flush(self) -> None:
        await self.link.command("UNLINK", self.link.calls.key("config"))

    async def erase(self) -> None:
        await self.flush()
        await self.link.erase("versions")

    async def _read(self, prefix: bytes, how_many: bytes) -> dict[tuple[str, str], Versioned]:
        reply = await self.link.run("config_get", [prefix, how_many])
        found = {}
        for i in range(0, len(reply), 2):
            field, value = reply[i], reply[i + 1]
            size = _LENGTH.size + _LENGTH.unpack_from(field)[0]
            name, key = field[_LENGTH.size : size].decode(), field[size:].decode()
            version, _ = _VALUE.unpack_from(value)
            found[name, key] = Versioned(decode(value[_VALUE.size :]), int(version))
        return found


def _field(name: str, key: str) -> bytes:
    """Name and key are any text, so the length of the name tells them apart."""
    encoded = name.encode()
    return _LENGTH.pack(len(encoded)) + encoded + key.encode()
