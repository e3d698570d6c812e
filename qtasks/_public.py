"""The public API: `qtasks` has these names, and nothing else. They are loaded when one is first asked for."""

from qtasks import __version__
from qtasks.app import QueueTasks
from qtasks.chain import NULL, PluginCall
from qtasks.codec import decode, encode
from qtasks.components.broker import Broker, Colocated, Taker
from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Capabilities
from qtasks.components.starter import Starter
from qtasks.components.stats import InspectStats, Stats
from qtasks.components.storage import Storage
from qtasks.components.task_executor import TaskExecutor
from qtasks.components.worker import Worker
from qtasks.config import QueueConfig
from qtasks.context import TaskContext, current_task
from qtasks.errors import (
    BulkAddError,
    EncodeError,
    EnqueueUnknownError,
    PluginError,
    PluginResultError,
    QTasksError,
    QueueFullError,
    ResultTimeoutError,
    TaskCancelError,
    TaskDefer,
    TaskNotFoundError,
    TaskPluginTriggerError,
    TaskRejected,
    UuidConflictError,
)
from qtasks.manager import PluginInfo, PluginManager
from qtasks.markers import hookimpl, hookspec
from qtasks.registry import Router, TaskFunction
from qtasks.schemas import (
    ArgInfo,
    Task,
    TaskExecSchema,
    TaskPrioritySchema,
    TaskRequest,
    TaskStatusCancelSchema,
    TaskStatusEnum,
    TaskStatusErrorSchema,
    TaskStatusNewSchema,
    TaskStatusProcessSchema,
    TaskStatusSuccessSchema,
)

__all__ = [
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
