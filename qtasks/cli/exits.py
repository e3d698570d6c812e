"""The exit codes, and how an error becomes one line and one of them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer
from rich.console import Console

from qtasks.errors import BackendError, EnqueueUnknownError, QTasksError


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
    Console(stderr=True, soft_wrap=True).print(
        f"error: {clean(message)}", style="red", markup=False, highlight=False
    )


@contextmanager
def errors_as_exit_codes(show_traceback: bool = False) -> Iterator[None]:
    """Turns what is raised inside into a line on stderr and an exit code.

    Parameters:
        show_traceback: write the traceback as well.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise typer.Exit(Code.INTERRUPTED) from None
    except BrokenPipeError:
        raise
    except Exception as error:
        if type(error).__module__.startswith(("click.", "typer.")):
            raise  # typer shows these itself
        if show_traceback:
            traceback.print_exc()
        complain(_message(error))
        raise typer.Exit(_code(error)) from None


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
