"""The suite of a task executor."""

from qtasks.testing.task_executor.running import Running
from qtasks.testing.task_executor.triggers import Triggers

__all__ = ["TaskExecutorSuite"]


class TaskExecutorSuite(Triggers, Running):
    """All that a task executor has to hold, whether it inherits the methods of `TaskExecutor` or has its own.

    class TestMyExecutor(TaskExecutorSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self):
            return MyExecutor
    """

    slot = "task_executor"
