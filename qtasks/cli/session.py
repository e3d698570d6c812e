"""What all commands share: the application, errors, and how results are shown."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import clean, errors_as_exit_codes, run_async
from qtasks.cli.locate import application, spec_of
from qtasks.cli.serve import Serving
from qtasks.codec import encode
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
        hand_over: takes what a worker is asked to do, or `None` for anything else, and ends this process; where it
            is missing, the worker runs here.
    """

    def __init__(
        self,
        given: str | None,
        traceback: bool,
        plugins: Sequence[str] = (),
        hand_over: Callable[[Serving | None], NoReturn] | None = None,
    ) -> None:
        self.given = given
        self.traceback = traceback
        self.plugins = list(plugins)
        self.hand_over = hand_over

    @property
    def spec(self) -> str:
        """What names the application."""
        return spec_of(self.given)

    def app(self) -> QueueTasks:
        """The application, with the plugins that `-p` asked for, and without those that it keeps out."""
        return application(self.spec, self.plugins)

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
