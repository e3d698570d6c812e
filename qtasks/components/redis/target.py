"""Where a Redis is: its URL taken apart, and the way to the server that takes writes.

Passwords are kept out of every `repr` and message: `Target.masked` is the only form that is shown.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from qtasks.errors import ConfigError

SCHEMES = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+unix": ("unix", False),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""URL schemes: the kind of deployment, and whether TLS is used."""

_BOOLS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_OPTIONS: dict[str, type] = {
    "db": int,
    "username": str,
    "password": str,
    "client_name": str,
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_keepalive": bool,
    "socket_read_size": int,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": str,
    "ssl_check_hostname": bool,
    "ssl_ciphers": str,
    "ssl_min_version": str,
    "sentinel_username": str,
    "sentinel_password": str,
    "path": str,
}
_TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class Target:
    """One Redis deployment, as its URL names it.

    Attributes:
        kind: how the server that takes writes is found.
        hosts: host and port of the server, of the sentinels, or of some nodes of the cluster.
        tls: whether connections are encrypted.
        db: the database number.
        master: the name of the master, with Sentinel.
        path: of the unix socket.
        timeout: seconds that a reply may take.
        connect_timeout: seconds that connecting may take.
        options: what is passed on to redis-py; holds the passwords, so it is never shown.
        sentinel_options: the same for connections to sentinels.
    """

    kind: Literal["single", "unix", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    db: int = 0
    master: str = ""
    path: str = ""
    timeout: float = 5.0
    connect_timeout: float = 5.0
    options: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @property
    def place(self) -> str:
        """Names the store, without credentials: the same for everyone who uses it."""
        hosts = ",".join(f"{host}:{port}" for host, port in sorted(self.hosts))
        return f"{self.kind} {self.path or hosts}{'/' + self.master if self.master else ''} db {self.db}"

    @property
    def masked(self) -> str:
        """The URL as it may be shown: without credentials."""
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "single" else f"+{self.kind}")
        user = self.options.get("username") or ""
        secret = "***@" if self.options.get("password") else "@"
        login = f"{user}:{secret}" if user or self.options.get("password") else ""
        hosts = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{login}{hosts}/{self.master + '/' if self.master else ''}{self.db}"

    def __str__(self) -> str:
        return self.masked

    def __repr__(self) -> str:
        return f"Target({self.masked})"


def parse_url(url: str) -> Target:
    """Takes a URL apart.

    Parameters:
        url: `redis://`, `rediss://`, `redis+unix://` (or `unix://`), `redis+sentinel://h1,h2/master/db`,
            `redis+cluster://h1,h2`; with `rediss+…` encrypted. Options stand in the query.

    Raises:
        ConfigError: it cannot be read. The message never holds the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        kind, tls = SCHEMES[parts.scheme]
    except (ValueError, KeyError):
        raise ConfigError(
            f"A Redis URL begins with one of {', '.join(f'{name}://' for name in SCHEMES)}"
        ) from None
    login, _, netloc = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options: dict[str, Any] = _query_options(parts.query)
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    segments = [unquote(part) for part in parts.path.split("/") if part]
    master = path = ""
    if kind == "unix":
        path = options.pop("path", "") or unquote(parts.path)
        segments = []
        if not path:
            raise ConfigError(
                "A redis+unix:// URL names the path of the socket, as in redis+unix:///run/redis.sock"
            )
    elif kind == "sentinel":
        if not segments:
            raise ConfigError(
                "A redis+sentinel:// URL names the master, as in redis+sentinel://host:26379/mymaster"
            )
        master = segments.pop(0)
    db = _database(segments, options)
    if kind == "cluster" and db:
        raise ConfigError("A Redis Cluster has database 0 only: leave the database out of the URL")
    options.setdefault("username", None)
    timeout = options.pop("socket_timeout", 5.0)
    connect_timeout = options.pop("socket_connect_timeout", min(5.0, timeout))
    sentinel_options = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    return Target(
        kind=kind,  # type: ignore[arg-type]
        hosts=() if kind == "unix" else _hosts(netloc, 26379 if kind == "sentinel" else 6379),
        tls=tls, db=db, master=master, path=path, timeout=timeout, connect_timeout=connect_timeout,
        options=options, sentinel_options=sentinel_options,
    )  # fmt: skip


def _query_options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        kind = _OPTIONS.get(name)
        if kind is None:
            raise ConfigError(
                f"A Redis URL has no option {name!r}. Options are: {', '.join(sorted(_OPTIONS))}"
            )
        try:
            options[name] = _BOOLS[value.lower()] if kind is bool else kind(value)
            if name == "ssl_min_version":
                options[name] = _TLS_VERSIONS[value]
        except (ValueError, KeyError):
            raise ConfigError(f"The option {name!r} of a Redis URL has a value that is not valid") from None
        if name.endswith("timeout") and not options[name] > 0:
            raise ConfigError(f"The option {name!r} of a Redis URL is a number of seconds above 0")
    return options


def _database(segments: list[str], options: dict[str, Any]) -> int:
    named = options.pop("db", None)
    if named is None and segments:
        if not segments[0].isdecimal():
            raise ConfigError(f"The database in a Redis URL is a number, not {segments[0]!r}")
        named = int(segments[0])
    return int(named or 0)


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for entry in netloc.split(",") if netloc else ["localhost"]:
        try:
            parts = urlsplit(f"//{entry}")
            hosts.append((unquote(parts.hostname or "localhost"), parts.port or default_port))
        except ValueError:
            raise ConfigError(
                "A host in the Redis URL cannot be read: write host:port, or [IPv6]:port"
            ) from None
    return tuple(hosts)


def connection_options(target: Target) -> dict[str, Any]:
    """What every connection is made with.

    redis-py's own repeats are off: a command that was sent once more after a timeout ran twice.
    RESP2 and no maintenance notifications: replies are then matched to commands by their order alone.
    """
    options = dict(target.options)
    options.update(
        db=target.db, protocol=2, retry=Retry(NoBackoff(), 0), socket_connect_timeout=target.connect_timeout
    )
    return options


def async_connection(
    target: Target, address: tuple[str, int] | None
) -> redis.asyncio.connection.AbstractConnection:
    """A connection that is not yet connected. It has no socket timeout: who reads from it keeps the time."""
    options = connection_options(target) | {
        "socket_timeout": None,
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
    }
    if target.kind == "unix":
        options.pop("socket_keepalive", None)
        return redis.asyncio.UnixDomainSocketConnection(path=target.path, **options)
    host, port = address or target.hosts[0]
    made = redis.asyncio.SSLConnection if target.tls else redis.asyncio.Connection
    return made(host=host, port=port, **options)


def sync_connection(target: Target, address: tuple[str, int] | None) -> Any:
    """The same for blocking code, with the timeout of the URL."""
    options = connection_options(target) | {"socket_timeout": target.timeout}
    if target.kind == "unix":
        options.pop("socket_keepalive", None)
        made: Any = redis.UnixDomainSocketConnection
        return made(path=target.path, **options)
    host, port = address or target.hosts[0]
    made = redis.SSLConnection if target.tls else redis.Connection
    return made(host=host, port=port, **options)


def locate(target: Target, key: str) -> tuple[str, int] | None:
    """Finds the server that takes writes for a key. Blocking; `None` for a unix socket.

    Raises:
        redis.RedisError: none was found.
    """
    if target.kind == "sentinel":
        return _ask_sentinels(target)
    if target.kind == "cluster":
        return _ask_cluster(target, key)
    return target.hosts[0] if target.hosts else None


def _ask_sentinels(target: Target) -> tuple[str, int]:
    common: dict[str, Any] = {
        "socket_timeout": target.connect_timeout, "socket_connect_timeout": target.connect_timeout,
        "retry": Retry(NoBackoff(), 0), "protocol": 2,
    }  # fmt: skip
    tls = {name: value for name, value in target.options.items() if name.startswith("ssl_")}
    if target.tls:
        common |= {"ssl": True, **tls}
    sentinel: Any = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(target.hosts), sentinel_kwargs=common | target.sentinel_options
    )
    try:
        host, port = sentinel.discover_master(target.master)
    finally:
        for client in sentinel.sentinels:
            client.close()
    return str(host), int(port)


def _ask_cluster(target: Target, key: str) -> tuple[str, int]:
    slot = key_slot(key.encode())
    failed: redis.RedisError | None = None
    for host, port in target.hosts:
        connection = sync_connection(target, (host, port))
        try:
            connection.send_command("CLUSTER", "SLOTS")
            for entry in connection.read_response():
                if entry[0] <= slot <= entry[1]:
                    node = entry[2][0].decode() if entry[2][0] else host
                    return node or host, int(entry[2][1])
            failed = redis.exceptions.ClusterDownError(f"slot {slot} is not served")
        except redis.RedisError as error:
            failed = error
        finally:
            connection.disconnect()
    raise failed or redis.ConnectionError("no node of the cluster is named")
