"""What QTasks 1.7.3 passes to a plugin at each of its triggers, and where these triggers are in qtasks."""

from __future__ import annotations

from typing import Final

PASSED: Final = {
    "qtasks_add_task_before_broker": "qtasks broker task_name priority args kw",
    "qtasks_add_task_after_broker": "qtasks broker task_name priority args kwargs=kw",
    "qtasks_get": "qtasks broker task",
    "qtasks_stop": "qtasks starter",
    "qtasks_ping": "qtasks global_config",
    "qtasks_flush_all": "qtasks broker",
    "broker_listen_start": "broker worker",
    "broker_add_worker": "broker worker uuid task_name priority args kw created_at",
    "broker_add_before": "broker storage model",
    "broker_add_after": "broker storage model",
    "broker_get": "broker task",
    "broker_update": "broker kw",
    "broker_start": "broker worker",
    "broker_stop": "broker",
    "broker_remove_finished_task": "broker storage model",
    "broker_running_older_tasks": "broker worker",
    "broker_flush_all": "broker",
    "global_config_set": "global_config name_=name key value",
    "global_config_get": "global_config get=result",
    "global_config_get_all": "global_config get=result",
    "global_config_get_match": "global_config get=result",
    "global_config_start": "global_config",
    "global_config_stop": "global_config",
    "global_config_set_status": "global_config",
    "task_executor_args_replace": "task_executor args kw args_info",
    "task_executor_middlewares_execute": "task_executor",
    "task_executor_run_task": "task_executor result",
    "task_executor_run_task_gen": "task_executor results",
    "task_executor_run_task_trigger_error": "task_executor task_func task_broker e",
    "task_executor_decode": "task_executor result",
    "starter_start": "starter",
    "starter_stop": "starter",
    "storage_add": "storage uuid task_status",
    "storage_get": "storage result",
    "storage_get_all": "storage results",
    "storage_update": "storage kw",
    "storage_remove_finished_task": "storage task_broker model",
    "storage_start": "storage",
    "storage_stop": "storage",
    "storage_add_process": "storage",
    "storage_running_older_tasks": "storage worker",
    "storage_delete_finished_tasks": "storage",
    "storage_flush_all": "storage",
    "worker_execute_before": "worker task_broker task_func model",
    "worker_execute_after": "task_func task_broker model",
    "worker_add": "worker uuid task_name priority args kw created_at",
    "worker_start": "worker",
    "worker_stop": "worker",
    "worker_run_task_before": "worker task_func task_broker",
    "worker_task_error_retry": "broker task_func task_broker trace",
    "worker_remove_finished_task": "worker broker task_func task_broker model",
    "stats_inspect": "stats",
}
"""By trigger: the keyword arguments of 1.x. `old=new` where the parameter has another name in qtasks."""

RETURNED: Final = {("worker_add", "name"): "task_name", ("global_config_set", "name"): "name"}
"""Keys that a 1.x plugin returns under another name than it was passed."""

INSIDE: Final = {
    "task_executor_before_execute": "task_executor_args_replace",
    "task_executor_after_execute": "task_executor_run_task",
    "task_executor_after_execute_result_replace": "task_executor_run_task",
    "task_executor_task_close": "task_executor_middlewares_execute",
}
"""Triggers of 1.x that qtasks does not have, and the one at which they are called, after it or from it on."""

COMPONENTS: Final = (
    "qtasks",
    "broker",
    "storage",
    "worker",
    "task_executor",
    "starter",
    "stats",
    "global_config",
)
