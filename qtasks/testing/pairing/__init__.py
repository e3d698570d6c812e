"""The suite of a broker and a storage together: the protocol over any pairing."""

from qtasks.testing.pairing.crashes import Crashes
from qtasks.testing.pairing.steps import Steps
from qtasks.testing.pairing.verdicts import Verdicts

__all__ = ["PairingSuite"]


class PairingSuite(Steps, Verdicts, Crashes):
    """All that a pairing has to hold, co-located or split. `make_component` gives a broker and a storage:

    class TestMyPairing(PairingSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self, paths):
            def make(like=None):
                path = like[0].path if like else next(paths)
                return MyBroker(path), MyStorage(path)

            return make
    """
