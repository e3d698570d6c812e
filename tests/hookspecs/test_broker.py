"""The triggers of component `broker`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from qtasks.chain import NULL
from qtasks.schemas import TaskStatusEnum
from tests.hookspecs.firing import ERROR, NEW, NOW, SUCCESS, TASK, UUID_2, but, replaces, signal

KW = {"status": TaskStatusEnum.PROCESS, "extra": {"a": 1}}
"""The sample that `firing.given` has for `kw`."""


async def test_broker_listen_start() -> None:
    await signal("broker_listen_start")


async def test_broker_add_worker() -> None:
    await replaces(
        "broker_add_worker",
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


async def test_broker_add_before() -> None:
    await replaces(
        "broker_add_before",
        good=[(but(NEW, priority=5), but(NEW, priority=5))],
        wrong=[SUCCESS, but(NEW, priority=500), {"model": NEW}, NULL],
        control=True,
        defers=True,
    )


async def test_broker_add_after() -> None:
    await signal("broker_add_after", goes_on=True)


async def test_broker_get() -> None:
    await replaces(
        "broker_get",
        good=[(but(TASK, extra={"seen": True}), but(TASK, extra={"seen": True}))],
        wrong=[but(TASK, uuid=UUID_2), but(TASK, args=7), NULL, {"task": TASK}],
        control=True,
    )


async def test_broker_update() -> None:
    await replaces(
        "broker_update",
        good=[
            ({"priority": 5}, {**KW, "priority": 5}),
            ({"extra": {"b": 2}, "progress": None}, {**KW, "extra": {"b": 2}}),
            ({"kw": {"priority": 5}}, {"status": TaskStatusEnum.PROCESS, "priority": 5}),
            ({"status": TaskStatusEnum.PROCESS, "progress": NULL}, {**KW, "progress": None}),
        ],
        wrong=[
            {"status": TaskStatusEnum.SUCCESS},
            {"kw": {"status": "new"}},
            {"uuid": UUID_2},
            {"epoch": 3},
            {"owner": "me"},
            {"colour": "red"},
            {"priority": "high"},
            ("kw", {}),
        ],
        control=True,
    )


async def test_broker_start() -> None:
    await signal("broker_start")


async def test_broker_stop() -> None:
    await signal("broker_stop", goes_on=True)


async def test_broker_remove_finished_task() -> None:
    await replaces(
        "broker_remove_finished_task",
        good=[(but(SUCCESS, returning="sealed"), but(SUCCESS, returning="sealed")), (ERROR, ERROR)],
        wrong=[NEW, NULL, {"model": SUCCESS}],
    )


async def test_broker_running_older_tasks() -> None:
    await signal("broker_running_older_tasks")


async def test_broker_flush_all() -> None:
    await signal("broker_flush_all")
