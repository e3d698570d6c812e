"""What all components have in common: they are bound to one application."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from qtasks.components.primitives import Capabilities
from qtasks.config import QueueConfig
from qtasks.errors import ConfigError, NotStartedError
from qtasks.manager import PluginManager


class _Unbound:
    """Stands in the class for what `bind` puts into a component. A `__getattr__` would do the same, but it makes the
    interpreter look up every attribute of a component the long way."""

    def __get__(self, component: Component | None, kind: type[Component]) -> object:
        if component is None:
            return self
        raise NotStartedError(f"{kind.__name__} is not bound: pass it to QueueTasks(...), or call bind()")


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

    if TYPE_CHECKING:
        pm: PluginManager
        config: QueueConfig
    else:
        pm = _Unbound()

        @cached_property
        def config(self) -> QueueConfig:
            # Reading the environment takes milliseconds: an application does it once, not once per component.
            return QueueConfig()

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
