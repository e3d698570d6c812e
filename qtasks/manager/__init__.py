"""The plugins of an application: registration, order, discovery, observers, and `pm.hook`."""

from qtasks.manager.core import PluginInfo, PluginManager
from qtasks.manager.discovery import Quarantined
from qtasks.manager.explain import ChainLink
from qtasks.manager.hook import HookRelay
from qtasks.manager.inspection import API_VERSION, PluginWarning

__all__ = [
    "API_VERSION",
    "ChainLink",
    "HookRelay",
    "PluginInfo",
    "PluginManager",
    "PluginWarning",
    "Quarantined",
]
