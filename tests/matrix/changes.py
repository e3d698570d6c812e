"""What the plugin under test puts in the place of the values it is given, and what does not fit there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qtasks.chain
from qtasks.schemas import TaskStatusSuccessSchema

from .table import ANY_VALUE, TRIGGERS

Change = Callable[[dict[str, Any]], Any]

ARGS, KW, EXTRA = (7,), {"k": 8}, {"e": 1}
ARGS_AND_KW = {"args": ARGS, "kwargs": KW}
SHORT_RETRY = 0.01


def _result(value: Any) -> Change:
    return lambda _: value


def _model(**changes: Any) -> Change:
    return lambda given: replace(given["model"], **changes)


def _finished(**changes: Any) -> Any:
    """A success carries the new result; what else ends stays as it is."""

    def change(given: dict[str, Any]) -> Any:
        model = given["model"]
        return replace(model, **changes) if isinstance(model, TaskStatusSuccessSchema) else model

    return change


def _use_other(given: dict[str, Any]) -> Any:
    return given["worker"].app.tasks["other"]


def _input(given: dict[str, Any]) -> dict[str, Any]:
    """All that the four triggers with the task's input may replace."""
    created = given["created_at"] - 60
    return {"task_name": "other", "priority": 5, "args": ARGS, "kw": KW, "created_at": created}


REPLACEMENTS: dict[str, Change] = {
    "qtasks_add_task_before_broker": lambda given: {
        "task_name": "other", "priority": 5, "args": ARGS, "kw": KW, "extra": EXTRA, "queue": "second",
        "available_at": given["available_at"] - 60,
    },
    "broker_add_before": _model(**ARGS_AND_KW, task_name="other", priority=5, extra=EXTRA, queue="second"),
    "storage_add": lambda given: {
        "task_status": replace(given["task_status"], **ARGS_AND_KW, priority=5, extra=EXTRA, queue="second")
    },
    "storage_add_process": _result({"task_name": "other", "priority": 5}),
    "storage_get": lambda given: _seen(given["result"]),
    "broker_get": lambda given: _seen(given["task"]),
    "storage_running_older_tasks": _input,
    "broker_add_worker": _input,
    "worker_add": _input,
    "worker_execute_before": _model(**ARGS_AND_KW, priority=5, extra=EXTRA),
    "broker_update": lambda given: {"kw": {**given["kw"], "extra": EXTRA}},
    "storage_update": lambda given: {"kw": {**given["kw"], "extra": EXTRA}},
    "worker_run_task_before": lambda given: {
        "task_func": _use_other(given),
        "task_broker": replace(given["task_broker"], **ARGS_AND_KW),
    },
    "task_executor_args_replace": _result((ARGS, KW)),
    "task_executor_run_task": _result("new"),
    "task_executor_run_task_gen": _result([9]),
    "task_executor_run_task_trigger_error": _result("rescued"),
    "task_executor_decode": _result("new"),
    "worker_task_error_retry": _model(retry_in=SHORT_RETRY),
    "worker_remove_finished_task": lambda given: {
        "task_broker": replace(given["task_broker"], priority=5),
        "model": _finished(returning="new", extra=EXTRA)(given),
    },
    "broker_remove_finished_task": _finished(returning="new", extra=EXTRA),
    "storage_get_all": lambda given: [replace(task, returning="new") for task in given["results"]],
    "qtasks_get": lambda given: replace(given["task"], returning="new"),
    "global_config_set": _result({"name": "name2", "key": "key2", "value": "new"}),
    "global_config_get": _result("new"),
    "global_config_get_all": _result({"key": "new"}),
    "global_config_get_match": _result({"name": {"key": "new"}}),
}  # fmt: skip

PARTIAL: dict[str, Change] = {
    "qtasks_add_task_before_broker": _result({"args": ARGS, "kw": None}),
    "broker_add_before": _model(args=ARGS),
    "storage_add": _result({"task_status": None}),
    "storage_add_process": _result({"priority": 5}),
    "storage_get": lambda given: replace(given["result"], args=ARGS, returning="new"),
    "broker_get": lambda given: replace(given["task"], args=ARGS, returning="new"),
    "storage_running_older_tasks": _result({"args": ARGS, "kw": None}),
    "broker_add_worker": _result({"args": ARGS, "kw": None}),
    "worker_add": _result({"args": ARGS, "kw": None}),
    "worker_execute_before": _model(args=ARGS),
    "broker_update": _result({"extra": EXTRA, "started_at": None}),
    "storage_update": _result({"extra": EXTRA, "started_at": None}),
    "worker_run_task_before": lambda given: {
        "task_func": None, "task_broker": replace(given["task_broker"], args=ARGS),
    },
    "task_executor_args_replace": _result((ARGS, None)),
    "task_executor_run_task": lambda given: {**given["result"], "more": True},
    "task_executor_run_task_gen": lambda given: given["results"][:1],
    "task_executor_run_task_trigger_error": _result(qtasks.chain.NULL),
    "task_executor_decode": lambda given: {**given["result"], "more": True},
    "worker_task_error_retry": _model(traceback="told so"),
    "worker_remove_finished_task": lambda given: {
        "task_broker": None, "model": _finished(returning="new")(given),
    },
    "broker_remove_finished_task": _finished(returning="new"),
    "storage_get_all": lambda given: given["results"][:1],
    "qtasks_get": lambda given: replace(given["task"], args=ARGS),
    "global_config_set": _result({"key": None, "value": "new"}),
    "global_config_get": _result(qtasks.chain.NULL),
    "global_config_get_all": lambda given: {**given["result"], "more": 1},
    "global_config_get_match": lambda given: {**given["result"], "more": {}},
}  # fmt: skip


def _seen(task: Any) -> Any:
    return replace(task, **ARGS_AND_KW, extra=EXTRA, returning="new")


class Unstorable:
    """A value without a JSON form."""


def wrong(trigger: str, given: dict[str, Any]) -> Any:
    """A return that does not fit the trigger's shape."""
    row = TRIGGERS[trigger]
    if trigger in ANY_VALUE:
        return Unstorable()
    if not row["replaces"]:
        return {"no_such_key": 1}
    shapes = {"mapping": {"no_such_key": 1}, "value": 42, "pair": (1, 2, 3), "kwargs": {"no_such_field": 1}}
    return shapes[row["returns"]]
