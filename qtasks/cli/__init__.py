"""The command line. `main` imports the rest, so that SIGINT never shows a traceback, however early it comes."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Runs the command line; ends the process with its exit code.

    While no command is at work nothing is open that would have to be closed, so SIGINT just ends the process.
    A KeyboardInterrupt would not do: where it passes through `exec` or `eval`, as dataclasses and typer use
    them, Python ends the process by SIGINT in the end, even if it was caught and the exit code is another.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, leave)
        # All is done by then, and what the process was asked for is known: that is its exit code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        # Only where it may be a worker, the one command that stays: it does without what reads the command line.
        if "run" in sys.argv[1:]:
            from qtasks.cli.apart import serving
            from qtasks.cli.serve import serve

            if (asked := serving()) is not None:
                serve(asked)
                return
        from qtasks.cli.commands import cli

        cli(prog_name="qtasks")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if ours:
            signal.signal(signal.SIGINT, leave)


def leave(_number: int, _frame: FrameType | None) -> None:
    """Handles SIGINT while no command is at work."""
    os._exit(INTERRUPTED)
