"""Opens a backend by its URL: the built-in ones, and those that other distributions install."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from qtasks.components.broker import Broker
from qtasks.components.global_config import GlobalConfig
from qtasks.components.storage import Storage
from qtasks.errors import ConfigError, QTasksError
from qtasks.manager import discovery
from qtasks.text import masked

DEFAULT_URL: Final = "sqlite:///qtasks.db"
GROUP: Final = "qtasks.backends"
"""The entry-point group: the name is the scheme of the URL, the object a callable (url: str) -> Backend."""

_REDIS_SCHEMES = ("redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")  # fmt: skip  # noqa: E501


class Backend(NamedTuple):
    """The three components that lie in one store."""

    broker: Broker
    storage: Storage
    global_config: GlobalConfig


def backend_from_url(url: str = DEFAULT_URL) -> Backend:
    """Makes the components of a backend; nothing is opened yet.

    Parameters:
        url: `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db`, a Redis URL, or a URL whose
            scheme an installed distribution offers in the entry-point group `qtasks.backends`.

    Raises:
        ConfigError: the URL is malformed, nobody offers its scheme, or its backend cannot be imported.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator or not scheme:
        raise ConfigError(
            f"{masked(url)!r} is not the URL of a backend: write it as {DEFAULT_URL!r} or 'memory://'"
        )
    if scheme in _BUILT_IN:
        return _BUILT_IN[scheme](url)
    offered: dict[str, list[EntryPoint]] = {}
    for name, points in discovery.offered(GROUP)[0].items():
        offered.setdefault(name.lower(), []).extend(points)
    if scheme in offered:
        return _third_party(_only(scheme, offered[scheme]), url)
    known = ", ".join(sorted({*_BUILT_IN, *offered}))
    raise ConfigError(
        f"no backend is installed for the scheme {scheme!r}: use one of {known}, or install a distribution "
        f"that offers {scheme!r} in the entry-point group {GROUP!r}"
    )


def _memory(url: str) -> Backend:
    from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage

    if url.partition("://")[2]:
        raise ConfigError(f"'memory://' takes nothing after it: {masked(url)!r}")
    space = MemorySpace()
    return Backend(MemoryBroker(space), MemoryStorage(space), MemoryGlobalConfig(space))


def _sqlite(url: str) -> Backend:
    from qtasks.components.sqlite import SQLiteBroker, SQLiteGlobalConfig, SQLiteStorage

    parts, shown = urlsplit(url), masked(url)
    if parts.netloc:
        raise ConfigError(
            f"{shown!r} names a host, {parts.netloc.rpartition('@')[2]!r}: "
            "a file is 'sqlite:///relative.db' or 'sqlite:////absolute.db'"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            f"{shown!r}: an SQLite URL takes no options; write ? and # in a file name as %3F and %23"
        )
    path = unquote(parts.path[1:])
    if path == ":memory:":
        raise ConfigError(
            f"{shown!r}: processes cannot share such a file; use 'memory://' for a queue in memory"
        )
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError(f"{shown!r} names no file: write it as {DEFAULT_URL!r}")
    return Backend(SQLiteBroker(path), SQLiteStorage(path), SQLiteGlobalConfig(path))


def _redis(url: str) -> Backend:
    module = import_module("qtasks.components.redis")
    backend: Backend = module.backend_from_url(url)
    return backend


def _only(scheme: str, points: list[EntryPoint]) -> EntryPoint:
    if len(points) > 1:
        raise ConfigError(
            f"the scheme {scheme!r} clashes: it is offered by "
            f"{' and '.join(sorted(map(discovery.whose, points)))}. Uninstall all but one"
        )
    return points[0]


def _third_party(point: EntryPoint, url: str) -> Backend:
    origin = f"the backend {point.name!r} of {discovery.whose(point)}"
    try:
        factory = point.load()
    except Exception as error:
        raise ConfigError(f"{origin} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        backend = factory(url)
    except QTasksError:
        raise
    except Exception as error:
        # The URL is not told: it may hold a password, and the error may too.
        raise ConfigError(f"{origin} cannot be made from this URL: {type(error).__name__}") from error
    if not isinstance(backend, Backend):
        raise ConfigError(f"{origin} must return a qtasks.backends.Backend, not {type(backend).__name__}")
    return backend


_BUILT_IN: Final[dict[str, Callable[[str], Backend]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    **dict.fromkeys(_REDIS_SCHEMES, _redis),
}
