"""The worker of `qtasks run`. Nothing here imports what reads a command line or draws: a worker would keep it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

from qtasks.cli import logs
from qtasks.cli.exits import errors_as_exit_codes, leaving_at_once
from qtasks.cli.locate import application, spec_of

PARENT = "QTASKS_PARENT"
"""Set in the environment of a child of `--processes`, whose stdin is then a pipe that closes when the parent ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the command line asks of one worker process; plain data.

    Attributes:
        app: what `-A` said.
        plugins: what `-p` said, anywhere.
        queues, concurrency: as for `Worker`.
        until_idle: end when there is nothing left to do.
        log_level: of the loggers of qtasks.
        traceback: whether errors are shown with their tracebacks.
    """

    app: str | None
    plugins: list[str]
    queues: list[str] | None
    concurrency: int | None
    until_idle: bool
    log_level: str
    traceback: bool


def serve(asked: Serving) -> None:
    """Runs the worker until SIGTERM or SIGINT.

    Raises:
        SystemExit: it failed; the code says how.
    """
    with errors_as_exit_codes(asked.traceback):
        logs.set_up(asked.log_level)
        app = application(spec_of(asked.app), asked.plugins)
        app.worker.configure(queues=asked.queues, concurrency=asked.concurrency)
        _follow_parent()
        with leaving_at_once():
            app.run_forever(until_idle=asked.until_idle)


def _follow_parent() -> None:
    """In a child of `--processes`: stops when the parent is gone, however it went."""
    if os.environ.pop(PARENT, None) is None:
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="qtasks-parent", daemon=True).start()
