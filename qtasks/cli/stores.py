"""Fresh, empty stores for the conformance kit, made of the URL of a backend, whose own data is never touched."""

from __future__ import annotations

import asyncio
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from qtasks.backends import Backend, backend_from_url
from qtasks.manager import PluginManager

if TYPE_CHECKING:
    from qtasks.components.memory import MemorySpace

PARTS = {
    "broker": ("broker",),
    "storage": ("storage",),
    "config": ("global_config",),
    "pairing": ("broker", "storage"),
}
"""What is made of a backend, by the kind of suite."""

NAME_LENGTH = 48
"""Letters that the name of an app may have."""


class Stores(ABC):
    """Gives out backends, each over an empty store of its own or over the store of another one.

    Attributes:
        where: what the report says of it.
    """

    where: str

    def __init__(self) -> None:
        self._keys: dict[int, Any] = {}
        self._made: list[object] = []  # so that no id is used twice

    def factory(self, kind: str) -> Any:
        """A `make_component` for this kind of suite."""

        def make(like: Any = None) -> Any:
            first = like[0] if isinstance(like, tuple) else like
            key = self.fresh() if like is None else self._keys[id(first)]
            backend = self.backend(key)
            parts = tuple(getattr(backend, name) for name in PARTS[kind])
            for part in parts:
                self._keys[id(part)] = key
            self._made += parts
            return parts if len(parts) > 1 else parts[0]

        return make

    @abstractmethod
    def fresh(self) -> Any:
        """What names a new, empty store."""

    @abstractmethod
    def backend(self, key: Any) -> Backend:
        """A backend over this store, not opened."""

    async def probe(self) -> None:
        """Looks whether the store can be used.

        Raises:
            BackendError: it cannot.
        """
        for part in self.backend(self.fresh()):
            part.bind(PluginManager(), app_name="kit")
            await part.open()
            await part.close()
        await self.tidy()

    async def tidy(self) -> None:
        """Removes what the last check left."""
        self._keys.clear()
        self._made.clear()


class MemoryStores(Stores):
    """Spaces of this process."""

    where = "in memory"

    def fresh(self) -> MemorySpace:
        from qtasks.components.memory import MemorySpace

        return MemorySpace()

    def backend(self, key: MemorySpace) -> Backend:
        from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemoryStorage

        return Backend(MemoryBroker(key), MemoryStorage(key), MemoryGlobalConfig(key))


class FileStores(Stores):
    """SQLite files of their own in a folder that is deleted at the end."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__()
        self._folder = folder
        self._numbers = count(1)
        self.where = f"in files of its own beside the one that {url} names, which is not opened"

    def fresh(self) -> str:
        return f"sqlite:////{quote(str(self._folder / f'{next(self._numbers)}.db').lstrip('/'))}"

    def backend(self, key: str) -> Backend:
        return backend_from_url(key)

    async def tidy(self) -> None:
        await super().tidy()
        for path in self._folder.iterdir():
            path.unlink()


class ServerStores(Stores):
    """Applications with names that nobody else has, on one server; removed after each check."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._run = f"kit-{token_hex(3)}"
        self._numbers = count(1)
        self._apps: dict[tuple[str, str], str] = {}
        self.where = f"as apps of its own, {self._run}…, which are removed again"

    def fresh(self) -> str:
        return f"{self._run}{next(self._numbers):x}-"

    def backend(self, key: str) -> Backend:
        backend = backend_from_url(self._url)
        for part in backend:
            part.bind = partial(self._bind, key, part.bind)  # type: ignore[method-assign]
        return backend

    def _bind(self, key: str, bind: Any, pm: Any, *, app_name: str, config: Any = None) -> None:
        name = f"{key}{app_name}"[:NAME_LENGTH]
        self._apps[key, name] = name
        bind(pm, app_name=name, config=config)

    async def tidy(self) -> None:
        await super().tidy()
        while self._apps:  # one that is interrupted here is taken up again
            key, name = next(iter(self._apps.items()))
            for part in backend_from_url(self._url):
                part.bind(PluginManager(), app_name=name)
                await part.open()
                try:
                    await part.erase()
                finally:
                    await part.close()
            del self._apps[key]


@contextmanager
def stores_at(url: str) -> Iterator[Stores]:
    """Empty stores of the kind that a URL names.

    Raises:
        ConfigError: the URL is malformed, or nobody offers its scheme.
    """
    backend_from_url(url)  # a wrong one is told at once
    scheme = url.partition("://")[0].lower()
    if scheme == "memory":
        yield MemoryStores()
    elif scheme == "sqlite":
        named = Path(unquote(urlsplit(url).path[1:])).absolute()
        with tempfile.TemporaryDirectory(prefix=".qtasks-conformance-", dir=named.parent) as folder:
            yield FileStores(Path(folder), url)
    else:
        stores = ServerStores(url)
        try:
            yield stores
        finally:
            asyncio.run(stores.tidy())
