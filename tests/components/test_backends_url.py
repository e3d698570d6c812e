"""A backend is opened by its URL, and a wrong URL says what is wrong with it."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from qtasks import backends
from qtasks.backends import Backend, backend_from_url
from qtasks.components.memory import MemoryBroker
from qtasks.components.sqlite import SQLiteBroker
from qtasks.config import QueueConfig
from qtasks.errors import ConfigError
from qtasks.manager import discovery


def test_memory_components_share_a_space_of_their_own():
    one, other = backend_from_url("memory://"), backend_from_url("memory://")
    assert isinstance(one.broker, MemoryBroker)
    assert one.broker.locality == one.storage.locality
    assert one.broker.locality != other.broker.locality


def test_sqlite_relative_and_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = backend_from_url("sqlite:///some%20file.db")
    absolute = backend_from_url(f"sqlite:///{tmp_path}/some file.db")
    assert isinstance(relative.broker, SQLiteBroker)
    assert relative.broker.path == tmp_path / "some file.db"
    assert relative.broker.locality == absolute.storage.locality
    assert not list(tmp_path.iterdir()), "nothing is opened yet"


def test_the_default_is_a_file():
    assert isinstance(backend_from_url().broker, SQLiteBroker)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "not the URL of a backend"),
        ("qtasks.db", "not the URL of a backend"),
        ("://x", "not the URL of a backend"),
        ("mongo://host", "'mongo'"),
        ("memory://shared", "takes nothing after it"),
        ("sqlite://file.db", "names a host, 'file.db'"),
        ("sqlite:///", "names no file"),
        ("sqlite:///folder/", "names no file"),
        ("sqlite:///a.db?mode=ro", "takes no options"),
        ("sqlite:///a%00b.db", "names no file"),
        ("sqlite:///:memory:", "memory://"),
    ],
)
def test_a_wrong_url_is_explained(url, says):
    with pytest.raises(ConfigError, match=says):
        backend_from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "mongo://me:s3cr3t@host/db", "sqlite://me:s3cr3t@host", "sqlite:///a.db?password=s3cr3t", "me:s3cr3t@host",
        "memory://me:s3cr3t@host", "redis:/me:s3cr3t@host", "redis://me:s3cr3t@host?no=1", "redis://:s3cr3t@a:x",
    ],
)  # fmt: skip
def test_no_error_shows_a_password(url):
    with pytest.raises(ConfigError) as caught:
        backend_from_url(url)
    assert "s3cr3t" not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:s3cr3t@host:1/2", "redis://me:***@host:1/2"),
        ("redis://:s3@cr:3t@host", "redis://:***@host"),
        ("pg://host/db?sslpassword=s3cr3t&sslmode=require", "pg://host/db?sslpassword=***&sslmode=require"),
        ("redis://host:6379/0?db=1", "redis://host:6379/0?db=1"),
        ("sqlite:///a:b.db", "sqlite:///a:b.db"),
    ],
)
def test_the_settings_show_no_password(url, shown):
    config = QueueConfig(url=url)
    assert f"url={shown!r}" in repr(config)
    assert f"url={shown!r}" in str(config)
    assert config.url == url


@pytest.fixture
def offer(monkeypatch):
    def install(value: str) -> None:
        point = EntryPoint("Stub", value, backends.GROUP)
        found = {backends.GROUP: {point.name: [point]}}
        monkeypatch.setattr(discovery, "offered", lambda group: (found.get(group, {}), []))

    return install


def third_party(url: str) -> Backend:
    assert url == "stub://host/1"
    return backend_from_url("memory://")


def junk(url: str) -> str:
    return url


def test_a_third_party_offers_its_scheme(offer):
    offer(f"{__name__}:third_party")
    assert isinstance(backend_from_url("stub://host/1"), Backend)


def test_a_third_party_that_returns_junk_is_named(offer):
    offer(f"{__name__}:junk")
    with pytest.raises(ConfigError, match=r"'Stub' .* must return a qtasks.backends.Backend, not str"):
        backend_from_url("stub://host")


def test_a_third_party_that_cannot_be_imported_is_named(offer):
    offer("no_such_module:backend")
    with pytest.raises(ConfigError, match=r"'Stub' .*cannot be imported: ModuleNotFoundError"):
        backend_from_url("stub://host")


def test_a_built_in_scheme_cannot_be_taken_over(monkeypatch):
    point = EntryPoint("sqlite", f"{__name__}:junk", backends.GROUP)
    monkeypatch.setattr(discovery, "offered", lambda group: ({point.name: [point]}, []))
    assert isinstance(backend_from_url("sqlite:///x.db").broker, SQLiteBroker)
