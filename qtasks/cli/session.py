"""What all commands share: the application, errors, and how results are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import Code, CommandError, clean, errors_as_exit_codes, run_async
from qtasks.cli.locate import load, spec_of
from qtasks.codec import encode
from qtasks.manager.discovery import BLOCK
from qtasks.schemas import Task

T = TypeVar("T")

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "-p", metavar="NAME | no:NAME", help="Load an installed plugin, or keep one out; may be repeated."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


class Session:
    """One call of the command line.

    Parameters:
        given: what `-A` said.
        traceback: whether errors are shown with their tracebacks.
        plugins: what `-p` said: names of installed plugins to be loaded, and `no:name` for those kept out.
    """

    def __init__(self, given: str | None, traceback: bool, plugins: Sequence[str] = ()) -> None:
        self._given = given
        self.traceback = traceback
        self.plugins = list(plugins)

    @property
    def spec(self) -> str:
        """What names the application."""
        return spec_of(self._given)

    def app(self) -> QueueTasks:
        """The application, with the plugins that `-p` asked for, and without those that it keeps out."""
        kept_out = [name.removeprefix("no:") for name in self.plugins if name.startswith("no:")]
        asked = [name for name in self.plugins if not name.startswith("no:")]
        if both := sorted({*kept_out} & {*asked}):
            raise CommandError(f"-p {both[0]} and -p no:{both[0]}: choose one", Code.USAGE)
        if kept_out:
            # Before the application is imported: a plugin that is kept out is not imported either.
            before = os.environ.get(BLOCK)
            os.environ[BLOCK] = ",".join([*([before] if before else []), *kept_out])
        app = load(self.spec)
        for name in kept_out:
            app.pm.block(name)  # where the application was imported before
        for name in asked:
            if not app.pm.has(name):
                app.pm.load_installed([name], strict=True, asked=True)
        return app

    def ask(self, question: Callable[[QueueTasks], Awaitable[T]]) -> T:
        """Opens the application, asks it something, closes it; errors become exit codes."""
        with errors_as_exit_codes(self.traceback):
            app = self.app()
            return run_async(_asked(app, question))


async def _asked(app: QueueTasks, question: Callable[[QueueTasks], Awaitable[T]]) -> T:
    async with app:
        return await question(app)


def session(context: typer.Context) -> Session:
    """The session of a command."""
    found = context.find_object(Session)
    assert found is not None
    return found


def show_json(value: Any) -> None:
    """Writes a value to stdout as one line of JSON."""
    sys.stdout.write(encode(value).decode() + "\n")
    sys.stdout.flush()


def task_dict(task: Task) -> dict[str, Any]:
    """A task as plain data."""
    bare = {name: value for name, value in _fields(task).items() if not name.startswith("_")}
    return {**bare, "uuid": str(task.uuid)}


def _fields(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in Task.__slots__ if name != "_app"}


def show_rows(title: str, columns: list[str], rows: list[list[object]], *, whole: str = "") -> None:
    """Writes a table to stdout.

    Parameters:
        whole: a column of names, which are not broken in the middle while there is room.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == whole)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)


def _cell(value: object) -> Any:
    from rich.text import Text

    return Text(clean("" if value is None else str(value)))
