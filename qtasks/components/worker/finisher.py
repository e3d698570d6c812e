"""Writes the ends of deliveries in batches, and fires the signals for those that were accepted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from qtasks.components.primitives import Outcome, Settle, SettleVerdict
from qtasks.components.worker.backoff import Backoff
from qtasks.components.worker.outcome import Ended, traceback_of, unwritable_settle
from qtasks.errors import FatalError, TransientError
from qtasks.schemas import TaskStatusEnum
from qtasks.text import one_line
from qtasks.tracing import REJECTED

if TYPE_CHECKING:
    from qtasks.components.worker.worker import Worker

log = logging.getLogger("qtasks.worker")
task_log = logging.getLogger("qtasks.task")

BATCH = 500
FULL, GATHER = 100, 0.005
"""While more and more tasks end, a settle waits until it has so many, or for so many seconds."""


class Finisher:
    """A slot is free as soon as its outcome is handed over here. Two coroutines: one settles, one fires
    the signals after a settle, so that a slow plugin there does not hold up results.

    Attributes:
        began: when the settle that is under way began (monotonic seconds).
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._ended: deque[Ended] = deque()
        self._settling: list[Ended] = []
        self._accepted: deque[Ended] = deque()
        self._traced = worker.app.tracer.runs
        self.began: float | None = None
        self._work = asyncio.Event()
        self._announce = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._ended) + len(self._settling)

    def hand_over(self, ended: Ended) -> None:
        """Takes the end of a delivery."""
        self._ended.append(ended)
        self._empty.clear()
        self._work.set()
        if len(self) > self._worker.config.max_unsettled:
            self._room.clear()

    async def room(self) -> None:
        """Returns when few enough results are unsettled."""
        await self._room.wait()

    def close_up(self) -> None:
        """The worker stops: whoever waits for room must not hold it up."""
        self._room.set()

    async def drained(self) -> None:
        """Returns when everything is written and announced."""
        await self._empty.wait()

    async def settle_forever(self) -> None:
        """Writes what is handed over; while the backend is away it tries again for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._ended:
                if self._worker.has_more:
                    await self._gather()
                count = min(len(self._ended), BATCH)
                self._settling = [self._ended.popleft() for _ in range(count)]
                verdicts = await self._settle()
                self.began = None
                for ended, verdict in zip(self._settling, verdicts, strict=True):
                    self._settled(ended, verdict)
                self._settling = []
                if len(self) <= self._worker.config.max_unsettled:
                    self._room.set()
            self._check_empty()

    async def _gather(self) -> None:
        """A settle costs a round trip, however small it is. It waits only for what ends at this very moment."""
        deadline = time.monotonic() + GATHER
        before = 0
        while before < len(self._ended) < FULL and self._worker.has_more and time.monotonic() < deadline:
            before = len(self._ended)
            await asyncio.sleep(0)

    async def _settle(self) -> list[SettleVerdict]:
        """One bad value must neither hold up the others nor end the worker, which would run it again for ever."""
        self.began = time.monotonic()
        try:
            return await self._write([ended.settle for ended in self._settling])
        except FatalError:
            raise
        except Exception as error:
            log.debug("a batch of results is written one by one", exc_info=error)
        return [await self._settle_alone(position) for position in range(len(self._settling))]

    async def _settle_alone(self, position: int) -> SettleVerdict:
        ended = self._settling[position]
        try:
            return (await self._write([ended.settle]))[0]
        except FatalError:
            raise
        except Exception as error:
            uuid = ended.settle.handle.uuid
            log.error("the outcome of task %s cannot be written, it ends in ERROR: %s", uuid, one_line(error))
            trace = traceback_of(error, self._worker.config.max_traceback)
            settle = unwritable_settle(ended.settle, trace, self._worker.clock(), self._worker.config)
        self._settling[position] = Ended(settle)
        return (await self._write([settle]))[0]

    async def _write(self, settles: list[Settle]) -> list[SettleVerdict]:
        backoff = Backoff()
        while True:
            try:
                return await self._worker.app.delivery.settle(settles)
            except TransientError as error:
                log.warning("%d results are not written yet, trying again: %s", len(settles), error)
                await backoff.wait()

    def _settled(self, ended: Ended, verdict: SettleVerdict) -> None:
        self._worker.forget(ended.settle.handle)
        part = self._traced.get(ended.settle.handle.epoch) if self._traced else None
        if verdict is SettleVerdict.REJECTED:
            log.warning(
                "task %s was settled by another worker; this result is dropped", ended.settle.handle.uuid
            )
            if part is not None:
                part.about["outcome"] = REJECTED
                self._accepted.append(Ended(ended.settle))
                self._announce.set()
            return
        if ended.settle.then:
            self._worker.wake()
        if ended.model is not None or part is not None:
            self._accepted.append(ended)
            self._announce.set()

    async def announce_forever(self) -> None:
        """Fires the signals after accepted settles, in their order."""
        while True:
            await self._announce.wait()
            self._announce.clear()
            while self._accepted:
                await (self._fire_traced if self._traced else self._fire)(self._accepted[0])
                self._accepted.popleft()
            self._check_empty()

    async def _fire_traced(self, ended: Ended) -> None:
        part = self._traced.pop(ended.settle.handle.epoch, None)
        if part is None:
            await self._fire(ended)
            return
        tracer = self._worker.app.tracer
        with tracer.recording(part):
            await self._fire(ended)
        await tracer.after(ended.settle, part)

    async def _fire(self, ended: Ended) -> None:
        settle, task_func, task_broker, model, error = ended
        if task_func is None or task_broker is None or model is None:
            return
        app, worker = self._worker.app, self._worker
        if task_log.isEnabledFor(logging.INFO):
            seconds = model.finished_at - model.started_at
            state = "retry" if settle.outcome is Outcome.RETRY else model.status.value
            level = logging.WARNING if model.status is TaskStatusEnum.ERROR else logging.INFO
            # The class alone: an error's own words may show values that plugins keep out of the stores.
            why = "" if error is None or model.status is not TaskStatusEnum.ERROR else f" ({error.__name__})"
            task_log.log(
                level, "%s %s %s%s in %.3f s", task_broker.name, settle.handle.uuid, state, why, seconds
            )
        if settle.outcome.terminal:
            await app.storage.remove_finished_task(task_broker, model)
        await app.pm.hook.worker_execute_after(
            worker=worker, task_func=task_func, task_broker=task_broker, model=model
        )

    def _check_empty(self) -> None:
        if not (self._ended or self._settling or self._accepted):
            self._empty.set()
            self._worker.progressed()
