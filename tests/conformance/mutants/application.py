"""Faults of starter, stats and application, each with the check that must see it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

from qtasks.app import QueueTasks
from qtasks.components.starter import Starter
from qtasks.components.stats import Stats
from qtasks.errors import NotStartedError, PluginError, TransientError
from qtasks.producer import Producer
from qtasks.schemas import task_from_record
from tests.conformance.mutants.table import component_mutant as mutant

# --- Starter -----------------------------------------------------------------------------------------


@mutant("starts the storage before the global config", "STARTER-01")
class _(Starter):
    async def start(self):
        app = self.app
        app.global_config, app.storage = app.storage, app.global_config
        try:
            await super().start()
        finally:
            app.global_config, app.storage = app.storage, app.global_config


@mutant("stops the application with its worker", "STARTER-02")
class _(Starter):
    async def _serve(self, stop, until_idle):
        await super()._serve(stop, until_idle)
        await self.stop()


@mutant("closes before the plugins are stopped", "STARTER-03")
class _(Starter):
    async def stop(self):
        if self._started:
            await self.app.storage.close()
        await super().stop()


@mutant("starts twice", "STARTER-04")
class _(Starter):
    async def start(self):
        if not self._started:
            await super().start()


@mutant("knows not whether it is started", "STARTER-04")
class _(Starter):
    def check_started(self):
        return


@mutant("leaves open what could not start", "STARTER-05")
class _(Starter):
    async def start(self):
        close, self.__dict__["_close"] = self._close, _nothing
        try:
            await super().start()
        finally:
            self.__dict__.pop("_close")
            del close


async def _nothing():
    return


@mutant("forgets a stop that comes early", "STARTER-07")
class _(Starter):
    def serve(self, *, until_idle=False):
        return self._late(until_idle)

    async def _late(self, until_idle):
        await super().serve(until_idle=until_idle)


@mutant("cancels what runs when it is asked to stop", "STARTER-07")
class _(Starter):
    def request_stop(self):
        for slot in list(self.app.worker.__dict__.get("_slots", {}).values()):
            slot._task.cancel()
        super().request_stop()


@mutant("serves twice", "STARTER-08")
class _(Starter):
    def serve(self, *, until_idle=False):
        self._stop = None
        return super().serve(until_idle=until_idle)


@mutant("does not see a broken worker", "STARTER-09")
class _(Starter):
    async def _serve(self, stop, until_idle):
        try:
            await super()._serve(stop, until_idle)
        except Exception:
            return


@mutant("returns before it is idle", "STARTER-10")
class _(Starter):
    def serve(self, *, until_idle=False):
        found = super().serve(until_idle=until_idle)
        if until_idle:
            self._stop.set()
        return found


@mutant("holds on to its loop", "STARTER-11")
class _(Starter):
    async def start(self):
        loop = self.__dict__.setdefault("first", asyncio.get_running_loop())
        if loop is not asyncio.get_running_loop():
            raise NotStartedError("belongs to another loop")
        await super().start()


# --- Stats -------------------------------------------------------------------------------------------


@mutant("shows what is ready as delayed", "STATS-02")
class _(Stats):
    async def inspect(self):
        shown = await super().inspect()
        for size in shown.queues.values():
            size["ready"], size["delayed"] = size["delayed"], size["ready"] + 1
        return shown


@mutant("shows no worker", "STATS-03")
class _(Stats):
    async def inspect(self):
        return replace(await super().inspect(), workers={})


@mutant("counts errors before the trigger", "STATS-04")
class _(Stats):
    async def inspect(self):
        errors = {plugin: {trigger: n} for (plugin, trigger), n in self.pm.errors.items()}
        return replace(await super().inspect(), plugin_errors=errors)


@mutant("shows what JSON cannot hold", "STATS-05")
class _(Stats):
    async def inspect(self):
        shown = await super().inspect()
        return replace(shown, app={**shown.app, "self": (1,)})


@mutant("looks once", "STATS-06")
class _(Stats):
    async def inspect(self):
        found = self.__dict__.get("found")
        if found is None:
            found = self.found = await super().inspect()
        else:
            await self.pm.hook.stats_inspect(stats=self)
        return found


@mutant("looks at what is not started", "STATS-07")
class _(Stats):
    async def inspect(self):
        try:
            return await super().inspect()
        except NotStartedError:
            await self.pm.hook.stats_inspect(stats=self)
            raise


@mutant("reads a task through the plugins", "STATS-01")
class _(Stats):
    async def inspect(self):
        await self.app.get_all()
        return await super().inspect()


# --- Application -------------------------------------------------------------------------------------


def with_producer(broken: type[Producer]) -> type[QueueTasks]:
    def make(self, *args, **kw):
        QueueTasks.__init__(self, *args, **kw)
        self.producer = broken(self)

    return type("Broken", (QueueTasks,), {"__init__": make})


def producer_mutant(fault: str, check: str):
    return lambda broken: mutant(fault, check)(with_producer(broken))


@producer_mutant("loses a replaced time", "APP-02")
class _(Producer):
    async def prepare(self, request, *, replay_of=None):
        prepared = await super().prepare(request, replay_of=replay_of)
        prepared.available_at = prepared.created_at
        return prepared


@producer_mutant("stores the arguments as they were given", "APP-03")
class _(Producer):
    async def prepare(self, request, *, replay_of=None):
        prepared = await super().prepare(request, replay_of=replay_of)
        prepared.args = tuple(request.args)
        return prepared


@producer_mutant("tells of a task before it is stored", "APP-04")
class _(Producer):
    async def store(self, prepared):
        for item in prepared:
            await super().announce(item)
        return await super().store(prepared)

    async def announce(self, item):
        return self._task(item)


@producer_mutant("stores what a plugin refused", "APP-05")
class _(Producer):
    async def prepare(self, request, *, replay_of=None):
        try:
            return await super().prepare(request, replay_of=replay_of)
        except PluginError:
            app = self._app
            app.broker.__dict__["add"] = _as_it_was
            try:
                await self.store([await super().prepare(replace(request, uuid=uuid4()), replay_of=replay_of)])
            finally:
                del app.broker.__dict__["add"]
            raise


async def _as_it_was(uuid, model):
    return model


@producer_mutant("takes a repeated task for another one", "APP-20")
class _(Producer):
    async def prepare(self, request, *, replay_of=None):
        prepared = await super().prepare(request, replay_of=replay_of)
        prepared.digest = uuid4().hex
        return prepared


@producer_mutant("loses a unique key", "APP-21")
class _(Producer):
    async def prepare(self, request, *, replay_of=None):
        prepared = await super().prepare(request, replay_of=replay_of)
        prepared.unique_key = None
        return prepared


@producer_mutant("stores the first tasks of a batch that is refused", "APP-23")
class _(Producer):
    async def add(self, requests):
        found = []
        for request in requests:
            found += await super().add([request])
        return found


@producer_mutant("an unknown outcome is told as a failure", "APP-28")
class _(Producer):
    async def store(self, prepared):
        try:
            return await super().store(prepared)
        except Exception as error:
            raise TransientError("not stored") from error


@mutant("reads a missing task through the plugins", "APP-07")
class _(QueueTasks):
    async def get(self, uuid):
        found = await super().get(uuid)
        if found is None:
            await self.pm.hook.storage_get_all(storage=self.storage, results=[])
        return found


@mutant("gives a result as it is stored", "APP-08")
class _(QueueTasks):
    async def wait_result(self, uuid, timeout=None):
        return task_from_record(await self.storage.wait_settled(uuid, timeout))


@mutant("lists tasks past the plugins", "APP-09")
class _(QueueTasks):
    async def _page(self, page):
        return [task_from_record(record) for record in page.records], page.cursor


@mutant("forgets the queues in a flush", "APP-11")
class _(QueueTasks):
    async def flush_all(self):
        self.broker.__dict__["flush"] = _nothing
        try:
            await super().flush_all()
        finally:
            del self.broker.__dict__["flush"]


@mutant("passes over a plugin that fails on a read", "APP-12")
class _(QueueTasks):
    async def get(self, uuid):
        try:
            return await super().get(uuid)
        except PluginError:
            (record,) = await self.storage.get_many([uuid])
            return task_from_record(record)


@mutant("says that all could be cancelled", "APP-42")
class _(QueueTasks):
    async def cancel(self, uuid, reason=""):
        await super().cancel(uuid, reason)
        return True


@mutant("replays as often as it is asked", "APP-43")
class _(QueueTasks):
    async def replay(self, uuid):
        dead = await self.get(uuid)
        task = await self.add_task(dead.task_name, args=dead.args, kwargs=dead.kwargs, queue=dead.queue)
        return replace(task, replay_of=uuid)


@mutant("says that all was deleted", "APP-44")
class _(QueueTasks):
    async def delete(self, uuids):
        await super().delete(uuids)
        return [True for _ in uuids]


@mutant("streams from the beginning", "APP-45")
class _(QueueTasks):
    def stream(self, uuid, start=0):
        return super().stream(uuid)


@mutant("stays open when its block raises", "APP-60")
class _(QueueTasks):
    async def __aexit__(self, kind, error, trace):
        if error is None:
            await self.close()


@mutant("reads when it is not started", "APP-61")
class _(QueueTasks):
    async def get(self, uuid):
        return None


@mutant("opens twice", "APP-62")
class _(QueueTasks):
    async def open(self):
        try:
            await super().open()
        except NotStartedError:
            return


@mutant("takes one task for another", "APP-66")
class _(QueueTasks):
    def task(self, *args, **options):
        self.tasks.pop(options.get("name"), None) if hasattr(
            self.tasks, "pop"
        ) else self.tasks._declared.clear()
        return super().task(*args, **options)
