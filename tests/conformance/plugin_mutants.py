"""Plugins that are broken in one way each, and the check that must see it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

from qtasks import TaskCancelError, hookimpl

MUTANTS: dict[str, tuple[str, Callable[[], Any]]] = {}
"""The check that sees it, and what makes it, by name."""


def seen_by(check: str) -> Callable[[type], type]:
    def decorate(broken: type) -> type:
        MUTANTS[broken.__name__] = check, broken
        return broken

    return decorate


@seen_by("PLUGIN-01")
class Misspelled:
    @hookimpl
    def broker_ad_before(self, model):
        return model


@seen_by("PLUGIN-01")
class Undecorated:
    def broker_add_before(self, model):
        return model


@seen_by("PLUGIN-01")
class Idle:
    def __init__(self) -> None:
        self.nothing = True


@seen_by("PLUGIN-02")
class NewNames:
    count = 0

    @property
    def qtasks_name(self) -> str:
        NewNames.count += 1
        return f"name-{NewNames.count}"

    @hookimpl
    def broker_add_before(self, model):
        return None


@seen_by("PLUGIN-03")
class NeedsWings:
    qtasks_requires = ("wings",)

    @hookimpl
    def broker_add_before(self, model):
        return None


@seen_by("PLUGIN-04")
class BothSides:
    @hookimpl(before=("other",), after=("other",))
    def broker_add_before(self, model):
        return None


@seen_by("PLUGIN-10")
class StartsOnce:
    def __init__(self) -> None:
        self.started = False

    @hookimpl
    def broker_start(self):
        assert not self.started
        self.started = True


@seen_by("PLUGIN-10")
class StopsWhatNeverStarted:
    @hookimpl
    async def worker_start(self):
        self.lock = asyncio.Lock()

    @hookimpl
    async def broker_stop(self):
        async with self.lock:
            pass


@seen_by("PLUGIN-11")
class LeavesATask:
    @hookimpl
    async def starter_start(self):
        self.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")


@seen_by("PLUGIN-11")
class LeavesAThread:
    @hookimpl
    def starter_start(self):
        # It ends by itself some day, so that the tests do.
        self.thread = threading.Timer(8.0, print)
        self.thread.start()


@seen_by("PLUGIN-20")
class WrongKey:
    @hookimpl
    def qtasks_add_task_before_broker(self, priority):
        return {"prio": priority}


@seen_by("PLUGIN-20")
class WrongTypeSometimes:
    @hookimpl
    def broker_add_before(self, model):
        return {"not": "a model"} if len(model.args) > 1 else None


@seen_by("PLUGIN-20")
class AnotherUuid:
    @hookimpl
    def worker_run_task_before(self, task_broker):
        return {"task_broker": dataclasses.replace(task_broker, uuid=type(task_broker.uuid)(int=7))}


@seen_by("PLUGIN-21")
class TakesTextOnly:
    @hookimpl
    def task_executor_args_replace(self, args, kw):
        return tuple(arg.upper() for arg in args), None


@seen_by("PLUGIN-21")
class FailsInASignal:
    @hookimpl
    def worker_execute_after(self, model):
        return model.extra["trace_id"]


@seen_by("PLUGIN-22")
class InPlace:
    @hookimpl
    def broker_add_before(self, model):
        model.extra["seen"] = True


@seen_by("PLUGIN-22")
class DeepInPlace:
    @hookimpl
    def task_executor_args_replace(self, args):
        for arg in args:
            if isinstance(arg, dict):
                arg.clear()


@seen_by("PLUGIN-22")
class InPlaceLater:
    def __init__(self) -> None:
        self.last: Any = None

    @hookimpl
    def broker_add_before(self, model):
        if self.last is not None:
            self.last.extra["later"] = True
        self.last = model


@seen_by("PLUGIN-23")
class FiresItself:
    @hookimpl
    async def worker_add(self, worker, uuid, task_name, priority, args, kw, created_at):
        if priority < 0:
            await worker.pm.hook.worker_add(
                worker=worker,
                uuid=uuid,
                task_name=task_name,
                priority=0,
                args=args,
                kw=kw,
                created_at=created_at,
            )


@seen_by("PLUGIN-23")
class TakesOthersOut:
    @hookimpl
    def broker_add_before(self, broker):
        if broker.pm.has("kit.last"):
            broker.pm.unregister("kit.last")


@seen_by("PLUGIN-24")
class OwnExtra:
    @hookimpl
    def broker_add_before(self, model):
        return dataclasses.replace(model, extra={"mine": 1})


@seen_by("PLUGIN-24")
class WipesFields:
    @hookimpl
    def storage_update(self, kw):
        return {"kw": {"extra": kw["extra"]}}


@seen_by("PLUGIN-25")
class UsesWhatNeverCame:
    @hookimpl(wrapper=True)
    def broker_add_before(self):
        model = None
        try:
            model = yield
        finally:
            model.priority  # noqa: B018


@seen_by("PLUGIN-30")
class MixesTasks:
    @hookimpl
    async def task_executor_args_replace(self, args):
        self.args = args
        await asyncio.sleep(0)
        return self.args, None


@seen_by("PLUGIN-31")
class OneAtATime:
    def __init__(self) -> None:
        self.busy = False

    @hookimpl
    def worker_execute_before(self):
        if self.busy:
            raise TaskCancelError("busy")
        self.busy = True

    @hookimpl
    def worker_execute_after(self):
        self.busy = False


@seen_by("PLUGIN-40")
class FailsOnTheWay:
    @hookimpl
    async def worker_remove_finished_task(self, worker, task_broker):
        if (await worker.app.get(task_broker.uuid)) is not None:
            raise RuntimeError("not this one")


@seen_by("PLUGIN-41")
class KeepsTheKeyToItself:
    def __init__(self) -> None:
        self.shift = id(self) % 1000 + 1

    @hookimpl
    def broker_add_before(self, model):
        return dataclasses.replace(model, args=(self.shift, *model.args))

    @hookimpl
    def storage_get(self, result):
        if result.args and result.args[0] == self.shift:
            return dataclasses.replace(result, args=result.args[1:])
        return None


@seen_by("PLUGIN-42")
class LogsArguments:
    @hookimpl
    def worker_execute_before(self, model):
        logging.getLogger("audit").info("running %s", model.args)


@seen_by("PLUGIN-42")
class PrintsResults:
    @hookimpl
    def task_executor_run_task(self, result):
        print(result)
