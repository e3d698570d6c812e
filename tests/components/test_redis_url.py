"""URLs of Redis: what they mean, and that no password is ever shown."""

from __future__ import annotations

import ssl

import pytest
import redis.asyncio

from qtasks.components.redis import RedisBroker, RedisLink, RedisStorage, parse_url
from qtasks.components.redis.faults import backend_error, wants_relocation
from qtasks.components.redis.target import async_connection, sync_connection
from qtasks.errors import ConfigError, FatalError, TransientError

SECRET = "s3cr3t/:@?"
QUOTED = "s3cr3t%2F%3A%40%3F"


def test_plain():
    target = parse_url("redis://")
    assert (target.kind, target.hosts, target.db, target.tls) == ("single", (("localhost", 6379),), 0, False)
    assert parse_url("redis://[::1]:7000/3").hosts == (("::1", 7000),)
    assert parse_url("redis://host/3").db == parse_url("redis://host?db=3").db == 3


def test_login_and_options():
    target = parse_url(
        f"redis://me:{QUOTED}@host:1/2?socket_timeout=7&socket_connect_timeout=2&client_name=x"
    )
    assert target.options["username"] == "me"
    assert target.options["password"] == SECRET
    assert (target.timeout, target.connect_timeout) == (7.0, 2.0)
    made = async_connection(target, None)
    assert (made.username, made.password, made.client_name, made.db) == ("me", SECRET, "x", 2)
    assert made.retry.get_retries() == sync_connection(target, None).retry.get_retries() == 0


def test_tls():
    target = parse_url("rediss://host?ssl_ca_certs=/ca.pem&ssl_check_hostname=no&ssl_min_version=1.3")
    made = async_connection(target, None)
    assert isinstance(made, redis.asyncio.SSLConnection)
    assert made.ca_certs == "/ca.pem"
    assert made.check_hostname is False
    assert made.min_version is ssl.TLSVersion.TLSv1_3


def test_unix_socket():
    for url in ("redis+unix:///run/redis.sock?db=4", "unix:///run/redis.sock?db=4"):
        target = parse_url(url)
        assert (target.kind, target.path, target.db) == ("unix", "/run/redis.sock", 4)
        assert async_connection(target, None).path == sync_connection(target, None).path == "/run/redis.sock"


def test_sentinel():
    target = parse_url("redis+sentinel://me:pw@a,b:5000/main/2?sentinel_username=s&sentinel_password=t")
    assert target.hosts == (("a", 26379), ("b", 5000))
    assert (target.master, target.db) == ("main", 2)
    assert target.sentinel_options == {"username": "s", "password": "t"}
    assert parse_url("rediss+sentinel://a/main").tls


def test_cluster():
    target = parse_url("redis+cluster://a:1,b:2")
    assert (target.kind, target.hosts) == ("cluster", (("a", 1), ("b", 2)))


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{QUOTED}@host",
        f"redis://me:{QUOTED}@host:port",
        f"redis://me:{QUOTED}@host/db",
        f"redis://me:{QUOTED}@host?nonsense=1",
        f"redis://me:{QUOTED}@host?socket_timeout=soon",
        f"redis://me:{QUOTED}@host?socket_timeout=0",
        f"redis://me:{QUOTED}@host?ssl_min_version=1.0",
        f"redis+sentinel://me:{QUOTED}@host",
        f"redis+cluster://me:{QUOTED}@host/1",
        "redis+unix://",
    ],
)
def test_errors_name_no_password(url):
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{QUOTED}@host",
        f"rediss://:{QUOTED}@host?ssl_password=s3cr3t-key",
        f"redis+unix://me:{QUOTED}@/run/s",
        f"redis+sentinel://me:{QUOTED}@host/main?sentinel_password=s3cr3t-too",
        f"redis+cluster://me:{QUOTED}@host",
    ],
)
def test_no_repr_shows_a_password(url):
    target = parse_url(url)
    link = RedisLink(target)
    broker = RedisBroker(link)
    shown = f"{target!r} {target} {target.place} {link!r} {broker!r} {RedisStorage(link)!r} {broker.locality}"
    assert "s3cr3t" not in shown
    assert "***" in repr(target)


def test_everyone_names_the_store_alike():
    assert parse_url("redis://me:a@host/1").place == parse_url("redis://you:b@host:6379?db=1").place
    assert parse_url("redis://host/1").place != parse_url("redis://host/2").place


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("LOADING Redis is loading", TransientError),
        ("READONLY You can't write", TransientError),
        ("OOM command not allowed", TransientError),
        ("BUSY Redis is busy running a script", TransientError),
        ("MISCONF Redis is configured to save", TransientError),
        ("CLUSTERDOWN Hash slot not served", TransientError),
        ("MOVED 1234 127.0.0.1:7001", TransientError),
        ("TRYAGAIN Multiple keys request", TransientError),
        ("NOAUTH Authentication required.", FatalError),
        ("WRONGPASS invalid username-password pair", FatalError),
        ("NOPERM User has no permissions", FatalError),
        ("WRONGTYPE Operation against a key", FatalError),
        ("ERR unknown command 'EVALSHA'", FatalError),
    ],
)
def test_errors_of_the_server(text, kind):
    parsed = redis.asyncio.connection.DefaultParser.parse_error(text)
    error = backend_error(parsed, "redis://host/0")
    assert type(error) is kind
    assert "redis://host/0" in str(error)


@pytest.mark.parametrize(
    ("words", "kind", "moved"),
    [
        ("@user_script: 11: -OOM command not allowed when used memory > 'maxmemory'.", TransientError, False),
        ("@user_script: 11: -READONLY You can't write against a read only replica.", TransientError, True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", FatalError, False),
    ],
)
def test_errors_inside_a_script_before_redis_7(words, kind, moved):
    """The server puts words about the script before them."""
    text = f"ERR Error running script (call to f_9463d925): @user_script:11: {words}"
    parsed = redis.asyncio.connection.DefaultParser.parse_error(text)
    error = backend_error(parsed, "redis://host/0")
    assert (type(error), wants_relocation(parsed)) == (kind, moved)
    assert "this version of qtasks" not in str(error)


@pytest.mark.parametrize(
    "error", [ConnectionResetError("gone"), redis.TimeoutError(), redis.ConnectionError("x")]
)
def test_errors_of_the_connection(error):
    assert type(backend_error(error, "there")) is TransientError
