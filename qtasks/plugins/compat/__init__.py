"""compat: runs plugins that were written for QTasks 1.x, unchanged."""

from qtasks.plugins.compat.plugin import CompatPlugin
from qtasks.plugins.compat.values import BasePlugin, install_imports

__all__ = ["BasePlugin", "CompatPlugin", "install_imports"]
