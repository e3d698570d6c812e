"""The Redis backend passes the conformance kit, logged in with the minimum of rights."""

from __future__ import annotations

import itertools

import pytest

from qtasks.components.redis import RedisBroker, RedisLink
from qtasks.testing import BrokerSuite
from tests.support.redis_server import RedisServer, flavours

_databases = itertools.count(1)


@pytest.fixture(scope="module", params=flavours(), ids=lambda program: program.rsplit("/", 1)[-1])
def server(request):
    with RedisServer(request.param, appendonly="yes", appendfsync="no") as started:
        started.restrict()
        yield started


class TestRedisBroker(BrokerSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, server):
        return lambda like=None: RedisBroker(
            RedisLink(like.link.target if like else server.url(restricted=True))
        )
