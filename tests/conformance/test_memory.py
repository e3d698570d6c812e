"""The memory backend passes the conformance kit."""

from __future__ import annotations

import pytest

from qtasks.components.memory import MemoryBroker, MemoryGlobalConfig, MemorySpace, MemoryStorage
from qtasks.testing import BrokerSuite, GlobalConfigSuite, StorageSuite


class TestMemoryBroker(BrokerSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return lambda like=None: MemoryBroker(like.space if like else MemorySpace())


class TestMemoryStorage(StorageSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return lambda like=None: MemoryStorage(like.space if like else MemorySpace())


class TestMemoryGlobalConfig(GlobalConfigSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return lambda like=None: MemoryGlobalConfig(like.space if like else MemorySpace())
