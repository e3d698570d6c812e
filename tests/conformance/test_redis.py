"""The Redis backend passes the conformance kit, logged in with the minimum of rights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qtasks.components.redis import RedisBroker, RedisGlobalConfig, RedisLink, RedisStorage
from qtasks.testing import BrokerSuite, GlobalConfigSuite, StorageSuite
from tests.support.redis_server import RedisServer
from tests.support.redis_servers import servers


@pytest.fixture(scope="module", params=servers())
def server(request):
    with RedisServer(request.param, appendonly="yes", appendfsync="everysec") as started:
        started.restrict()
        yield started


def made(
    kind: type[RedisBroker | RedisStorage], server: RedisServer, like: Any
) -> RedisBroker | RedisStorage:
    component = kind(RedisLink(like.link.target if like else server.url(restricted=True)))
    if server.version < (7, 2):  # it has no WAITAOF
        component.capabilities = replace(kind.capabilities, fsync=False)
    return component


class TestRedisBroker(BrokerSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, server):
        return lambda like=None: made(RedisBroker, server, like)


class TestRedisStorage(StorageSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, server):
        return lambda like=None: made(RedisStorage, server, like)


class TestRedisGlobalConfig(GlobalConfigSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, server):
        return lambda like=None: RedisGlobalConfig(
            RedisLink(like.link.target if like else server.url(restricted=True))
        )
