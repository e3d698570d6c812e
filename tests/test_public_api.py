"""The public API: what `qtasks` exports is a decision, and importing it stays light."""

from __future__ import annotations

import json
import subprocess
import sys

import qtasks

PUBLIC = [
    "NULL",
    "ArgInfo",
    "Broker",
    "BulkAddError",
    "Capabilities",
    "Colocated",
    "EncodeError",
    "EnqueueUnknownError",
    "GlobalConfig",
    "InspectStats",
    "PluginCall",
    "PluginError",
    "PluginInfo",
    "PluginManager",
    "PluginResultError",
    "QTasksError",
    "QueueConfig",
    "QueueFullError",
    "QueueTasks",
    "ResultTimeoutError",
    "Router",
    "Starter",
    "Stats",
    "Storage",
    "Taker",
    "Task",
    "TaskCancelError",
    "TaskContext",
    "TaskDefer",
    "TaskExecSchema",
    "TaskExecutor",
    "TaskFunction",
    "TaskNotFoundError",
    "TaskPluginTriggerError",
    "TaskPrioritySchema",
    "TaskRejected",
    "TaskRequest",
    "TaskStatusCancelSchema",
    "TaskStatusEnum",
    "TaskStatusErrorSchema",
    "TaskStatusNewSchema",
    "TaskStatusProcessSchema",
    "TaskStatusSuccessSchema",
    "UuidConflictError",
    "Worker",
    "__version__",
    "current_task",
    "decode",
    "encode",
    "hookimpl",
    "hookspec",
]

HEAVY = ["aiosqlite", "hypothesis", "pytest", "redis", "rich", "sqlite3", "typer", "uvloop"]


def test_the_public_api_is_this_list() -> None:
    """A name that is added or removed is a change for users: change this list and CHANGELOG.md with it."""
    assert qtasks.__all__ == PUBLIC


def test_every_public_name_exists() -> None:
    missing = [name for name in PUBLIC if not hasattr(qtasks, name)]
    assert missing == []


def test_every_public_class_and_function_is_documented() -> None:
    bare = [name for name in PUBLIC if callable(value := getattr(qtasks, name)) and not value.__doc__]
    assert bare == []


def test_importing_qtasks_loads_no_backend_and_no_tool() -> None:
    code = "import json, sys, qtasks; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = {module.partition(".")[0] for module in json.loads(output)}
    assert sorted(loaded & set(HEAVY)) == []
    assert not {"qtasks.components.memory", "qtasks.components.sqlite", "qtasks.testing"} & set(
        json.loads(output)
    )
