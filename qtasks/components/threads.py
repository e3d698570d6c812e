"""Daemon threads for plain functions: a function that never returns must not keep the process alive."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

_Job = tuple[contextvars.Context, Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class DaemonThreads:
    """A pool of at most `limit` daemon threads, started as they are needed.

    `concurrent.futures` is not used since the interpreter waits for its threads at exit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Runs a function in a thread, in a copy of the present context. The future is resolved on this loop;
        cancelling it does not stop the function."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            if self._idle == 0 and self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, name="qtasks-thread", daemon=True).start()
            else:
                self._idle -= 1
        self._jobs.put((contextvars.copy_context(), function, future, loop))
        return future

    def close(self) -> None:
        """Lets the threads end as they become idle."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = self._idle = 0

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            context, function, future, loop = job
            try:
                result, error = context.run(function), None
            except BaseException as raised:  # the thread must outlive whatever a task raises
                result, error = None, raised
            with self._lock:
                self._idle += 1
            try:
                loop.call_soon_threadsafe(_resolve, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del job, context, function, future, result, error


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration | KeyboardInterrupt | SystemExit):
        # A future cannot hold the first, and the others would end the worker.
        future.set_exception(RuntimeError(f"the function raised {error!r}"))
    else:
        future.set_exception(error)
