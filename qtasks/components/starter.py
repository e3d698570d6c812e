"""Starter: starts and stops everything in order, and listens to signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from qtasks.components.base import Component
from qtasks.components.exclusive import Exclusive
from qtasks.components.worker.backoff import Backoff
from qtasks.errors import NotStartedError, TransientError
from qtasks.options import unread_options

if TYPE_CHECKING:
    from qtasks.app import QueueTasks

T = TypeVar("T")

log = logging.getLogger("qtasks.starter")

SECOND_SIGNAL_EXIT = 130
LATE_EXIT = 1
OVERTIME = 4.5
"""Seconds after the deadline of a shutdown at which the process is ended; I10 gives it 5."""
TELLING = 0.3
"""Seconds more to say so."""
GC_THRESHOLD = 50_000


class Starter(Component):
    """Starts global config, storage, broker and worker in this order, and stops them in the reverse one.

    Plugins are stopped before the connections are closed, so that they can still use them.
    """

    app: QueueTasks

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        self._stop: asyncio.Event | None = None
        self._exclusive: Exclusive | None = None
        self._overtime: threading.Timer | None = None

    def check_started(self) -> None:
        """Raises `NotStartedError` outside `async with app:`."""
        if not self._started:
            raise NotStartedError(
                f"application {self.app_name!r} is not started: use `async with app:`, or `app.run_forever()`"
            )

    async def start(self, until: asyncio.Event | None = None) -> None:
        """Opens the backends; fires `starter_start` first, then each component's start trigger.

        Parameters:
            until: with it, a backend that is away is waited for until this is set, as a worker does: the two may be
                started in any order. Without it, the caller is told.

        Raises:
            TransientError: a backend is away.
            FatalError: a backend cannot be used.
        """
        if self._started:
            raise NotStartedError(f"application {self.app_name!r} is started already")
        app = self.app
        self.pm.bind_loop(asyncio.get_running_loop())
        try:
            await self.pm.hook.starter_start(starter=self)
            for start in (app.global_config.start, app.storage.start, partial(app.broker.start, None)):
                await self._started_by(start, until)
            # One name for all tries: one whose answer was lost may have taken the id.
            taking = partial(Exclusive.take, app, secrets.token_hex(8))
            self._exclusive = await self._started_by(taking, until)
        except BaseException:
            await self._close()
            raise
        self._started = True
        for unread in unread_options(app.tasks, self.pm):
            log.warning("%s", unread)

    async def _started_by(self, start: Callable[[], Awaitable[T]], until: asyncio.Event | None) -> T:
        backoff = Backoff()
        while True:
            try:
                return await start()
            except TransientError as error:
                if until is None or until.is_set():
                    raise
                log.warning("the backend is away, trying again: %s", error)
                await backoff.wait()

    def forget(self) -> None:
        """Takes the application for not started: what a parent process opened is not ours after a fork."""
        self._started = False
        self._stop = self._exclusive = None
        self.pm.bind_loop(None)

    async def stop(self) -> None:
        """Fires `qtasks_stop`, stops the components in reverse order, fires `starter_stop`, closes last."""
        if not self._started:
            return
        app = self.app
        try:
            await self.pm.hook.qtasks_stop(qtasks=app, starter=self)
            await app.worker.stop()
            await app.broker.stop()
            await app.storage.stop()
            await app.global_config.stop()
            await self.pm.hook.starter_stop(starter=self)
        finally:
            self._started = False
            await self._close()

    async def _close(self) -> None:
        app = self.app
        app.task_executor.close()
        if self._exclusive is not None:
            await self._exclusive.release()
            self._exclusive = None
        for component in (app.broker, app.storage, app.global_config):
            await component.close()
        self.pm.bind_loop(None)

    # --- Running the worker -----------------------------------------------------------------

    def request_stop(self) -> None:
        """Asks `serve` to finish."""
        if self._stop is not None:
            self._stop.set()

    def serve(self, *, until_idle: bool = False) -> Coroutine[Any, Any, None]:
        """Runs the worker until a stop is requested, or nothing is left to do; see `QueueTasks.serve`.

        A stop counts from this call on, also when the coroutine has not begun to run.
        """
        if self._stop is not None:
            raise NotStartedError(f"the worker of application {self.app_name!r} is running already")
        self._stop = asyncio.Event()
        return self._serve(self._stop, until_idle)

    async def _serve(self, stop: asyncio.Event, until_idle: bool) -> None:
        own = not self._started
        app = self.app
        worker = app.worker
        try:
            if own:
                try:
                    await self.start(stop)
                except TransientError:
                    if stop.is_set():
                        return
                    raise
            await worker.start()
            listening = asyncio.create_task(app.broker.listen(worker), name="qtasks-listen")
            ends: list[asyncio.Future[Any]] = [listening, asyncio.ensure_future(stop.wait()), worker.failure]
            if until_idle:
                ends.append(asyncio.create_task(worker.idle(), name="qtasks-idle"))
            try:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in done:
                    end.result()
            finally:
                await self._stop_worker(listening, ends)
        finally:
            self._stop = None
            if own:
                await self.stop()

    async def _stop_worker(self, listening: asyncio.Task[None], ends: list[asyncio.Future[Any]]) -> None:
        worker = self.app.worker
        await worker.stop()
        rest = [end for end in ends if end is not worker.failure]
        for end in rest:
            if end is not listening:
                end.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def run(self, *, until_idle: bool = False) -> None:
        """Runs the worker in the foreground; see `QueueTasks.run_forever`."""
        # Objects of the start live for ever: the collector need not look at them again, nor so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)
        parts = (self.app.broker.switch_interval, self.app.storage.switch_interval)
        if wanted := [seconds for seconds in parts if seconds is not None]:
            sys.setswitchinterval(min(*wanted, sys.getswitchinterval()))
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._run(until_idle))
        finally:
            if self._overtime is not None:
                self._overtime.cancel()

    async def _run(self, until_idle: bool) -> None:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self.serve(until_idle=until_idle)
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        if self._stop is None or self._stop.is_set():
            log.warning("second signal: exiting at once; running tasks are left to their leases")
            _flush_log()
            os._exit(SECOND_SIGNAL_EXIT)
        self._stop.set()
        # A thread: what keeps the process, a plugin, a task or the log, may keep the event loop too.
        self._overtime = threading.Timer(self.config.shutdown_timeout + OVERTIME, self._end_late)
        self._overtime.daemon = True
        self._overtime.start()
        log.info("%s: shutting down", signal.Signals(number).name)

    def _end_late(self) -> None:
        # A log that cannot be written, as whoever reads it has stopped, must not keep the process either.
        telling = threading.Thread(target=self._tell_late, daemon=True)
        telling.start()
        telling.join(TELLING)
        os._exit(LATE_EXIT)

    def _tell_late(self) -> None:
        log.error(
            "the shutdown took longer than shutdown_timeout (%g s) and %g s more: exiting at once; what still runs, a "
            "plugin in one of the stop triggers, say, is left, and a task that runs is left to its lease",
            self.config.shutdown_timeout,
            OVERTIME,
        )
        _flush_log()


def _flush_log() -> None:
    logging.shutdown()
    sys.stderr.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
