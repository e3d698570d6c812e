"""Triggers of worker, executor, starter, stats and application that are tampered with, each with its check."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qtasks.app import QueueTasks
from qtasks.components.starter import Starter
from qtasks.components.stats import Stats
from qtasks.components.task_executor import TaskExecutor
from qtasks.components.worker import Worker
from qtasks.components.worker.run import Run
from qtasks.schemas import TaskPrioritySchema
from tests.conformance.mutants.table import component_mutant
from tests.conformance.mutants.tampering import Tamper, Tampered, dropped, ignored, twice, with_globals, wrong

_ANOTHER = TaskPrioritySchema(priority=0, uuid=UUID(int=1), name="another")

_TABLE: dict[type, list[tuple[str, Tamper, str]]] = {
    Run: [
        ("worker_execute_before", dropped, "WORKER-01"),
        ("worker_execute_before", twice, "WORKER-01"),
        ("worker_execute_before", ignored, "WORKER-21"),
        ("worker_execute_before", wrong("task_broker", _ANOTHER), "WORKER-07"),
        ("worker_run_task_before", dropped, "WORKER-01"),
        ("worker_run_task_before", twice, "WORKER-01"),
        ("worker_run_task_before", ignored, "WORKER-22"),
        ("worker_run_task_before", wrong("worker"), "WORKER-07"),
        ("worker_task_error_retry", dropped, "WORKER-02"),
        ("worker_task_error_retry", twice, "WORKER-02"),
        ("worker_task_error_retry", ignored, "WORKER-26"),
        ("worker_task_error_retry", wrong("e", ValueError("another")), "WORKER-08"),
        ("worker_task_error_retry", wrong("trace", ""), "WORKER-08"),
        ("worker_remove_finished_task", dropped, "WORKER-01"),
        ("worker_remove_finished_task", twice, "WORKER-01"),
        ("worker_remove_finished_task", ignored, "WORKER-25"),
        ("worker_remove_finished_task", wrong("task_func"), "WORKER-07"),
    ],
    Worker: [
        ("worker_add", dropped, "WORKER-01"),
        ("worker_add", twice, "WORKER-01"),
        ("worker_add", ignored, "WORKER-20"),
        ("worker_add", wrong("kw", {}), "WORKER-07"),
        ("worker_start", dropped, "WORKER-09"),
        ("worker_start", twice, "WORKER-09"),
        ("worker_start", wrong("worker"), "WORKER-09"),
        ("worker_stop", dropped, "WORKER-09"),
        ("worker_stop", twice, "WORKER-09"),
    ],
    TaskExecutor: [
        ("task_executor_middlewares_execute", dropped, "EXECUTOR-01"),
        ("task_executor_middlewares_execute", twice, "EXECUTOR-01"),
        ("task_executor_middlewares_execute", wrong("middlewares", ()), "EXECUTOR-01"),
        ("task_executor_args_replace", dropped, "EXECUTOR-01"),
        ("task_executor_args_replace", ignored, "EXECUTOR-04"),
        ("task_executor_args_replace", wrong("args_info", ()), "EXECUTOR-01"),
        ("task_executor_run_task", dropped, "EXECUTOR-02"),
        ("task_executor_run_task", twice, "EXECUTOR-02"),
        ("task_executor_run_task", ignored, "EXECUTOR-02"),
        ("task_executor_run_task_gen", dropped, "EXECUTOR-03"),
        ("task_executor_run_task_gen", ignored, "EXECUTOR-08"),
        ("task_executor_decode", dropped, "EXECUTOR-02"),
        ("task_executor_decode", ignored, "EXECUTOR-02"),
        ("task_executor_decode", wrong("task_broker", _ANOTHER), "EXECUTOR-02"),
        ("task_executor_run_task_trigger_error", dropped, "EXECUTOR-05"),
        ("task_executor_run_task_trigger_error", wrong("e", ValueError()), "EXECUTOR-05"),
    ],
    Starter: [
        ("starter_start", dropped, "STARTER-01"),
        ("starter_start", twice, "STARTER-01"),
        ("starter_stop", dropped, "STARTER-01"),
        ("starter_stop", wrong("starter"), "STARTER-01"),
        ("qtasks_stop", dropped, "STARTER-01"),
        ("qtasks_stop", twice, "STARTER-01"),
    ],
    Stats: [
        ("stats_inspect", dropped, "STATS-01"),
        ("stats_inspect", twice, "STATS-01"),
        ("stats_inspect", wrong("stats"), "STATS-01"),
    ],
    QueueTasks: [
        ("qtasks_add_task_before_broker", dropped, "APP-01"),
        ("qtasks_add_task_before_broker", twice, "APP-01"),
        ("qtasks_add_task_before_broker", ignored, "APP-02"),
        ("qtasks_add_task_before_broker", wrong("priority", 0), "APP-01"),
        ("qtasks_add_task_after_broker", dropped, "APP-01"),
        ("qtasks_add_task_after_broker", wrong("kw", {}), "APP-01"),
        ("qtasks_get", dropped, "APP-07"),
        ("qtasks_get", twice, "APP-07"),
        ("qtasks_get", ignored, "APP-08"),
        ("qtasks_ping", dropped, "APP-10"),
        ("qtasks_ping", wrong("global_config"), "APP-10"),
        ("qtasks_flush_all", dropped, "APP-11"),
        ("qtasks_flush_all", twice, "APP-11"),
    ],
}  # fmt: skip


def _broken(whole: type, trigger: str, tamper: Tamper) -> type:
    """A class whose own call of a trigger is tampered with."""
    if whole is Run:

        class BrokenRun(Run):
            def __init__(self, worker: Any, slot: Any) -> None:
                super().__init__(worker, slot)
                self.app = Tampered(self.app, trigger, tamper)

        return type("Broken", (Worker,), {"_run_one": with_globals(Worker._run_one, Run=BrokenRun)})
    if whole is QueueTasks:

        def make(self: Any, *args: Any, **kw: Any) -> None:
            QueueTasks.__init__(self, *args, **kw)
            self.pm = Tampered(self.pm, trigger, tamper)

        return type("Broken", (QueueTasks,), {"__init__": make})

    def bind(self: Any, pm: Any, **more: Any) -> None:
        whole.bind(self, pm, **more)
        self.pm = Tampered(pm, trigger, tamper)

    return type("Broken", (whole,), {"bind": bind})


for _whole, _rows in _TABLE.items():
    for _trigger, _tamper, _check in _rows:
        _fault = f"{_trigger} is {_tamper.__name__}"
        component_mutant(_fault, _check)(_broken(_whole, _trigger, _tamper))
