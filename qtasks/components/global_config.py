"""The contract of the global config: values shared by all processes of an app, with versions.

The public methods fire the triggers, once, here; a backend implements the primitives, which fire
nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from qtasks.components.base import Component
from qtasks.components.primitives import Versioned

STATUS = "qtasks.status"
"""The name under which every running server keeps its sign of life, by owner."""


class GlobalConfigPrimitives(ABC):
    """What a backend implements. None of these fires a trigger. Names and keys are any text."""

    @abstractmethod
    async def open(self) -> None:
        """Connects and prepares the store. Safe to call again after `close`."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnects. Safe to call twice, and before `open`."""

    @abstractmethod
    async def put(
        self, name: str, key: str, value: Any, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        """Writes a value (JSON) and gives its new version, which is higher than any before of this key.

        Parameters:
            ttl: seconds until it is gone; `None` keeps it.
            if_version: write only if this is the present version (0: only if there is none); `None`
                writes always. The return is `None` where the version did not fit.
        """

    @abstractmethod
    async def fetch(self, name: str, key: str) -> Versioned | None:
        """The value, `None` where there is none."""

    @abstractmethod
    async def fetch_all(self, name: str) -> dict[str, Versioned]:
        """All values under a name, by key."""

    @abstractmethod
    async def match(self, pattern: str) -> dict[str, dict[str, Versioned]]:
        """Values whose `name:key` fits a glob (`*`, `?`, `[…]`, as in `fnmatch.fnmatchcase`), by name and key."""

    @abstractmethod
    async def delete(self, name: str, key: str, if_version: int | None = None) -> bool:
        """Deletes a value; with `if_version` only at that version. Gives whether it was deleted."""

    @abstractmethod
    async def flush(self) -> None:
        """Deletes all values of this app, and nothing else (I7)."""

    async def erase(self) -> None:
        """As `Broker.erase`: removes the app for good, its counters too."""
        await self.flush()


class GlobalConfig(Component, GlobalConfigPrimitives):
    """Shared values. Subclass it and implement the primitives of `GlobalConfigPrimitives`."""

    async def start(self) -> None:
        """Opens the backend; fires `global_config_start`."""
        await self.open()
        await self.pm.hook.global_config_start(global_config=self)

    async def stop(self) -> None:
        """Fires `global_config_stop`. The connection is closed last, by the starter, through `close`."""
        await self.pm.hook.global_config_stop(global_config=self)

    async def set(
        self, name: str, key: str, value: Any, *, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        """Fires `global_config_set`, then writes. Parameters and return as in `put`."""
        name, key, value = await self.pm.hook.global_config_set(
            global_config=self, name=name, key=key, value=value
        )
        return await self.put(name, key, value, ttl, if_version)

    async def get(self, name: str, key: str) -> Any:
        """The value, after `global_config_get`; `None` where there is none."""
        return (await self.get_versioned(name, key)).value

    async def get_versioned(self, name: str, key: str) -> Versioned:
        """The value, after `global_config_get`, with its version for `set(if_version=…)`; version 0 and the
        value `None` where there is none."""
        found = await self.fetch(name, key) or Versioned(None, 0)
        result = await self.pm.hook.global_config_get(
            global_config=self, name=name, key=key, result=found.value
        )
        return Versioned(result, found.version)

    async def get_all(self, name: str) -> dict[str, Any]:
        """All values under a name, after `global_config_get_all`."""
        found = {key: item.value for key, item in (await self.fetch_all(name)).items()}
        return await self.pm.hook.global_config_get_all(global_config=self, name=name, result=found)

    async def get_match(self, pattern: str) -> dict[str, dict[str, Any]]:
        """Values whose `name:key` fits a glob, by name and key, after `global_config_get_match`."""
        found = {
            name: {key: item.value for key, item in items.items()}
            for name, items in (await self.match(pattern)).items()
        }
        return await self.pm.hook.global_config_get_match(global_config=self, match=pattern, result=found)

    async def set_status(self, owner: str, status: dict[str, Any], ttl: float) -> None:
        """Writes a server's sign of life, gone after `ttl` seconds; fires `global_config_set_status`."""
        await self.put(STATUS, owner, status, ttl)
        await self.pm.hook.global_config_set_status(global_config=self)

    async def servers(self) -> dict[str, dict[str, Any]]:
        """The signs of life of all running servers, by owner."""
        return {owner: item.value for owner, item in (await self.fetch_all(STATUS)).items()}
