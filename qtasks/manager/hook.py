"""`pm.hook`: one async function per trigger, typed. Written by `python -m tools.relay`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qtasks.chain import Chain

if TYPE_CHECKING:
    from uuid import UUID

    from qtasks.app import QueueTasks
    from qtasks.components.broker import Broker
    from qtasks.components.global_config import GlobalConfig
    from qtasks.components.starter import Starter
    from qtasks.components.stats import Stats
    from qtasks.components.storage import Storage
    from qtasks.components.task_executor import TaskExecutor
    from qtasks.components.worker import Worker
    from qtasks.errors import TaskPluginTriggerError
    from qtasks.schemas import (
        ArgInfo,
        Priority,
        QueueName,
        Seconds,
        Task,
        TaskExecSchema,
        TaskName,
        TaskPrioritySchema,
        TaskStatusErrorSchema,
        TaskStatusNewSchema,
        TaskStatusProcessSchema,
        TaskStatusTerminalSchema,
    )


class HookRelay:
    """Fires the triggers: `await pm.hook.broker_start(broker=…, worker=…)`.

    An attribute is the compiled chain of the trigger of its name, made when it is first asked for
    and thrown away when a plugin comes or goes. So do not keep one: write `pm.hook.x(…)` each time.
    The triggers of third parties are there too; for their types, `typing.cast` this to a Protocol
    of yours.

    Parameters:
        compiled: gives the chain of a trigger; raises `KeyError` for an unknown name.
        names: gives the names of all triggers.
    """

    def __init__(self, compiled: Callable[[str], Chain], names: Callable[[], Iterable[str]]) -> None:
        self._compiled = compiled
        self._names = names
        self._made: list[str] = []

    def forget(self) -> None:
        """Throws all compiled chains away; those that run go on with what they are (rule 13)."""
        for name in self._made:
            del self.__dict__[name]
        self._made.clear()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Chain:
            """Compiles a chain; called only while the attribute is not there."""
            if name.startswith("_"):
                raise AttributeError(name)
            try:
                chain = self._compiled(name)
            except KeyError:
                from difflib import get_close_matches  # for mistakes only; every worker would keep it

                close = get_close_matches(name, self._names(), n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise AttributeError(f"there is no trigger {name!r}{hint}") from None
            self.__dict__[name] = chain
            self._made.append(name)
            return chain

    else:

        async def qtasks_add_task_before_broker(
            self,
            *,
            qtasks: QueueTasks,
            broker: Broker,
            uuid: UUID,
            task_name: TaskName,
            priority: Priority,
            args: tuple[Any, ...],
            kw: dict[str, Any],
            extra: dict[str, Any],
            queue: QueueName,
            available_at: Seconds,
        ) -> tuple[TaskName, Priority, tuple[Any, ...], dict[str, Any], dict[str, Any], QueueName, Seconds]:
            """Replaces task parameters before passing to broker."""
            raise NotImplementedError

        async def qtasks_add_task_after_broker(
            self,
            *,
            qtasks: QueueTasks,
            broker: Broker,
            task: Task,
            task_name: TaskName,
            priority: Priority,
            args: tuple[Any, ...],
            kw: dict[str, Any],
        ) -> None:
            """Called after the task is transferred to the broker."""
            raise NotImplementedError

        async def qtasks_get(self, *, qtasks: QueueTasks, broker: Broker, uuid: UUID, task: Task) -> Task:
            """Replaces the result of receiving the task."""
            raise NotImplementedError

        async def qtasks_stop(self, *, qtasks: QueueTasks, starter: Starter) -> None:
            """Called when the application is stopped."""
            raise NotImplementedError

        async def qtasks_ping(self, *, qtasks: QueueTasks, global_config: GlobalConfig) -> None:
            """Pings global_config."""
            raise NotImplementedError

        async def qtasks_flush_all(self, *, qtasks: QueueTasks, broker: Broker) -> None:
            """Resets queues and stores."""
            raise NotImplementedError

        async def broker_listen_start(self, *, broker: Broker, worker: Worker) -> None:
            """Initializes listening."""
            raise NotImplementedError

        async def broker_add_worker(
            self,
            *,
            broker: Broker,
            worker: Worker,
            uuid: UUID,
            task_name: TaskName,
            priority: Priority,
            args: tuple[Any, ...],
            kw: dict[str, Any],
            created_at: Seconds,
        ) -> tuple[TaskName, Priority, tuple[Any, ...], dict[str, Any], Seconds]:
            """Replaces the task input parameters for the worker."""
            raise NotImplementedError

        async def broker_add_before(
            self, *, broker: Broker, storage: Storage, uuid: UUID, model: TaskStatusNewSchema
        ) -> TaskStatusNewSchema:
            """Replaces the model before writing to storage."""
            raise NotImplementedError

        async def broker_add_after(
            self, *, broker: Broker, storage: Storage, uuid: UUID, model: TaskStatusNewSchema
        ) -> None:
            """Called after adding to storage."""
            raise NotImplementedError

        async def broker_get(self, *, broker: Broker, uuid: UUID, task: Task) -> Task:
            """Replaces the result of getting the task."""
            raise NotImplementedError

        async def broker_update(self, *, broker: Broker, uuid: UUID, kw: dict[str, Any]) -> dict[str, Any]:
            """Replaces kwargs when updating a task."""
            raise NotImplementedError

        async def broker_start(self, *, broker: Broker, worker: Worker | None) -> None:
            """Starts the broker."""
            raise NotImplementedError

        async def broker_stop(self, *, broker: Broker) -> None:
            """Stops the broker."""
            raise NotImplementedError

        async def broker_remove_finished_task(
            self,
            *,
            broker: Broker,
            storage: Storage,
            task_broker: TaskPrioritySchema,
            model: TaskStatusTerminalSchema,
        ) -> TaskStatusTerminalSchema:
            """Replaces the model for deleting a completed task."""
            raise NotImplementedError

        async def broker_running_older_tasks(self, *, broker: Broker, worker: Worker) -> None:
            """Called when restoring old tasks."""
            raise NotImplementedError

        async def broker_flush_all(self, *, broker: Broker) -> None:
            """Resets queues."""
            raise NotImplementedError

        async def global_config_set(
            self, *, global_config: GlobalConfig, name: str, key: str, value: Any
        ) -> tuple[str, str, Any]:
            """Replaces parameters before setting the value."""
            raise NotImplementedError

        async def global_config_get(
            self, *, global_config: GlobalConfig, name: str, key: str, result: Any
        ) -> Any:
            """Replaces the retrieved value."""
            raise NotImplementedError

        async def global_config_get_all(
            self, *, global_config: GlobalConfig, name: str, result: dict[str, Any]
        ) -> dict[str, Any]:
            """Replaces the result of obtaining all values."""
            raise NotImplementedError

        async def global_config_get_match(
            self, *, global_config: GlobalConfig, match: str, result: dict[str, dict[str, Any]]
        ) -> dict[str, dict[str, Any]]:
            """Replaces the result of searching by pattern."""
            raise NotImplementedError

        async def global_config_start(self, *, global_config: GlobalConfig) -> None:
            """Component startup."""
            raise NotImplementedError

        async def global_config_stop(self, *, global_config: GlobalConfig) -> None:
            """Stops the component."""
            raise NotImplementedError

        async def global_config_set_status(self, *, global_config: GlobalConfig) -> None:
            """Status setting signal."""
            raise NotImplementedError

        async def task_executor_args_replace(
            self,
            *,
            task_executor: TaskExecutor,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            args: tuple[Any, ...],
            kw: dict[str, Any],
            args_info: tuple[ArgInfo, ...],
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            """Replaces args and kwargs before execution."""
            raise NotImplementedError

        async def task_executor_middlewares_execute(
            self,
            *,
            task_executor: TaskExecutor,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            middlewares: tuple[Callable[..., Any], ...],
        ) -> None:
            """Called before task execution with middlewares."""
            raise NotImplementedError

        async def task_executor_run_task(
            self,
            *,
            task_executor: TaskExecutor,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            result: Any,
        ) -> Any:
            """Replaces the task execution result."""
            raise NotImplementedError

        async def task_executor_run_task_gen(
            self,
            *,
            task_executor: TaskExecutor,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            results: list[Any],
        ) -> list[Any]:
            """Replaces the generator results."""
            raise NotImplementedError

        async def task_executor_run_task_trigger_error(
            self,
            *,
            task_executor: TaskExecutor,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            e: TaskPluginTriggerError,
            result: Any,
        ) -> Any:
            """Replaces the result when TaskPluginTriggerError is raised."""
            raise NotImplementedError

        async def task_executor_decode(
            self,
            *,
            task_executor: TaskExecutor,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            result: Any,
        ) -> Any:
            """Replaces the result of decoding the result."""
            raise NotImplementedError

        async def starter_start(self, *, starter: Starter) -> None:
            """Start the Starter component."""
            raise NotImplementedError

        async def starter_stop(self, *, starter: Starter) -> None:
            """Stop the Starter component."""
            raise NotImplementedError

        async def storage_add(
            self, *, storage: Storage, uuid: UUID, task_status: TaskStatusNewSchema
        ) -> TaskStatusNewSchema:
            """Replaces parameters before adding a task."""
            raise NotImplementedError

        async def storage_get(self, *, storage: Storage, uuid: UUID, result: Task) -> Task:
            """Replaces the result of receiving a task."""
            raise NotImplementedError

        async def storage_get_all(self, *, storage: Storage, results: list[Task]) -> list[Task]:
            """Replaces the list of received tasks."""
            raise NotImplementedError

        async def storage_update(self, *, storage: Storage, uuid: UUID, kw: dict[str, Any]) -> dict[str, Any]:
            """Replaces kwargs when updating."""
            raise NotImplementedError

        async def storage_remove_finished_task(
            self, *, storage: Storage, task_broker: TaskPrioritySchema, model: TaskStatusTerminalSchema
        ) -> None:
            """Deletes a completed task."""
            raise NotImplementedError

        async def storage_start(self, *, storage: Storage) -> None:
            """Starts the component."""
            raise NotImplementedError

        async def storage_stop(self, *, storage: Storage) -> None:
            """Stops the component."""
            raise NotImplementedError

        async def storage_add_process(
            self, *, storage: Storage, uuid: UUID, task_name: TaskName, priority: Priority
        ) -> tuple[TaskName, Priority]:
            """Replaces parameters when adding to processing."""
            raise NotImplementedError

        async def storage_running_older_tasks(
            self,
            *,
            storage: Storage,
            worker: Worker,
            uuid: UUID,
            task_name: TaskName,
            priority: Priority,
            args: tuple[Any, ...],
            kw: dict[str, Any],
            created_at: Seconds,
        ) -> tuple[TaskName, Priority, tuple[Any, ...], dict[str, Any], Seconds]:
            """Replaces data when restoring tasks."""
            raise NotImplementedError

        async def storage_delete_finished_tasks(self, *, storage: Storage) -> None:
            """Clears completed tasks."""
            raise NotImplementedError

        async def storage_flush_all(self, *, storage: Storage) -> None:
            """Resets storage."""
            raise NotImplementedError

        async def worker_execute_before(
            self,
            *,
            worker: Worker,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            model: TaskStatusProcessSchema,
        ) -> TaskStatusProcessSchema:
            """Replaces the model before execution."""
            raise NotImplementedError

        async def worker_execute_after(
            self,
            *,
            worker: Worker,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            model: TaskStatusTerminalSchema,
        ) -> None:
            """Called after task execution."""
            raise NotImplementedError

        async def worker_add(
            self,
            *,
            worker: Worker,
            uuid: UUID,
            task_name: TaskName,
            priority: Priority,
            args: tuple[Any, ...],
            kw: dict[str, Any],
            created_at: Seconds,
        ) -> tuple[TaskName, Priority, tuple[Any, ...], dict[str, Any], Seconds]:
            """Replaces task creation parameters."""
            raise NotImplementedError

        async def worker_start(self, *, worker: Worker) -> None:
            """Starts the worker."""
            raise NotImplementedError

        async def worker_stop(self, *, worker: Worker) -> None:
            """Stops the worker."""
            raise NotImplementedError

        async def worker_run_task_before(
            self, *, worker: Worker, task_func: TaskExecSchema, task_broker: TaskPrioritySchema
        ) -> tuple[TaskExecSchema, TaskPrioritySchema]:
            """Replaces data before task execution."""
            raise NotImplementedError

        async def worker_task_error_retry(
            self,
            *,
            worker: Worker,
            broker: Broker,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            e: BaseException,
            trace: str,
            model: TaskStatusErrorSchema,
        ) -> TaskStatusErrorSchema:
            """Replaces TaskStatusErrorSchema on retry."""
            raise NotImplementedError

        async def worker_remove_finished_task(
            self,
            *,
            worker: Worker,
            broker: Broker,
            task_func: TaskExecSchema,
            task_broker: TaskPrioritySchema,
            model: TaskStatusTerminalSchema,
        ) -> tuple[TaskPrioritySchema, TaskStatusTerminalSchema]:
            """Replaces TaskPrioritySchema and TaskStatus... for removal from the queue."""
            raise NotImplementedError

        async def stats_inspect(self, *, stats: Stats) -> None:
            """Called before InspectStats is defined."""
            raise NotImplementedError
