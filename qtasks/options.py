"""Options of plugins in the declarations of tasks, and those that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, get_args, get_origin

from qtasks.manager import PluginManager
from qtasks.schemas import TaskExecSchema


def unread_options(tasks: Mapping[str, TaskExecSchema], pm: PluginManager) -> Iterator[str]:
    """A sentence for each option whose plugin is not registered: the class of the option's value names the plugin in
    `qtasks_plugin`. One that is kept out on purpose is no mistake.
    """
    known = {*pm.blocked()}
    for info in pm.plugins():
        known |= {info.name, getattr(info.plugin, "qtasks_name", info.name)}
    for name, declared in tasks.items():
        for option, value in _options(declared):
            plugin = getattr(type(value), "qtasks_plugin", None)
            if isinstance(plugin, str) and plugin not in known:
                yield (
                    f"task {name!r} declares {option} ({type(value).__name__}), which does nothing here: the plugin "
                    f"{plugin!r}, which reads it, is not registered"
                )


def _options(declared: TaskExecSchema) -> Iterator[tuple[str, object]]:
    for key, value in declared.extra.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            yield f"extra[{key!r}]", each
    for info in declared.args_info:
        if get_origin(info.annotation) is Annotated:
            for each in get_args(info.annotation)[1:]:
                yield f"the parameter {info.name!r}", each
