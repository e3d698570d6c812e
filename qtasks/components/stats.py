"""Stats: what the application, its queues, workers, tasks and plugins look like now."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qtasks.components.base import Component

if TYPE_CHECKING:
    from qtasks.app import QueueTasks


@dataclass(slots=True, kw_only=True)
class InspectStats:
    """One look at an application.

    Attributes:
        app: name, version, the kinds of broker and storage.
        queues: entries by queue: ready, delayed, leased.
        records: records by status, and `dead`.
        workers: signs of life, by owner.
        tasks: the declared tasks.
        plugins: the registered plugins.
        plugin_errors: how often each plugin failed, by plugin and trigger.
    """

    app: dict[str, Any]
    queues: dict[str, dict[str, int]]
    records: dict[str, int]
    workers: dict[str, dict[str, Any]]
    tasks: list[dict[str, Any]]
    plugins: list[dict[str, Any]]
    plugin_errors: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data (JSON)."""
        return asdict(self)


class Stats(Component):
    """Looks at an application."""

    app: QueueTasks

    async def inspect(self) -> InspectStats:
        """Fires `stats_inspect`, then looks."""
        from qtasks import __version__

        app = self.app
        app.starter.check_started()
        await self.pm.hook.stats_inspect(stats=self)
        errors: dict[str, dict[str, int]] = {}
        for (plugin, trigger), count in self.pm.errors.items():
            errors.setdefault(plugin, {})[trigger] = count
        return InspectStats(
            app={
                "name": app.name, "version": __version__, "broker": type(app.broker).__name__,
                "storage": type(app.storage).__name__, "global_config": type(app.global_config).__name__,
            },
            queues={name: size._asdict() for name, size in sorted((await app.broker.size()).items())},
            records=await app.storage.counts(),
            workers=await app.global_config.servers(),
            tasks=[
                {
                    "name": task.name, "queue": task.queue, "priority": task.priority, "kind": task.kind,
                    "retry": task.retry, "max_time": task.max_time, "tags": list(task.tags),
                    "description": task.description.split("\n")[0],
                }
                for task in app.tasks.values()
            ],
            plugins=[
                {"name": info.name, "distribution": info.distribution, "version": info.version}
                for info in self.pm.plugins()
            ],
            plugin_errors=errors,
        )  # fmt: skip
