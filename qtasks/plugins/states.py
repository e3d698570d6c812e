"""states: values that all tasks and all processes of an application share, changed by compare-and-set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtasks import hookimpl
from qtasks.errors import NotStartedError

if TYPE_CHECKING:
    from qtasks import GlobalConfig

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds that `update` waits at most, after the first time it was too late and after many."""


class StatesPlugin:
    """Shared values (JSON) in the global config of the application. Its methods are the interface.

    A plain function, which runs in a thread, uses them through `current_task().run_sync(...)`.

    Parameters:
        namespace: keeps the keys of several such plugins apart.
    """

    def __init__(self, namespace: str = "default") -> None:
        self.qtasks_name = "states" if namespace == "default" else f"states-{namespace}"
        self._name = f"states:{namespace}"
        self._config: GlobalConfig | None = None

    @hookimpl
    def global_config_start(self, global_config: GlobalConfig) -> None:
        """From here on there is a store. Raises `RuntimeError` where it is that of a second application: the values
        of one must not get into the store of the other."""
        if self._config not in (None, global_config):
            raise RuntimeError(
                f"the plugin {self.qtasks_name!r} is in use by another application that is running: give each a "
                "StatesPlugin of its own"
            )
        self._config = global_config

    @hookimpl
    def global_config_stop(self, global_config: GlobalConfig) -> None:
        """From here on there is none."""
        if self._config is global_config:
            self._config = None

    async def get(self, key: str, default: Any = None) -> Any:
        """The value; the default where there is none."""
        value, version = await self._store.get_versioned(self._name, key)
        return value if version else default

    async def get_all(self) -> dict[str, Any]:
        """All values of the namespace by key."""
        return await self._store.get_all(self._name)

    async def get_versioned(self, key: str) -> tuple[Any, int]:
        """The value and its version for `set(if_version=…)`; `(None, 0)` where there is none."""
        return await self._store.get_versioned(self._name, key)

    async def set(
        self, key: str, value: Any, *, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        """Writes a value, whatever was there, and gives its version.

        Parameters:
            ttl: seconds until it is gone, by the clock of the store; `None` keeps it.
            if_version: writes only where this is the version now (0: only where there is no value), else gives
                `None`.
        """
        return await self._store.set(self._name, key, value, ttl=ttl, if_version=if_version)

    async def update(
        self, key: str, change: Callable[[Any], Any], default: Any = None, *, ttl: float | None = None
    ) -> Any:
        """Writes what a function makes of the value, and gives that. No change of another process is overwritten.

        Parameters:
            change: is given the value, or the default where there is none. It is called again when another process
                was faster, so it does nothing but compute, and leaves the value it is given as it is.
            ttl: as for `set`.

        Raises:
            TransientError: the store is away; whether the value was written is not known.
        """
        pause = FIRST_PAUSE
        while True:
            value, version = await self.get_versioned(key)
            changed = change(value if version else default)
            if await self.set(key, changed, ttl=ttl, if_version=version) is not None:
                return changed
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def delete(self, key: str, *, if_version: int | None = None) -> bool:
        """Deletes a value, with `if_version` only at that version; gives whether there was one."""
        return await self._store.delete(self._name, key, if_version)

    async def clear(self) -> None:
        """Deletes all values that are there when it is called."""
        for key in await self.get_all():
            await self.delete(key)

    @property
    def _store(self) -> GlobalConfig:
        if self._config is None:
            raise NotStartedError("states are kept in the store: use them while the application is started")
        return self._config
