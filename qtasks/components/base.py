"""What all components have in common: they are bound to one application."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from qtasks.components.primitives import Capabilities
from qtasks.config import QueueConfig
from qtasks.errors import ConfigError, NotStartedError
from qtasks.manager import PluginManager


class Component:
    """A part of an application.

    Attributes:
        capabilities: what it promises beyond the contract.
        clock: gives the current Unix time in seconds; tests put their own in its place.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self) -> None:
        self._pm: PluginManager | None = None
        self.app_name = ""
        self.config = QueueConfig()
        self.clock: Callable[[], float] = time.time

    @property
    def pm(self) -> PluginManager:
        """The plugin manager of the application that this component is bound to."""
        if self._pm is None:
            raise NotStartedError(
                f"{type(self).__name__} is not bound: pass it to QueueTasks(...), or call bind()"
            )
        return self._pm

    def bind(self, pm: PluginManager, *, app_name: str = "qtasks", config: QueueConfig | None = None) -> None:
        """Gives the component its application; done by `QueueTasks`.

        Raises:
            ConfigError: it belongs to another application already.
        """
        if self._pm is not None and self._pm is not pm:
            raise ConfigError(f"{type(self).__name__} belongs to application {self.app_name!r} already")
        self._pm = pm
        self.app_name = app_name
        if config is not None:
            self.config = config
