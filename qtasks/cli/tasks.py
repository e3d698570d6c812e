"""Commands about tasks: add, get, cancel, ping, stats, dead, flush."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Annotated, Any
from uuid import UUID

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import Code, CommandError, clean
from qtasks.cli.locate import load, spec_of
from qtasks.cli.session import Json, session, show_json, show_rows, task_dict
from qtasks.components.stats import InspectStats
from qtasks.schemas import Task, TaskStatusEnum


def complete_task(context: typer.Context, incomplete: str) -> list[str]:
    """Names of declared tasks that begin like this, for the shell's completion."""
    given = context.parent.params.get("app") if context.parent else None
    try:
        return [name for name in load(spec_of(given)).tasks if name.startswith(incomplete)]
    except CommandError:
        return []


Uuid = Annotated[UUID, typer.Argument(metavar="UUID", help="The uuid of the task.")]
TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="The name of the task.", autocompletion=complete_task)
]
Args = Annotated[
    list[str] | None, typer.Argument(metavar="[ARG]...", help="Its arguments: JSON, or else text.")
]
Keywords = Annotated[
    list[str] | None,
    typer.Option("-k", "--kw", metavar="NAME=VALUE", help="A keyword argument; may be repeated."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(cli: typer.Typer) -> None:
    """Adds these commands."""
    for command in (add, get, cancel, ping, stats, flush):
        cli.command()(command)
    dead = typer.Typer(help="Dead letters: list, replay, purge.", no_args_is_help=True)
    dead.command("list")(dead_list)
    dead.command("replay")(dead_replay)
    dead.command("purge")(dead_purge)
    cli.add_typer(dead, name="dead")


def add(
    context: typer.Context,
    task: TaskName,
    args: Args = None,
    kw: Keywords = None,
    queue: Annotated[str | None, typer.Option(help="The queue; else the one that the task declares.")] = None,
    priority: Annotated[int | None, typer.Option(help="Lower runs first, -128 to 127.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds before it may run.")] = None,
    uuid: Annotated[
        UUID | None, typer.Option(help="Its uuid; adding the same task twice with it is harmless.")
    ] = None,
    unique_key: Annotated[str | None, typer.Option(help="At most one open task has it.")] = None,
    wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Wait for the result this long.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Record what is fired for it; see qtasks trace.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a task to the queue."""
    kwargs = dict(_pair(item) for item in kw or ())

    async def question(app: QueueTasks) -> Task:
        if task not in app.tasks:
            typer.echo(_undeclared(task, list(app.tasks)), err=True)
        return await app.add_task(
            task, args=[_value(arg) for arg in args or ()], kwargs=kwargs, queue=queue, priority=priority,
            delay=delay, uuid=uuid, unique_key=unique_key, timeout=wait, trace=trace or None,
        )  # fmt: skip

    added = session(context).ask(question)
    if as_json:
        show_json(task_dict(added))
    elif wait is None:
        typer.echo(str(added.uuid))
    else:
        _show_task(added)
    _exit_with(added)


def get(
    context: typer.Context,
    uuid: Uuid,
    wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Wait for the result this long.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a task."""

    async def question(app: QueueTasks) -> Task:
        task = await app.get(uuid) if wait is None else await app.wait_result(uuid, wait)
        if task is None:
            raise CommandError(f"no task has the uuid {uuid}: it was never added, or its result has expired")
        return task

    task = session(context).ask(question)
    if as_json:
        show_json(task_dict(task))
    else:
        _show_task(task)
    if wait is not None:
        _exit_with(task)


def cancel(
    context: typer.Context,
    uuid: Uuid,
    reason: Annotated[str, typer.Option(help="Why; stored with the task.")] = "cancelled on the command line",
    as_json: Json = False,
) -> None:
    """Cancel a task: at once while it waits, soon while it runs. Exit code 1 if it had finished already."""

    async def question(app: QueueTasks) -> bool:
        return await app.cancel(uuid, reason)

    done = session(context).ask(question)
    if as_json:
        show_json({"uuid": str(uuid), "cancelled": done})
    else:
        typer.echo("cancelled, or will be soon" if done else "it had finished already")
    raise typer.Exit(Code.OK if done else Code.FAILED)


def ping(context: typer.Context, as_json: Json = False) -> None:
    """Whether a worker of the application is alive. Exit code 1 if none is."""

    async def question(app: QueueTasks) -> bool:
        return await app.ping()

    alive = session(context).ask(question)
    if as_json:
        show_json({"alive": alive})
    else:
        typer.echo("pong" if alive else "no worker answers")
    raise typer.Exit(Code.OK if alive else Code.FAILED)


def flush(context: typer.Context, yes: Yes = False, as_json: Json = False) -> None:
    """Forget all tasks of the application, and nothing else."""
    if not yes:
        typer.confirm("Delete all tasks of this application, waiting ones and results?", abort=True)

    async def question(app: QueueTasks) -> str:
        await app.flush_all()
        return app.name

    name = session(context).ask(question)
    if as_json:
        show_json({"flushed": name})
    else:
        typer.echo(f"all tasks of {name!r} are gone")


# --- Stats ----------------------------------------------------------------------------------------


def stats(context: typer.Context, as_json: Json = False) -> None:
    """Queues, workers, tasks and plugins, as they are now."""

    async def question(app: QueueTasks) -> InspectStats:
        return await app.stats.inspect()

    found = session(context).ask(question)
    if as_json:
        show_json(found.to_dict())
        return
    app = found.app
    typer.echo(
        f"{app['name']}: {app['broker']}, {app['storage']}, {app['global_config']}, qtasks {app['version']}"
    )
    show_rows("records", ["status", "tasks"], [[status, count] for status, count in found.records.items()])
    show_rows(
        "queues", ["queue", "ready", "delayed", "leased"],
        [[name, size["ready"], size["delayed"], size["leased"]] for name, size in found.queues.items()],
    )  # fmt: skip
    show_rows(
        "workers", ["worker", "queues", "running", "slots", "ended"],
        [
            [owner, ", ".join(w["queues"]), w["running"], w["concurrency"], _counts(w["executed"])]
            for owner, w in found.workers.items()
        ],
    )  # fmt: skip
    show_rows(
        "tasks", ["task", "queue", "kind", "retry", "description"],
        [[t["name"], t["queue"], t["kind"], t["retry"], t["description"]] for t in found.tasks],
    )  # fmt: skip
    show_rows(
        "plugins", ["plugin", "from", "errors"],
        [
            [p["name"], p["distribution"] or "the application", _counts(found.plugin_errors.get(p["name"], {}))]
            for p in found.plugins
        ],
    )  # fmt: skip


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


# --- Dead letters ---------------------------------------------------------------------------------


def dead_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Tasks at most.")] = 100,
    as_json: Json = False,
) -> None:
    """List tasks that failed for good, newest first."""
    found = session(context).ask(lambda app: _dead(app, limit))
    if as_json:
        show_json([task_dict(task) for task in found])
        return
    show_rows(
        f"{len(found)} dead letters", ["uuid", "task", "failed", "because"],
        [[task.uuid, task.task_name, task.finished_at, _last_line(task.traceback)] for task in found],
    )  # fmt: skip


def dead_replay(
    context: typer.Context,
    uuids: Annotated[list[UUID] | None, typer.Argument(metavar="[UUID]...")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: Json = False,
) -> None:
    """Add dead letters again, as new tasks."""
    _one_of(uuids, all_)

    async def question(app: QueueTasks) -> dict[str, str]:
        wanted = uuids or [task.uuid for task in await _dead(app)]
        return {str(uuid): str((await app.replay(uuid)).uuid) for uuid in wanted}

    replayed = session(context).ask(question)
    if as_json:
        show_json(replayed)
        return
    for old, new in replayed.items():
        typer.echo(f"{old} runs again as {new}")


def dead_purge(
    context: typer.Context,
    uuids: Annotated[list[UUID] | None, typer.Argument(metavar="[UUID]...")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters."""
    _one_of(uuids, all_)

    async def question(app: QueueTasks) -> int:
        dead = {task.uuid for task in await _dead(app)}
        wanted = list(dead) if all_ else list(uuids or ())
        if strange := [uuid for uuid in wanted if uuid not in dead]:
            raise CommandError(f"not a dead letter, so nothing was deleted: {', '.join(map(str, strange))}")
        return sum(await app.delete(wanted))

    purged = session(context).ask(question)
    if as_json:
        show_json({"purged": purged})
    else:
        typer.echo(f"{purged} dead letters are gone")


def _one_of(uuids: list[UUID] | None, all_: bool) -> None:
    if bool(uuids) == all_:
        raise typer.BadParameter("give uuids, or --all")


async def _dead(app: QueueTasks, limit: int | None = None) -> list[Task]:
    found = []
    async for task in app.dead():
        found.append(task)
        if len(found) == limit:
            break
    return found


# --- Values ---------------------------------------------------------------------------------------


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _undeclared(task: str, declared: list[str]) -> str:
    return clean(
        f"no task is declared as {task!r} in this application{_meant(task, declared)}; it is added, and waits for a "
        "worker that knows it"
    )


def _meant(task: str, declared: list[str]) -> str:
    close = get_close_matches(task, declared, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _pair(item: str) -> tuple[str, Any]:
    name, separator, value = item.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--kw")
    return name, _value(value)


def _show_task(task: Task) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    for name, value in task_dict(task).items():
        if value is None or value == {} or value == ():
            continue
        shown = value if isinstance(value, str) else str(value)
        console.print(Text.assemble((f"{name:14}", "bold"), clean(shown)), highlight=False)


def _exit_with(task: Task) -> None:
    if task.status in (TaskStatusEnum.ERROR, TaskStatusEnum.CANCEL):
        raise typer.Exit(Code.FAILED)


def _last_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else ""
