"""The Worker component: its life, the subworkers that run what was claimed, and what others ask it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from qtasks._failpoints import hit
from qtasks.components.base import Component
from qtasks.components.primitives import DeliveryHandle, QueueSize, Settle
from qtasks.components.worker.claimer import Claimer
from qtasks.components.worker.ending import STOPPING, Ending
from qtasks.components.worker.finisher import Finisher
from qtasks.components.worker.keeper import Keeper
from qtasks.components.worker.outcome import Ended, error_model, release_settle, terminal_settle, traceback_of
from qtasks.components.worker.restorer import Restorer
from qtasks.components.worker.run import Run
from qtasks.components.worker.slot import Deadlines, Slot, Stop
from qtasks.errors import BackendError, FatalError, NotStartedError, TransientError
from qtasks.schemas import TaskRecord

if TYPE_CHECKING:
    from qtasks.app import QueueTasks

log = logging.getLogger("qtasks.worker")

Own: TypeAlias = asyncio.Task[Any] | None
"""The asyncio task of a subworker."""

TEND = 1.0
"""Seconds between two looks at cancel requests, the rate and the local queue."""
YIELD_EVERY = 16
"""Tasks that a subworker runs before it lets the others have the loop."""
STALL = 10.0
"""Seconds after which a claim or a settle without an answer is reported."""


class Worker(Component):
    """Runs the tasks of its queues.

    Parameters:
        concurrency: tasks at the same time; the default is the application's setting.
        queues: the queues it serves, in this order; the default is the application's setting.

    Attributes:
        owner: 64 random bits that name this worker in every token.
        executed: deliveries that ended here, by outcome.
        ended: runs that ended here, whatever became of them.
    """

    app: QueueTasks

    def __init__(self, concurrency: int | None = None, queues: Sequence[str] | None = None) -> None:
        super().__init__()
        self._concurrency = concurrency
        self._queues = tuple(queues) if queues is not None else None
        self.owner = secrets.token_hex(8)
        self.executed: dict[str, int] = {}
        self.ended = 0
        self.running = False

    @property
    def concurrency(self) -> int:
        """Tasks at the same time."""
        return self._concurrency or self.config.concurrency

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues it serves, in this order."""
        return self._queues or self.config.queues

    def configure(self, *, concurrency: int | None = None, queues: Sequence[str] | None = None) -> None:
        """Says what a worker that is not running shall do: what the command line was told, say.

        Parameters:
            concurrency, queues: as for the constructor; `None` leaves it as it is.
        """
        if self.running:
            raise RuntimeError("the worker is running: configure it before")
        self._concurrency = concurrency or self._concurrency
        self._queues = tuple(queues) if queues else self._queues

    # --- Lifecycle --------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts subworkers, finisher and lease keeper; fires `worker_start`.

        What claims and restores begins with `consume`, which the broker calls from `listen`.

        Raises:
            NotStartedError: it runs already.
        """
        if self.running:
            raise NotStartedError(f"the worker of application {self.app_name!r} is running already")
        self._buffer: deque[tuple[DeliveryHandle, TaskRecord]] = deque()
        # By epoch: no two deliveries of an app share one, and an integer hashes fast.
        self._held: dict[int, DeliveryHandle] = {}
        self._slots: dict[int, Slot] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._busy = 0
        self._outlived = 0
        self._solo = asyncio.Lock()
        self._alone = asyncio.Event()
        self._alone.set()
        self._work = asyncio.Event()
        self.ended = 0
        self._taken_at = 0.0
        self.started_at = self.clock()
        self.loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[None] = self.loop.create_future()
        self.deadlines = Deadlines()
        self._tracer = self.app.tracer
        self._finisher = Finisher(self)
        self._claimer = Claimer(self, self._finisher)
        self._keeper = Keeper(self)
        self.restorer = Restorer(self)
        self._subworkers = [self._spawn(self._subworker(), f"subworker-{i}") for i in range(self.concurrency)]
        self._services = [
            self._spawn(self._finisher.settle_forever(), "finisher"),
            self._spawn(self._finisher.announce_forever(), "announcer"),
        ]
        self._restoring: list[asyncio.Task[None]] = []
        self.app.delivery.hand_to(self)
        self.running = True
        await self.pm.hook.worker_start(worker=self)

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine, name=f"qtasks-{name}")
        task.add_done_callback(self._service_ended)
        return task

    def _service_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("%s died: %s", task.get_name(), error, exc_info=error)
        if not self.failure.done():
            self.failure.set_exception(error)

    async def stop(self) -> None:
        """Graceful shutdown: stop claiming, release what waits here, give running tasks until the deadline,
        stop them, release what stopped, write all results, fire `worker_stop`. The time counts from the beginning, also
        where the backend does not answer (I10)."""
        if not self.running:
            return
        ending = Ending(self.config.shutdown_timeout)
        self._claimer.close_up()
        self._work.set()
        self._finisher.close_up()
        await ending.until(ending.deadline, self._claimer.ended())
        await ending.cancel(self._restoring)
        await self._withdraw()
        self._release_buffer()
        if self._busy:
            log.info("waiting up to %.3g s for %d running tasks", self.config.shutdown_timeout, self._busy)
            await ending.until(ending.deadline, self._none_runs())
        for slot in list(self._slots.values()):
            slot.request(Stop.SHUTDOWN)
        if self._busy:
            await ending.until(ending.soon, self._none_runs())
        await ending.cancel(self._subworkers)
        for slot in self._slots.values():
            log.error("task %s %s is left behind, to run again", slot.record.task_name, slot.handle.uuid)
        await ending.until(ending.soon, self._claimer.ended())
        self._claimer.give_up()
        if not await ending.until(ending.soon, self._finisher.drained()):
            log.error(
                "%d results could not be written in time; the tasks will run again", len(self._finisher)
            )
        await ending.cancel(self._services)
        self.deadlines.close()
        await ending.until(ending.soon, self.restorer.leave())
        if not await ending.until(ending.soon, self._tell_stop()):
            plugins = ", ".join(sorted({link.plugin for link in self.pm.explain("worker_stop")}))
            log.error("worker_stop did not end in time: one of its plugins waits for too long (%s)", plugins)
        await self._keeper.close(ending.soon)
        if not self.failure.done():
            self.failure.cancel()
        elif not self.failure.cancelled():
            self.failure.exception()
        self.running = False

    async def _tell_stop(self) -> None:
        await self.pm.hook.worker_stop(worker=self)

    async def _none_runs(self) -> None:
        while self._busy:
            self._alone.clear()
            await self._alone.wait()

    # --- Claiming ---------------------------------------------------------------------------

    async def consume(self) -> None:
        """Claims, restores and tends until the worker stops."""
        if self._claimer.open:
            self._restoring = [
                self._spawn(self.restorer.sweep_forever(), "sweep"),
                self._spawn(self.restorer.reconcile_forever(), "reconciler"),
                self._spawn(self.restorer.status_forever(), "status"),
                self._spawn(self._tend(), "tend"),
            ]
        await self._claimer.claim_forever()

    @property
    def free(self) -> int:
        """Slots for which nothing is held here yet; negative when more was claimed ahead."""
        return self.concurrency - self._busy - len(self._buffer)

    @property
    def runs_alone(self) -> bool:
        """Whether a task runs alone here, or is about to: nothing else is to be claimed."""
        return self._solo.locked()

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to do here, so that a new task may be handed over without a claim."""
        return self._claimer.open and not (self._busy or self._buffer or self.runs_alone)

    def take(self, claimed: list[tuple[DeliveryHandle, TaskRecord]]) -> None:
        """Takes what was claimed, or handed over, into the local queue."""
        hit("worker.after_claim")
        for handle, _ in claimed:
            self._held[handle.epoch] = handle
        if not self._claimer.open:
            for handle, _ in claimed:
                self._release(handle)
            return
        self._buffer.extend(claimed)
        self._taken_at = time.monotonic()
        self._wake_subworker()

    async def _withdraw(self) -> None:
        """From here on nothing comes that was not claimed."""
        try:
            async with asyncio.timeout(STOPPING):
                await self.app.delivery.withdraw()
        except (BackendError, TimeoutError) as error:
            log.debug("the backend is away: what it hands over just now is left to its lease", exc_info=error)

    def _wake_subworker(self) -> None:
        """Wakes one subworker, which wakes the next one if there is more to do: tasks that never wait are run by
        a few of them, and none is woken in vain."""
        while self._idle and not self._waking:
            waiting = self._idle.popleft()
            if not waiting.done():
                waiting.set_result(None)
                self._waking = True

    def _release_buffer(self) -> None:
        while self._buffer:
            self._release(self._buffer.popleft()[0])

    def _release(self, handle: DeliveryHandle) -> None:
        self._finisher.hand_over(Ended(release_settle(handle, self.clock(), 0.0, counted=False)))

    # --- Running ----------------------------------------------------------------------------

    async def _subworker(self) -> None:
        own, done = asyncio.current_task(), 0
        while True:
            while self._buffer:
                handle, record = self._buffer.popleft()
                if self._buffer and self._idle:
                    self._wake_subworker()
                if handle.epoch not in self._held:
                    continue  # its lease was lost while it waited here
                left: Run | None = None
                if handle.deliveries > 1 and handle.deliveries >= self.config.max_deliveries - 1:
                    left = await self._run_alone(handle, record, own)
                elif self._solo.locked():
                    self._release(handle)
                else:
                    left = await self._run_one(handle, record, own)
                if left is not None and left.thread is not None:
                    self._claimer.room.set()  # one that ran alone does so no longer: it is settled
                    await self._outlive(left, left.thread)
                done += 1
                if done % YIELD_EVERY == 0:
                    self._claimer.room.set()
                    await asyncio.sleep(0)
            self._claimer.room.set()
            waiting: asyncio.Future[None] = self.loop.create_future()
            self._idle.append(waiting)
            await waiting
            self._waking = False

    async def _run_alone(self, handle: DeliveryHandle, record: TaskRecord, own: Own) -> Run | None:
        """The last two deliveries of a task run alone: if it kills its process, it buries no neighbours. So nothing
        else is held then either: what waits here is given back, its delivery returned, before the task begins."""
        if self._solo.locked():
            self._release(handle)
            return None
        async with self._solo:  # from here on nothing is claimed
            try:
                # A thread past its time may never return: it must not hold up everything that comes after it.
                while self._busy > self._outlived:
                    self._alone.clear()
                    await self._alone.wait()
                await self._claimer.answered()
                await self._withdraw()
                self._release_buffer()
                await self._finisher.drained()
            except asyncio.CancelledError:
                self._release(handle)
                raise
            log.warning(
                "task %s runs alone: delivery %d of %d",
                handle.uuid,
                handle.deliveries,
                self.config.max_deliveries,
            )
            return await self._run_one(handle, record, own)

    async def _run_one(self, handle: DeliveryHandle, record: TaskRecord, own: Own) -> Run | None:
        """Runs a delivery and hands over its end; gives the run if it leaves a thread behind."""
        slot = Slot(handle, record, own)
        self._slots[handle.epoch] = slot
        self._busy += 1
        run = Run(self, slot)
        try:
            if self._tracer.on or record.extra:
                ended = await self._tracer.run(run, handle, record)
            else:
                ended = await run()
        except asyncio.CancelledError:
            raise
        except TransientError as error:
            log.warning("task %s is put back: the backend is away: %s", handle.uuid, error)
            ended = Ended(release_settle(handle, self.clock(), 1.0, counted=False))
        except FatalError as error:
            if not self.failure.done():
                self.failure.set_exception(error)
            ended = None
        except Exception as error:
            ended = self._broken(slot, error)
        finally:
            self._slots.pop(handle.epoch, None)
            self._busy -= 1
            self.ended += 1
            if self._busy <= self._outlived:
                self._alone.set()
        if ended is None:
            self._held.pop(handle.epoch, None)
        else:
            self.executed[ended.settle.outcome] = self.executed.get(ended.settle.outcome, 0) + 1
            self._finisher.hand_over(ended)
        return run if run.thread is not None else None

    async def _outlive(self, run: Run, thread: asyncio.Future[Any]) -> None:
        self._busy += 1
        self._outlived += 1
        try:
            # The task is settled, so that the next one may be handed over, for which there need be no room.
            await self._withdraw()
            if self._outlived >= self.concurrency:
                self._release_buffer()
            await run.outlived(thread)
        finally:
            self._busy -= 1
            self._outlived -= 1
            if self._busy <= self._outlived:
                self._alone.set()

    def _broken(self, slot: Slot, error: Exception) -> Ended:
        """An error that no rule foresees must not end a subworker, and must not be retried for ever."""
        log.exception("task %s broke its run", slot.handle.uuid, exc_info=error)
        trace = traceback_of(error, self.config.max_traceback)
        model = error_model(slot.record, trace, self.clock())
        settle: Settle = terminal_settle(slot.handle, slot.record, model, self.config, dead=True)
        return Ended(settle)

    def add(
        self,
        uuid: UUID,
        task_name: str,
        priority: int,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        created_at: float,
    ) -> Coroutine[Any, Any, tuple[str, int, tuple[Any, ...], dict[str, Any], float]]:
        """Fires `worker_add`: the task takes its place in the worker."""
        return self.pm.hook.worker_add(
            worker=self,
            uuid=uuid,
            task_name=task_name,
            priority=priority,
            args=args,
            kw=kw,
            created_at=created_at,
        )

    # --- What others ask --------------------------------------------------------------------

    def held(self) -> tuple[DeliveryHandle, ...]:
        """What this worker holds and is to be renewed; called from the keeper's thread."""
        now = time.monotonic()
        overdue = {epoch for epoch, slot in self._slots.copy().items() if slot.overdue(now)}
        return tuple(handle for epoch, handle in self._held.copy().items() if epoch not in overdue)

    def lost(self, handles: Sequence[DeliveryHandle]) -> None:
        """These leases are lost: the tasks are stopped and their results dropped."""
        for handle in handles:
            slot = self._slots.get(handle.epoch)
            if slot is not None:
                slot.request(Stop.LOST)
            else:
                self._held.pop(handle.epoch, None)

    def forget(self, handle: DeliveryHandle) -> None:
        """The delivery is settled."""
        self._held.pop(handle.epoch, None)

    def cancel_running(self, uuid: UUID, reason: str) -> None:
        """Stops a task if it runs here."""
        if not self.running:
            return
        for slot in list(self._slots.values()):
            if slot.handle.uuid == uuid:
                slot.request(Stop.CANCEL, reason)

    def wake(self) -> None:
        """There may be work."""
        self._claimer.room.set()

    @property
    def has_more(self) -> bool:
        """Whether claimed tasks wait here to be run."""
        return bool(self._buffer)

    def progressed(self) -> None:
        """Lets `idle` look again."""
        self._work.set()

    async def idle(self) -> None:
        """Returns when nothing is ready, delayed or leased in the worker's queues and all is written."""
        while True:
            self._work.clear()
            if not self._busy and not self._buffer and not len(self._finisher):
                sizes = await self.app.broker.size()
                if not any(any(sizes.get(queue, QueueSize())) for queue in self.queues):
                    await self._finisher.drained()
                    return
            await self._work.wait()

    def status(self) -> dict[str, Any]:
        """What the heartbeat tells of this worker."""
        return {
            "started_at": self.started_at, "updated_at": self.clock(),
            "concurrency": self.concurrency, "queues": list(self.queues),
            "running": self._busy, "buffered": len(self._buffer), "unsettled": len(self._finisher),
            "executed": dict(self.executed),
        }  # fmt: skip

    async def _tend(self) -> None:
        """Every second: asks whether somebody wants running tasks to be cancelled, and gives back what waits
        here for too long."""
        while True:
            await asyncio.sleep(min(TEND, self.config.lease / 3))
            while self._buffer and time.monotonic() - self._taken_at > self.config.lease / 10:
                self._release(self._buffer.pop()[0])
            self._report_stalls(time.monotonic())
            slots = [slot for slot in self._slots.values() if slot.stop is None]
            if slots:
                await self._ask_for_cancels(slots)

    def _report_stalls(self, now: float) -> None:
        for what, began in (("claim", self._claimer.began), ("settle", self._finisher.began)):
            if began is not None and now - began > STALL:
                log.warning("a %s has been waiting for the backend for %.0f s", what, now - began)

    async def _ask_for_cancels(self, slots: list[Slot]) -> None:
        try:
            asked = await self.app.storage.cancel_requested_many([slot.handle.uuid for slot in slots])
            found = [slot for slot, requested in zip(slots, asked, strict=True) if requested]
            records = await self.app.storage.get_many([slot.handle.uuid for slot in found]) if found else []
        except TransientError:
            return  # the claim loop reports it
        for slot, record in zip(found, records, strict=True):
            slot.request(Stop.CANCEL, (record.cancel_reason if record else None) or "cancelled by a client")
