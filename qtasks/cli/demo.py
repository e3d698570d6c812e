"""`qtasks demo`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qtasks.cli.exits import Code, CommandError, errors_as_exit_codes, leaving_at_once, run_async
from qtasks.cli.session import session

LIMIT = 2000


def add_to(cli: typer.Typer) -> None:
    """Adds this command."""
    cli.command()(demo)


def demo(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The folder; else the sources of qtasks itself.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: delete qtasks-demo.db first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Files at most.")] = LIMIT,
) -> None:
    """Run real tasks over the files of a folder, with three plugins at work, and see what they did.

    One task per file goes into an SQLite queue in the current folder and a worker runs them. Interrupt it and
    run it again: every file is measured exactly once. Exit code 1 if a file could not be measured.
    """
    with errors_as_exit_codes(session(context).traceback):
        root = _checked(folder)
        with leaving_at_once():
            from rich.console import Console

            from qtasks.demo.run import DemoRun, forget
            from qtasks.demo.view import View
        if fresh:
            forget()
        run = DemoRun(root, limit, View(Console()))
        code = run_async(run(), run.on_signal)
    raise typer.Exit(code)


def _checked(folder: Path | None) -> Path:
    if folder is None:
        import qtasks

        return Path(qtasks.__file__).resolve().parent
    if not folder.exists():
        raise CommandError(f"there is no folder {str(folder)!r}", Code.USAGE)
    if not folder.is_dir():
        raise CommandError(f"{str(folder)!r} is not a folder", Code.USAGE)
    return folder.resolve()
