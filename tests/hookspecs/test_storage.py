"""The triggers of component `storage`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from qtasks.chain import NULL
from qtasks.schemas import TaskStatusEnum
from tests.hookspecs.firing import NEW, NOW, PROCESS, TASK, UUID_2, but, replaces, signal

KW = {"status": TaskStatusEnum.PROCESS, "extra": {"a": 1}}
"""The sample that `firing.given` has for `kw`."""


async def test_storage_add() -> None:
    await replaces(
        "storage_add",
        good=[({"task_status": but(NEW, kwargs={})}, but(NEW, kwargs={})), ({"task_status": None}, NEW)],
        wrong=[NEW, {"task_status": PROCESS}, {"model": NEW}, {"task_status": NULL}],
        control=True,
        defers=True,
    )


async def test_storage_get() -> None:
    await replaces(
        "storage_get",
        good=[(but(TASK, kwargs={"to": "b"}), but(TASK, kwargs={"to": "b"}))],
        wrong=[but(TASK, uuid=UUID_2), NULL, {"result": TASK}],
        control=True,
    )


async def test_storage_get_all() -> None:
    await replaces(
        "storage_get_all",
        good=[([], []), ([but(TASK, priority=5)], [but(TASK, priority=5)])],
        wrong=[TASK, [1], NULL],
    )


async def test_storage_update() -> None:
    await replaces(
        "storage_update",
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


async def test_storage_remove_finished_task() -> None:
    await signal("storage_remove_finished_task", goes_on=True)


async def test_storage_start() -> None:
    await signal("storage_start")


async def test_storage_stop() -> None:
    await signal("storage_stop", goes_on=True)


async def test_storage_add_process() -> None:
    await replaces(
        "storage_add_process",
        good=[({"task_name": "fax"}, ("fax", 0)), ({"task_name": None, "priority": 9}, ("mail", 9))],
        wrong=[{"priority": -129}, {"args": ()}, ("fax", 0)],
        control=True,
    )


async def test_storage_running_older_tasks() -> None:
    await replaces(
        "storage_running_older_tasks",
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


async def test_storage_delete_finished_tasks() -> None:
    await signal("storage_delete_finished_tasks")


async def test_storage_flush_all() -> None:
    await signal("storage_flush_all")
