"""The command line. `main` imports the rest, so that SIGINT never shows a traceback, however early it comes."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Runs the command line; ends the process with its exit code."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _leave)  # nothing is open yet that would have to be closed
    from qtasks.cli.commands import cli

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # All is done by then, and what the process was asked for is known: that is its exit code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        cli(prog_name="qtasks")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if ours:
            signal.signal(signal.SIGINT, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
