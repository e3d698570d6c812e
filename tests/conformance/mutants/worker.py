"""Faults of the worker, each with the check that must see it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

from qtasks.components.primitives import Outcome, SettleVerdict
from qtasks.components.worker import Worker
from qtasks.components.worker.finisher import Finisher
from qtasks.components.worker.keeper import Keeper
from qtasks.components.worker.outcome import Ended, release_settle
from qtasks.components.worker.restorer import Restorer
from qtasks.components.worker.run import Run
from qtasks.components.worker.slot import Stop
from qtasks.errors import NotStartedError, PluginError, TaskDefer
from tests.conformance.mutants.table import component_mutant
from tests.conformance.mutants.tampering import with_globals


def mutant(fault: str, check: str) -> Any:
    """A broken worker, or a worker with a broken part."""

    def decorate(broken: type) -> type:
        worker = broken
        if issubclass(broken, Run):
            worker = type("Broken", (Worker,), {"_run_one": with_globals(Worker._run_one, Run=broken)})
        for part in (Finisher, Keeper, Restorer):
            if issubclass(broken, part):
                start = with_globals(Worker.start, **{part.__name__: broken})
                worker = type("Broken", (Worker,), {"start": start})
        component_mutant(fault, check)(worker)
        return broken

    return decorate


# --- Before and after the run ------------------------------------------------------------------------


@mutant("calls no method of the broker", "WORKER-01")
class _(Run):
    async def _before(self):
        broker = self.app.broker
        broker.__dict__["add_worker"] = lambda worker, *values: _given(values)
        try:
            await super()._before()
        finally:
            del broker.__dict__["add_worker"]


async def _given(values):
    return values[1:]


@mutant("a veto is a failure", "WORKER-05")
class _(Run):
    async def _controlled(self, control):
        return await self._failed(control)


@mutant("a defer costs a delivery", "WORKER-06")
class _(Run):
    async def _controlled(self, control):
        if isinstance(control, TaskDefer):
            return Ended(release_settle(self.slot.handle, self.app.clock(), control.seconds, counted=True))
        return await super()._controlled(control)


@mutant("does not write what plugins changed at the start", "WORKER-24")
class _(Run):
    async def _start_patch(self, model, seen_extra):
        patch = {"extra": model.extra, "started_at": model.started_at, "updated_at": model.updated_at}
        uuid = self.slot.handle.uuid
        await self.app.storage.update(uuid, await self.app.broker.update(uuid, patch))


@mutant("loses follow-ups", "WORKER-27")
class _(Run):
    async def _follow_ups(self, model):
        return ()


@mutant("a failing plugin costs no delivery", "WORKER-30")
class _(Run):
    async def _release_after(self, error):
        return Ended(release_settle(self.slot.handle, self.app.clock(), 0.01, counted=False))


@mutant("an unknown task is dead at once", "WORKER-38")
class _(Run):
    def _unknown(self, unknown):
        ended = self.app.config
        self.slot.record.available_at -= ended.missing_grace + 1
        return super()._unknown(unknown)


@mutant("settles what a plugin names", "WORKER-28")
class _(Run):
    async def _finish(self, model, *, dead=False):
        try:
            ended = await super()._finish(model, dead=dead)
        except PluginError:
            return None
        if ended is not None and ended.settle.outcome is Outcome.ERROR:
            settle = ended.settle
            return ended._replace(settle=replace(settle, handle=settle.handle._replace(uuid=UUID(int=1))))
        return ended


# --- Taking tasks ------------------------------------------------------------------------------------


@mutant("is idle too early", "WORKER-50")
class _(Worker):
    async def idle(self):
        return


@mutant("runs more at a time than it may", "WORKER-51")
class _(Worker):
    @property
    def concurrency(self):
        return super().concurrency * 2


@mutant("serves the last queue first", "WORKER-53")
class _(Worker):
    @property
    def queues(self):
        return tuple(reversed(super().queues))


@mutant("is configured while it runs", "WORKER-54")
class _(Worker):
    def configure(self, *, concurrency=None, queues=None):
        running, self.running = self.running, False
        super().configure(concurrency=concurrency, queues=queues)
        self.running = running


@mutant("runs the last deliveries beside others", "WORKER-55")
class _(Worker):
    async def _run_alone(self, *claimed):
        return await self._run_one(*claimed)


@mutant("never sweeps", "WORKER-11")
class _(Restorer):
    async def sweep(self):
        return


@mutant("tells of no restored task", "WORKER-11")
class _(Restorer):
    async def sweep(self):
        await self.write_off((await self._app.broker.sweep(100, self._config.max_deliveries)).buried)


@mutant("does not write burials off", "WORKER-56")
class _(Restorer):
    async def write_off(self, buried):
        return


@mutant("never reconciles", "WORKER-57")
class _(Restorer):
    async def reconcile(self, age):
        return


@mutant("shows no sign of life", "WORKER-58")
class _(Restorer):
    async def _show(self):
        return


@mutant("leaves its sign of life", "WORKER-58")
class _(Restorer):
    async def leave(self):
        return


@mutant("counts a retry and a release as runs that ended", "WORKER-59")
class _(Worker):
    async def _run_one(self, *claimed):
        run = await super()._run_one(*claimed)
        self.executed["success"] = self.executed.get("success", 0) + 1
        return run


# --- Ends --------------------------------------------------------------------------------------------


@mutant("tells of the end before it is stored", "WORKER-10")
class _(Finisher):
    async def _settle(self):
        for ended in self._settling:
            await self._fire(ended)
        return await super()._settle()

    def _settled(self, ended, verdict):
        super()._settled(Ended(ended.settle), verdict)


@mutant("tells of the end of what was rejected", "WORKER-77")
class _(Finisher):
    def _settled(self, ended, verdict):
        super()._settled(ended, SettleVerdict.ACCEPTED)


@mutant("tells the storage nothing of the end", "WORKER-01")
class _(Finisher):
    async def _fire(self, ended):
        if ended.model is not None:
            await self._worker.pm.hook.worker_execute_after(
                worker=self._worker,
                task_func=ended.task_func,
                task_broker=ended.task_broker,
                model=ended.model,
            )


@mutant("gives up when the store is away", "WORKER-36")
class _(Finisher):
    async def _write(self, settles):
        return await self._worker.app.delivery.settle(settles)


@mutant("hides what is broken", "WORKER-37")
class _(Worker):
    def _service_ended(self, task):
        if not task.cancelled():
            task.exception()


# --- Stops -------------------------------------------------------------------------------------------


@mutant("takes a cancel for a failure", "WORKER-70")
class _(Run):
    async def _stopped(self, error):
        if self.slot.stop is Stop.CANCEL:
            return await self._failed(ValueError("stopped"))
        return await super()._stopped(error)


@mutant("never asks for cancels", "WORKER-71")
class _(Worker):
    async def _ask_for_cancels(self, slots):
        return


@mutant("ends a task at its max_time for good", "WORKER-72")
class _(Run):
    def _unrepeatable(self):
        return True


@mutant("waits for nobody at shutdown", "WORKER-73")
class _(Worker):
    async def _none_runs(self):
        return


@mutant("a shutdown costs a delivery", "WORKER-74")
class _(Run):
    async def _stopped(self, error):
        if self.slot.stop is Stop.SHUTDOWN:
            return Ended(release_settle(self.slot.handle, self.app.clock(), 0.0, counted=True))
        return await super()._stopped(error)


@mutant("renews no lease", "WORKER-75")
class _(Keeper):
    def _renew(self):
        return


@mutant("ignores a lost lease", "WORKER-76")
class _(Keeper):
    def _tell(self, lost):
        return


@mutant("keeps what waits here at shutdown", "WORKER-78")
class _(Worker):
    @property
    def free(self):
        return self.config.claim_batch - len(self._buffer)

    def _release_buffer(self):
        self._buffer.clear()


@mutant("stops what does not run", "WORKER-90")
class _(Worker):
    async def stop(self):
        if self.running:
            await super().stop()
        else:
            await self.pm.hook.worker_stop(worker=self)


@mutant("runs twice", "WORKER-93")
class _(Worker):
    async def start(self):
        if not self.running:
            await super().start()


@mutant("leaves its services behind", "WORKER-94")
class _(Worker):
    async def stop(self):
        self._services = []
        await super().stop()


@mutant("belongs to its first loop", "WORKER-95")
class _(Worker):
    async def start(self):
        loop = self.__dict__.setdefault("first", asyncio.get_running_loop())
        if loop is not asyncio.get_running_loop():
            raise NotStartedError("belongs to another loop")
        await super().start()
