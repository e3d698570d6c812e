"""The memory global config: values of this process."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, ClassVar

from qtasks.codec import decode, encode
from qtasks.components.global_config import GlobalConfig
from qtasks.components.memory.space import AppState, ConfigValue, MemorySpace
from qtasks.components.primitives import Capabilities, Versioned


class MemoryGlobalConfig(GlobalConfig):
    """Shares values within one process.

    Parameters:
        space: shared with a broker and a storage; a space of its own if `None`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(virtual_clock=True)

    def __init__(self, space: MemorySpace | None = None) -> None:
        super().__init__()
        self.space = MemorySpace() if space is None else space

    @property
    def _state(self) -> AppState:
        return self.space.app(self.app_name)

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """There is nothing to close: the data lives as long as the space."""

    async def put(
        self, name: str, key: str, value: Any, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        data = encode(value)
        state = self._state
        with self.space.lock:
            now = self.clock()
            present = self._live(state, name, now).get(key)
            if if_version is not None and if_version != (0 if present is None else present.version):
                return None
            # One counter for all keys: a key that is deleted and set again does not repeat a version.
            state.config_version += 1
            values = state.config.setdefault(name, {})
            values[key] = ConfigValue(data, state.config_version, None if ttl is None else now + ttl)
            return state.config_version

    async def fetch(self, name: str, key: str) -> Versioned | None:
        return (await self.fetch_all(name)).get(key)

    async def fetch_all(self, name: str) -> dict[str, Versioned]:
        state = self._state
        with self.space.lock:
            found = self._live(state, name, self.clock())
            return {key: Versioned(decode(item.data), item.version) for key, item in found.items()}

    async def match(self, pattern: str) -> dict[str, dict[str, Versioned]]:
        state = self._state
        with self.space.lock:
            names = list(state.config)
        found: dict[str, dict[str, Versioned]] = {}
        for name in names:
            for key, item in (await self.fetch_all(name)).items():
                if fnmatchcase(f"{name}:{key}", pattern):
                    found.setdefault(name, {})[key] = item
        return found

    async def delete(self, name: str, key: str, if_version: int | None = None) -> bool:
        state = self._state
        with self.space.lock:
            present = self._live(state, name, self.clock()).get(key)
            if present is None or if_version not in (None, present.version):
                return False
            del state.config[name][key]
            if not state.config[name]:
                del state.config[name]
            return True

    async def flush(self) -> None:
        state = self._state
        with self.space.lock:
            state.config.clear()

    @staticmethod
    def _live(state: AppState, name: str, now: float) -> dict[str, ConfigValue]:
        """The values under a name; those whose time is over are dropped here."""
        values = state.config.get(name, {})
        for key in [
            key for key, item in values.items() if item.expires_at is not None and item.expires_at <= now
        ]:
            del values[key]
        if not values:
            state.config.pop(name, None)
        return values
