"""`qtasks trace`: what was fired for one task, and which plugin changed what."""

from __future__ import annotations

from typing import Annotated

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import CommandError
from qtasks.cli.session import Json, session, show_json
from qtasks.cli.tasks import Uuid
from qtasks.trace import Trace

PluginsOnly = Annotated[
    bool, typer.Option("--plugins-only", help="Leave out triggers that no plugin implements.")
]


def add_to(cli: typer.Typer) -> None:
    """Adds this command."""
    cli.command()(trace)


def trace(
    context: typer.Context, uuid: Uuid, plugins_only: PluginsOnly = False, as_json: Json = False
) -> None:
    """Show the trace of a task: every trigger that was fired for it, on the producer and on the workers, and which
    plugin changed which value.

    A task is traced if it was added with `add_task(..., trace=True)` or `qtasks add --trace`, or with QTASKS_TRACE=1.
    """

    async def question(app: QueueTasks) -> tuple[str, Trace]:
        found = await app.trace(uuid)
        if found is None:
            raise CommandError(
                f"there is no trace of {uuid}: it was not asked for (qtasks add --trace, add_task(..., trace=True), "
                "QTASKS_TRACE=1), or it has expired with its task"
            )
        (record,) = await app.storage.get_many([uuid])
        return f"{record.task_name} {uuid}: {record.status}" if record else f"{uuid}", found

    title, found = session(context).ask(question)
    if as_json:
        show_json(found.to_dict())
    else:
        show_trace(title, found, plugins_only=plugins_only)


def show_trace(title: str, found: Trace, *, plugins_only: bool) -> None:
    """Writes a trace to stdout, as a tree."""
    from rich.console import Console

    Console(highlight=False).print(found.tree(title, idle=not plugins_only))
