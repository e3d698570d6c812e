"""What the checks of a plugin share: fresh stages, and how a plugin is made."""

from __future__ import annotations

from typing import Any, ClassVar

from qtasks import TaskFunction
from qtasks.testing.checks import Suite
from qtasks.testing.plugin.stage import MakePlugin, Stage


class PluginChecks(Suite):
    """The base of the checks of a plugin.

    Attributes:
        plugin_name: the name to register it under; empty lets it name itself.
        tasks: declared tasks that examples are about, in the place of those of the kit.
    """

    plugin_name: ClassVar[str] = ""
    tasks: ClassVar[tuple[TaskFunction[..., Any], ...]] = ()

    def stage(self, make_component: MakePlugin, **others: Any) -> Stage:
        """An application with a fresh plugin, and others beside it, by name.

        Parameters:
            others: those before it, in order; they are registered first.
        """
        return Stage({**others, self.plugin_name: make_component()}, self.tasks)
