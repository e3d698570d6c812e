"""`qtasks run`: a worker in the foreground, or a parent of several."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from qtasks.cli import logs
from qtasks.cli.exits import Code, CommandError, errors_as_exit_codes
from qtasks.cli.processes import Family
from qtasks.cli.serve import Serving, serve
from qtasks.cli.session import Plugins, session
from qtasks.registry import check_name

LEVELS = ("debug", "info", "warning", "error", "critical")


def add_to(cli: typer.Typer) -> None:
    """Adds this command."""
    cli.command()(run)


def run(
    context: typer.Context,
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="The queues it serves, in this order.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Tasks at the same time.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes; a lost one is replaced.")] = 1,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when there is nothing left to do.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a .py file here changes.")
    ] = False,
    plugin: Plugins = None,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help=", ".join(LEVELS) + ".")] = "info",
) -> None:
    """Run the worker until SIGTERM or SIGINT; what runs may finish. A second signal ends it at once.

    Exit code 0 after a graceful end.
    """
    asked = session(context)
    with errors_as_exit_codes(asked.traceback):
        if log_level.lower() not in LEVELS:
            raise CommandError(f"--log-level is one of {', '.join(LEVELS)}, not {log_level!r}", Code.USAGE)
        names = [check_name(name.strip(), "queue name") for name in queues.split(",")] if queues else None
        asked.plugins += plugin or []
        if processes > 1 or reload:
            if asked.hand_over is not None:
                asked.hand_over(None)
            logs.set_up(log_level)
            if not reload:
                asked.app()  # a mistake is told once, here
            raise typer.Exit(Family(_command(), processes, reload=reload).run())
    (asked.hand_over or serve)(
        Serving(
            app=asked.given, plugins=asked.plugins, queues=names, concurrency=concurrency, until_idle=until_idle,
            log_level=log_level, traceback=asked.traceback,
        )
    )  # fmt: skip


def _command() -> list[str]:
    """This very command, for one process."""
    kept: list[str] = []
    args = iter(sys.argv[1:])
    for arg in args:
        if arg == "--processes":
            next(args, None)
        elif arg != "--reload" and not arg.startswith("--processes="):
            kept.append(arg)
    return [sys.executable, "-m", "qtasks", *kept]
