"""The suite of a plugin, `check_plugin`, and which plugins do not commute."""

from qtasks.testing.plugin.pairs import OrderMatters, order_matters
from qtasks.testing.plugin.suite import PluginSuite, check_plugin, plugin_report

__all__ = ["OrderMatters", "PluginSuite", "check_plugin", "order_matters", "plugin_report"]
