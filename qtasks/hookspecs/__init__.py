"""All triggers of qtasks, one module a component; each trigger is one documented function.

The parameters, what may be replaced and in which shape are those of the Plugin Trigger Reference
Guide. The rules that all triggers obey are in `qtasks.chain`.
"""

from types import ModuleType

from qtasks.hookspecs import (
    broker,
    global_config,
    qtasks,
    starter,
    stats,
    storage,
    task_executor,
    worker,
)

MODULES: tuple[ModuleType, ...] = (
    qtasks,
    broker,
    global_config,
    task_executor,
    starter,
    storage,
    worker,
    stats,
)
"""The modules, in the order of the reference guide."""

__all__ = ["MODULES"]
