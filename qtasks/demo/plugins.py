"""The three plugins of the demo: one rewrites arguments, one replaces a result, one only listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from qtasks.components.task_executor import TaskExecutor
from qtasks.markers import hookimpl
from qtasks.schemas import TaskExecSchema, TaskPrioritySchema, TaskStatusTerminalSchema

ROOTS = "demo.roots"
"""The name in the app's global config under which each queue has the folder that it is about."""
MEASURE = "measure"

KINDS = {
    ".c": "C", ".cfg": "settings", ".css": "CSS", ".go": "Go", ".html": "HTML", ".ini": "settings", ".js": "JavaScript",
    ".json": "JSON", ".lua": "Lua", ".md": "Markdown", ".py": "Python", ".pyi": "Python", ".rs": "Rust",
    ".rst": "text", ".sh": "shell", ".sql": "SQL", ".toml": "settings", ".ts": "TypeScript", ".txt": "text",
    ".yaml": "settings", ".yml": "settings",
}  # fmt: skip


class PathsPlugin:
    """Rewrites arguments: the store keeps paths relative to the folder, the function gets absolute ones.

    The folder is read from the app's global config, so any worker process knows it.
    """

    qtasks_name = "demo-paths"

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}

    @hookimpl
    async def task_executor_args_replace(
        self,
        task_executor: TaskExecutor,
        task_func: TaskExecSchema,
        task_broker: TaskPrioritySchema,
        args: tuple[Any, ...],
    ) -> tuple[tuple[Any, ...], None] | None:
        """Puts the folder of the queue before the path."""
        if task_func.name != MEASURE or not args:
            return None
        queue = task_broker.queue
        if queue not in self._roots:
            self._roots[queue] = await task_executor.app.global_config.get(ROOTS, queue) or "."
        return (str(Path(self._roots[queue], args[0])), *args[1:]), None


class DigestPlugin:
    """Replaces a result: the digest names its algorithm, and the kind of the file is added."""

    qtasks_name = "demo-digest"

    @hookimpl
    def task_executor_run_task(
        self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, result: Any
    ) -> dict[str, Any] | None:
        """`9f86…` becomes `sha256:9f86…`."""
        if task_func.name != MEASURE:
            return None
        kind = KINDS.get(PurePath(task_broker.args[0]).suffix.lower(), "other")
        return {**result, "sha256": f"sha256:{result['sha256']}", "kind": kind}


class WatchPlugin:
    """Only listens: tells whoever shows the progress how each run of a task ended."""

    qtasks_name = "demo-watch"

    def __init__(self) -> None:
        self.on_end: Callable[[TaskPrioritySchema, TaskStatusTerminalSchema], None] | None = None

    @hookimpl
    def worker_execute_after(self, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema) -> None:
        """A run has ended, and the storage has its outcome."""
        if self.on_end is not None:
            self.on_end(task_broker, model)
