"""That a replacement really took effect: in what the function was given, what is stored, and the next trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .changes import ARGS, EXTRA, KW

GIVEN = (("work", (1,), {"x": 2}), ("other", ARGS, KW))
"""What runs without and with the replacement: task, args, kwargs."""

NEXT = {
    "qtasks_add_task_before_broker": "broker_add_before",
    "broker_add_before": "storage_add",
    "storage_add": "broker_add_after",
    "storage_add_process": "storage_get",
    "storage_get": "broker_get",
    "broker_get": "broker_add_worker",
    "storage_running_older_tasks": "broker_add_worker",
    "broker_add_worker": "worker_add",
    "worker_add": "worker_execute_before",
    "worker_execute_before": "broker_update",
    "broker_update": "storage_update",
    "storage_update": "worker_run_task_before",
    "worker_run_task_before": "task_executor_args_replace",
    "task_executor_args_replace": "task_executor_run_task",
    "task_executor_run_task": "task_executor_decode",
    "task_executor_run_task_gen": "task_executor_decode",
    "task_executor_run_task_trigger_error": "task_executor_run_task",
    "task_executor_decode": "worker_remove_finished_task",
    "worker_task_error_retry": "worker_remove_finished_task",
    "worker_remove_finished_task": "broker_remove_finished_task",
    "broker_remove_finished_task": "storage_remove_finished_task",
}
"""The trigger that fires after a replacement; with `worker_task_error_retry`, after the last attempt."""

_INPUT = ("qtasks_add_task_before_broker", "broker_add_before", "storage_running_older_tasks", "broker_add_worker",
          "worker_add")  # fmt: skip


def expected_run(trigger: str, behaviour: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Task, args and kwargs of the function that runs, where the behaviour is "replaces" or "partial"."""
    name, args, kw = GIVEN[0]
    whole = behaviour == "replaces"
    if whole and trigger in (*_INPUT, "storage_add_process", "worker_run_task_before"):
        name = "other"
    takes_args = (*_INPUT, "storage_get", "broker_get", "worker_execute_before", "worker_run_task_before",
                  "task_executor_args_replace")  # fmt: skip
    if trigger in takes_args or (trigger == "storage_add" and whole):
        args = ARGS
        kw = KW if whole else kw
    return name, args, kw


def stored_changes(trigger: str, behaviour: str) -> dict[str, Any]:
    """Fields of the record, where the behaviour is "replaces" or "partial". What is replaced for the run
    alone (a decrypted argument, say) is not written back."""
    whole = behaviour == "replaces"
    base: dict[str, Any] = {"args": (1,), "kwargs": {"x": 2}, "priority": 0, "queue": "default", "extra": {}}
    producer: dict[str, Any] = {"args": ARGS, "kwargs": KW, "priority": 5, "queue": "second", "extra": EXTRA}
    match trigger:
        case "qtasks_add_task_before_broker" | "broker_add_before":
            return producer | {"task_name": "other"} if whole else base | {"args": ARGS}
        case "storage_add":
            return producer if whole else base
        case "broker_update" | "storage_update":
            return base | {"extra": EXTRA}
        case "worker_execute_before":
            return base | ({"extra": EXTRA} if whole else {})
        case "worker_remove_finished_task" | "broker_remove_finished_task":
            return base | {"returning": "new"} | ({"extra": EXTRA} if whole else {})
        case "task_executor_run_task" | "task_executor_decode":
            work = {"ran": "work", "args": [1], "kw": {"x": 2}}
            return base | {"returning": "new" if whole else work | {"more": True}}
        case "task_executor_run_task_gen":
            return base | {"returning": [9] if whole else [0]}
        case "task_executor_run_task_trigger_error":
            return base | {"returning": "rescued" if whole else None}
        case "worker_task_error_retry":
            return base | ({"returning": "second try"} if whole else {"traceback": "told so"})
    return base


Check = Callable[[dict[str, Any]], object]


def _task_input(given: dict[str, Any]) -> tuple[Any, ...]:
    """Name, priority, args and kwargs in the parameters of any trigger that has them."""
    for key in ("model", "task_status", "task", "result", "task_broker"):
        if key in given and hasattr(given[key], "args"):
            task = given[key]
            return getattr(task, "task_name", None) or task.name, task.priority, tuple(task.args), task.kwargs
    return given["task_name"], given["priority"], tuple(given["args"]), given["kw"]


def check_next(trigger: str, behaviour: str, given: dict[str, Any]) -> None:
    """The next trigger was given the replaced values."""
    name, args, kw = expected_run(trigger, behaviour)
    whole = behaviour == "replaces"
    match trigger:
        case "storage_add_process":
            assert _task_input(given) == (name, 5, args, kw)
        case "task_executor_args_replace" | "storage_update":
            assert given["task_broker"].uuid
        case "broker_update":
            assert given["kw"]["extra"] == EXTRA
            assert given["kw"]["status"] == "process"
        case "worker_execute_before":
            assert given["kw"]["extra"] == (EXTRA if whole else {})
        case "worker_run_task_before":
            assert (given["task_func"].name, tuple(given["args"]), given["kw"]) == (name, args, kw)
        case _ if trigger.startswith("task_executor_"):
            returned = given["result"] if "result" in given else given["model"].returning
            assert returned == stored_changes(trigger, behaviour)["returning"]
        case "worker_task_error_retry":
            assert given["model"].status == ("success" if whole else "error")
        case "worker_remove_finished_task" | "broker_remove_finished_task":
            assert given["model"].returning == "new"
            if trigger == "worker_remove_finished_task":
                assert given["task_broker"].priority == (5 if whole else 0)
        case _:
            at = 5 if whole and trigger not in ("storage_get", "broker_get") else 0
            assert _task_input(given) == (name, at, args, kw)
