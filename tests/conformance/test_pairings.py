"""Every pairing of the memory and the SQLite backend passes the conformance kit."""

from __future__ import annotations

import itertools

import pytest

from qtasks.components.memory import MemoryBroker, MemorySpace, MemoryStorage
from qtasks.components.sqlite import SQLiteBroker, SQLiteStorage
from qtasks.testing import PairingSuite


@pytest.fixture
def paths(tmp_path):
    return (tmp_path / f"{n}.db" for n in itertools.count())


class TestMemory(PairingSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        def make(like=None):
            space = like[0].space if like else MemorySpace()
            return MemoryBroker(space), MemoryStorage(space)

        return make


class TestSQLite(PairingSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        def make(like=None):
            path = like[0].path if like else next(paths)
            return SQLiteBroker(path), SQLiteStorage(path)

        return make


@pytest.mark.thorough
class TestMemoryBrokerSQLiteStorage(PairingSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        def make(like=None):
            space, path = (like[0].space, like[1].path) if like else (MemorySpace(), next(paths))
            return MemoryBroker(space), SQLiteStorage(path)

        return make


@pytest.mark.thorough
class TestSQLiteBrokerMemoryStorage(PairingSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        def make(like=None):
            path, space = (like[0].path, like[1].space) if like else (next(paths), MemorySpace())
            return SQLiteBroker(path), MemoryStorage(space)

        return make


class TestTwoMemorySpaces(PairingSuite):
    """Two stores of one kind: the steps are split."""

    kit_version = 1

    @pytest.fixture
    def make_component(self):
        def make(like=None):
            broker, storage = (like[0].space, like[1].space) if like else (MemorySpace(), MemorySpace())
            return MemoryBroker(broker), MemoryStorage(storage)

        return make


@pytest.mark.thorough
class TestTwoSQLiteFiles(PairingSuite):
    """Two stores of one kind: the steps are split."""

    kit_version = 1

    @pytest.fixture
    def make_component(self, paths):
        def make(like=None):
            broker, storage = (like[0].path, like[1].path) if like else (next(paths), next(paths))
            return SQLiteBroker(broker), SQLiteStorage(storage)

        return make
