"""The triggers of component `worker`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from qtasks.chain import NULL
from qtasks.schemas import TaskStatusEnum
from tests.hookspecs.firing import (
    ERROR,
    NEW,
    NOW,
    PROCESS,
    SUCCESS,
    TASK_BROKER,
    TASK_FUNC,
    UUID_2,
    but,
    replaces,
    signal,
)

KW = {"status": TaskStatusEnum.PROCESS, "extra": {"a": 1}}
"""The sample that `firing.given` has for `kw`."""


async def test_worker_execute_before() -> None:
    await replaces(
        "worker_execute_before",
        good=[(but(PROCESS, extra={"host": "h"}), but(PROCESS, extra={"host": "h"}))],
        wrong=[NEW, NULL, {"model": PROCESS}],
        control=True,
    )


async def test_worker_execute_after() -> None:
    await signal("worker_execute_after", goes_on=True)


async def test_worker_add() -> None:
    await replaces(
        "worker_add",
        good=[
            ({"priority": 5, "args": None}, ("mail", 5, (1,), KW, NOW)),
            ({"task_name": "fax", "args": [2], "kw": {"to": "b"}}, ("fax", 0, (2,), {"to": "b"}, NOW)),
            ({"created_at": 5}, ("mail", 0, (1,), KW, 5.0)),
        ],
        wrong=[
            {"priority": 500},
            {"task_name": "no spaces"},
            {"uuid": UUID_2},
            {"kw": NULL},
            ("mail", 0),
            {"created_at": float("nan")},
        ],
        control=True,
    )


async def test_worker_start() -> None:
    await signal("worker_start")


async def test_worker_stop() -> None:
    await signal("worker_stop", goes_on=True)


async def test_worker_run_task_before() -> None:
    await replaces(
        "worker_run_task_before",
        good=[
            ({"task_func": but(TASK_FUNC, retry=3)}, (but(TASK_FUNC, retry=3), TASK_BROKER)),
            ({"task_broker": but(TASK_BROKER, args=(9,))}, (TASK_FUNC, but(TASK_BROKER, args=(9,)))),
        ],
        wrong=[{"task_broker": but(TASK_BROKER, uuid=UUID_2)}, {"task_func": print}, {"worker": None}],
        control=True,
    )


async def test_worker_task_error_retry() -> None:
    await replaces(
        "worker_task_error_retry",
        good=[(but(ERROR, retry_in=2.0), but(ERROR, retry_in=2.0))],
        wrong=[but(ERROR, retry_in=-1.0), SUCCESS, 2.0, NULL],
    )


async def test_worker_remove_finished_task() -> None:
    await replaces(
        "worker_remove_finished_task",
        good=[
            ({"model": ERROR}, (TASK_BROKER, ERROR)),
            (
                {"task_broker": but(TASK_BROKER, priority=3), "model": None},
                (but(TASK_BROKER, priority=3), SUCCESS),
            ),
        ],
        wrong=[
            {"model": NEW},
            {"task_broker": but(TASK_BROKER, uuid=UUID_2)},
            SUCCESS,
            {"task_func": TASK_FUNC},
        ],
    )
