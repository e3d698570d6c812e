"""The worker, the executor, the starter, the stats and the application pass the conformance kit."""

from __future__ import annotations

import pytest

from qtasks import QueueTasks, Starter, Stats, TaskExecutor, Worker
from qtasks.testing import ApplicationSuite, StarterSuite, StatsSuite, TaskExecutorSuite, WorkerSuite


class TestWorker(WorkerSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return Worker


class TestTaskExecutor(TaskExecutorSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return TaskExecutor


class TestStarter(StarterSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return Starter


class TestStats(StatsSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return Stats


class TestApplication(ApplicationSuite):
    kit_version = 1

    @pytest.fixture
    def make_component(self):
        return lambda config: QueueTasks("kit", "memory://", config=config)
