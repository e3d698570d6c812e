"""The exit codes, and how an error becomes one line and one of them."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any, TypeVar

from qtasks.cli import leave
from qtasks.errors import BackendError, EnqueueUnknownError, QTasksError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Code(IntEnum):
    """How a command ended.

    Attributes:
        OK: done.
        FAILED: what was asked for failed: a task in ERROR, no such task, no server answers.
        USAGE: the command line is wrong, or there is no application.
        BACKEND: the store cannot be reached, or cannot work as it is.
        INTERRUPTED: SIGINT.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    BACKEND = 3
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, message: str, code: Code = Code.FAILED) -> None:
        super().__init__(message)
        self.code = code


def clean(text: str) -> str:
    """The text with control characters escaped, so that no task can write to a terminal what it likes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def complain(message: str) -> None:
    """Writes an error to stderr."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(
        f"error: {clean(message)}", style="red", markup=False, highlight=False
    )


@contextmanager
def errors_as_exit_codes(show_traceback: bool = False) -> Iterator[None]:
    """Turns what is raised inside into a line on stderr and an exit code.

    Parameters:
        show_traceback: write the traceback as well.

    Raises:
        SystemExit: something was raised.
    """
    try:
        with _handler(signal.default_int_handler, instead_of=leave):
            yield
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise SystemExit(int(Code.INTERRUPTED)) from None
    except BrokenPipeError:
        raise
    except Exception as error:
        if type(error).__module__.startswith(("click.", "typer.")):
            raise  # typer shows these itself, and takes those that end a command
        if show_traceback:
            traceback.print_exc()
        complain(_message(error))
        raise SystemExit(int(_code(error))) from None


def leaving_at_once() -> AbstractContextManager[None]:
    """Around imports that a command makes, and the making of an event loop: SIGINT ends the process at once, as
    before the command; see `main`."""
    return _handler(leave, instead_of=signal.default_int_handler)


def run_async(step: Coroutine[Any, Any, T], on_signal: Callable[[int], object] | None = None) -> T:
    """`asyncio.run`, in which a signal finds the event loop whole, whenever it comes.

    Parameters:
        step: what to run.
        on_signal: is told of SIGINT and SIGTERM; without it SIGINT cancels the step.

    Raises:
        KeyboardInterrupt: SIGINT came, and there is no `on_signal`.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        with leaving_at_once():
            return asyncio.run(_with_signals(step, on_signal))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


async def _with_signals(step: Coroutine[Any, Any, T], on_signal: Callable[[int], object] | None) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    if on_signal is None:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    else:
        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
    try:
        return await step
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, leave)


@contextmanager
def _handler(handler: Callable[[int, FrameType | None], Any], *, instead_of: object) -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not instead_of:
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _message(error: Exception) -> str:
    if isinstance(error, (CommandError, QTasksError)):
        return str(error)
    if isinstance(error, (OSError, ValueError)):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error} (--traceback shows where)"


def _code(error: Exception) -> Code:
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, (BackendError, EnqueueUnknownError)):
        return Code.BACKEND
    return Code.FAILED
