"""The suite of a storage."""

from qtasks.testing.storage.adding import Adding
from qtasks.testing.storage.changing import Changing
from qtasks.testing.storage.lifecycle import Lifecycle
from qtasks.testing.storage.model import Model
from qtasks.testing.storage.running import Running
from qtasks.testing.storage.scanning import Scanning
from qtasks.testing.storage.triggers import Triggers
from qtasks.testing.storage.waiting import Waiting

__all__ = ["StorageSuite"]


class StorageSuite(Adding, Running, Changing, Scanning, Waiting, Lifecycle, Triggers, Model):
    """All that a storage has to hold. Subclass it with a fixture `make_component`:

    class TestMyStorage(StorageSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self, tmp_path):
            paths = (tmp_path / f"{n}.db" for n in itertools.count())
            return lambda like=None: MyStorage(like.path if like else next(paths))
    """
