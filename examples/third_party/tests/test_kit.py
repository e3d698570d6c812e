"""The three components pass the conformance kit, each alone and as a pair."""

from __future__ import annotations

import pytest
from qtasks_postgres import PostgresBroker, PostgresGlobalConfig, PostgresLink, PostgresStorage

from qtasks.testing import BrokerSuite, GlobalConfigSuite, PairingSuite, StorageSuite


@pytest.fixture
def link(server):
    urls = {}

    def make(like=None):
        made = PostgresLink(urls[like.link] if like else server.url())
        urls[made] = urls[like.link] if like else f"{server.conninfo}?schema={made.target.schema}"
        return made

    return make


class TestPostgresBroker(BrokerSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, link):
        return lambda like=None: PostgresBroker(link(like))


class TestPostgresStorage(StorageSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, link):
        return lambda like=None: PostgresStorage(link(like))


class TestPostgresGlobalConfig(GlobalConfigSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, link):
        return lambda like=None: PostgresGlobalConfig(link(like))


class TestPostgresPair(PairingSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, link):
        def make(like=None):
            shared = link(like[0] if like else None)
            return PostgresBroker(shared), PostgresStorage(shared)

        return make
