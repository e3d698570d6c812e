"""The suite of a plugin, `check_plugin`, and which plugins do not commute."""

from qtasks.testing.plugin.suite import PluginSuite, check_plugin

__all__ = ["PluginSuite", "check_plugin"]
