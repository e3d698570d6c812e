"""All commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from qtasks import __version__
from qtasks.cli import attempt, conformance, demo, plugins, run, tasks, top, trace
from qtasks.cli.session import Plugins, Session

EPILOG = (
    "Exit codes: 0 done; 1 what was asked for failed; 2 the command line is wrong or there is no application; "
    "3 the store cannot be reached; 130 interrupted."
)

cli = typer.Typer(
    help="qtasks: a task queue in which every step of a task's life is a declared pluggy hook.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"qtasks {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    context: typer.Context,
    app: Annotated[
        str | None,
        typer.Option(
            "-A", "--app", metavar="MODULE:APP", help="The application; also QTASKS_APP, or pyproject.toml."
        ),
    ] = None,
    plugin: Plugins = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show tracebacks of errors.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """qtasks: a task queue in which every step of a task's life is a declared pluggy hook."""
    hand_over = context.obj
    if hand_over is not None and context.invoked_subcommand != "run":
        hand_over(None)
    context.obj = Session(app, traceback, plugin or [], hand_over)


run.add_to(cli)
tasks.add_to(cli)
plugins.add_to(cli)
top.add_to(cli)
trace.add_to(cli)
attempt.add_to(cli)
demo.add_to(cli)
conformance.add_to(cli)
