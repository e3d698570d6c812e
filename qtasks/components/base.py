"""What all components have in common: they are bound to one application."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from qtasks.components.primitives import Capabilities
from qtasks.config import QueueConfig
from qtasks.errors import ConfigError, NotStartedError
from qtasks.manager import PluginManager


class Component:
    """A part of an application.

    Attributes:
        pm: the plugin manager of the application that it is bound to.
        config: the settings of that application; before it is bound, those of the environment.
        capabilities: what it promises beyond the contract.
        clock: gives the current Unix time in seconds; tests put their own in its place.
        switch_interval: seconds that a thread of this component shall wait for the interpreter lock at most while the
            event loop is busy. A process that only serves gives it to `sys.setswitchinterval`; no other does.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    switch_interval: ClassVar[float | None] = None

    def __init__(self) -> None:
        self.app_name = ""
        self.clock: Callable[[], float] = time.time

    pm: PluginManager
    config: QueueConfig

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            # Only for what is missing: `pm` is read for every trigger, and must cost no more than that.
            if name == "pm":
                raise NotStartedError(
                    f"{type(self).__name__} is not bound: pass it to QueueTasks(...), or call bind()"
                )
            if name == "config":
                # Reading the environment takes milliseconds: an application does it once, not once per component.
                self.config = QueueConfig()
                return self.config
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def bind(self, pm: PluginManager, *, app_name: str = "qtasks", config: QueueConfig | None = None) -> None:
        """Gives the component its application; done by `QueueTasks`.

        Raises:
            ConfigError: it belongs to another application already.
        """
        if self.__dict__.get("pm", pm) is not pm:
            raise ConfigError(f"{type(self).__name__} belongs to application {self.app_name!r} already")
        self.pm = pm
        self.app_name = app_name
        if config is not None:
            self.config = config
