"""Reads the command line of `qtasks run` in a process of its own, which is gone when the worker begins.

Typer and the modules of all commands are 4 MB: little for a command, but a worker would keep them for its life, and so
would each of `--processes`. The child is forked once the worker's own modules are there, so nothing is imported twice.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict
from typing import NoReturn

from qtasks.cli.serve import Serving


def serving() -> Serving | None:
    """What the command line asks one worker process to do; `None` where it asks for anything else, or where a process
    cannot be forked safely: the caller then reads it itself.

    Raises:
        SystemExit: all is said: help was shown, or the command line is wrong.
    """
    if not hasattr(os, "fork") or threading.active_count() > 1:
        return None
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _read_command_line(writer)
    os.close(writer)
    with open(reader, "rb") as told:
        answer = told.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answer:
        sys.exit(code if code >= 0 else 128 - code)
    asked = json.loads(answer)
    return None if asked is None else Serving(**asked)


def _read_command_line(writer: int) -> NoReturn:
    def tell(asked: Serving | None) -> NoReturn:
        with suppress(BrokenPipeError), open(writer, "w") as pipe:
            json.dump(None if asked is None else asdict(asked), pipe)
        raise SystemExit

    code = 1
    try:
        from qtasks.cli.commands import cli

        cli(prog_name="qtasks", obj=tell)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        # Whatever called `main` must not be left a second time.
        os._exit(code)
