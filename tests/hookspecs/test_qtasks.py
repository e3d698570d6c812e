"""The triggers of component `qtasks`: what each hands over, and the shape of what may come back."""

from __future__ import annotations

from qtasks.chain import NULL
from qtasks.schemas import TaskStatusEnum
from tests.hookspecs.firing import NOW, SUCCESS, TASK, UUID_2, but, replaces, signal

KW = {"status": TaskStatusEnum.PROCESS, "extra": {"a": 1}}
"""The sample that `firing.given` has for `kw`."""


async def test_qtasks_add_task_before_broker() -> None:
    await replaces(
        "qtasks_add_task_before_broker",
        good=[
            ({"extra": {"trace": 1}}, ("mail", 0, (1,), KW, {"trace": 1}, "default", NOW)),
            (
                {"priority": -128, "queue": "slow", "available_at": 7, "args": None},
                ("mail", -128, (1,), KW, {"a": 1}, "slow", 7.0),
            ),
        ],
        wrong=[
            {"queue": "a queue"},
            {"priority": 128},
            {"uuid": UUID_2},
            {"available_at": float("inf")},
            [("queue", "slow")],
        ],
        control=True,
        defers=True,
    )


async def test_qtasks_add_task_after_broker() -> None:
    await signal("qtasks_add_task_after_broker", goes_on=True)


async def test_qtasks_get() -> None:
    await replaces(
        "qtasks_get",
        good=[(but(TASK, returning=5), but(TASK, returning=5))],
        wrong=[but(TASK, uuid=UUID_2), NULL, {"task": TASK}, SUCCESS],
    )


async def test_qtasks_stop() -> None:
    await signal("qtasks_stop", goes_on=True)


async def test_qtasks_ping() -> None:
    await signal("qtasks_ping")


async def test_qtasks_flush_all() -> None:
    await signal("qtasks_flush_all")
