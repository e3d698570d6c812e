"""The suite of a broker."""

from qtasks.testing.broker.claims import Claims
from qtasks.testing.broker.leases import Leases
from qtasks.testing.broker.lifecycle import Lifecycle
from qtasks.testing.broker.model import Model
from qtasks.testing.broker.returns import Returns
from qtasks.testing.broker.triggers import Triggers

__all__ = ["BrokerSuite"]


class BrokerSuite(Claims, Leases, Returns, Lifecycle, Triggers, Model):
    """All that a broker has to hold. Subclass it with a fixture `make_component`:

    class TestMyBroker(BrokerSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self, tmp_path):
            paths = (tmp_path / f"{n}.db" for n in itertools.count())
            return lambda like=None: MyBroker(like.path if like else next(paths))
    """
