"""The suite of a global config."""

from qtasks.testing.global_config.lifecycle import Lifecycle, Triggers
from qtasks.testing.global_config.model import Model
from qtasks.testing.global_config.values import Values

__all__ = ["GlobalConfigSuite"]


class GlobalConfigSuite(Values, Lifecycle, Triggers, Model):
    """All that a global config has to hold. Subclass it with a fixture `make_component`, as in `StorageSuite`."""
