"""The suite of a worker."""

from qtasks.testing.worker.delivering import Delivering
from qtasks.testing.worker.failing import Failing
from qtasks.testing.worker.lifecycle import Lifecycle
from qtasks.testing.worker.replacing import Replacing
from qtasks.testing.worker.stopping import Stopping
from qtasks.testing.worker.triggers import Triggers

__all__ = ["WorkerSuite"]


class WorkerSuite(Triggers, Replacing, Failing, Delivering, Stopping, Lifecycle):
    """All that a worker has to hold, whether it inherits the methods of `Worker` or has its own.

    class TestMyWorker(WorkerSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self):
            return MyWorker
    """

    slot = "worker"
