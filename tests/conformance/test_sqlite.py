"""The SQLite backend passes the conformance kit."""

from __future__ import annotations

import itertools

import pytest

from qtasks.components.sqlite import SQLiteBroker, SQLiteGlobalConfig, SQLiteStorage
from qtasks.testing import BrokerSuite, GlobalConfigSuite, StorageSuite


@pytest.fixture
def paths(tmp_path):
    return (tmp_path / f"{n}.db" for n in itertools.count())


class TestSQLiteBroker(BrokerSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        return lambda like=None: SQLiteBroker(like.path if like else next(paths))


class TestSQLiteStorage(StorageSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        return lambda like=None: SQLiteStorage(like.path if like else next(paths))


class TestSQLiteGlobalConfig(GlobalConfigSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        return lambda like=None: SQLiteGlobalConfig(like.path if like else next(paths))
