"""The suite of an application."""

from qtasks.testing.app.adding import Adding
from qtasks.testing.app.lifecycle import Lifecycle
from qtasks.testing.app.reading import Reading
from qtasks.testing.app.triggers import Triggers

__all__ = ["ApplicationSuite"]


class ApplicationSuite(Triggers, Adding, Reading, Lifecycle):
    """All that an application has to hold: a subclass of `QueueTasks`, or one put together of other components.

    `make_component(config)` gives a fresh application with these settings, over an empty store of its own:

    class TestMyApplication(ApplicationSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self):
            return lambda config: MyQueueTasks("mine", "memory://", config=config)
    """
