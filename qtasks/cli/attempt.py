"""`qtasks try`: a dry run of a task, in memory, with the application's plugins."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import Code, CommandError, clean, errors_as_exit_codes, run_async
from qtasks.cli.session import Json, session, show_json, task_dict
from qtasks.cli.tasks import Args, Keywords, TaskName, _meant, _pair, _value
from qtasks.components.task_executor import TaskExecutor
from qtasks.context import TaskContext
from qtasks.errors import QTasksError
from qtasks.inmemory import VirtualClock, in_memory, run_until_idle
from qtasks.schemas import Task, TaskExecSchema, TaskPrioritySchema
from qtasks.trace import Trace, TracePart, TraceRecorder

if TYPE_CHECKING:
    from rich.console import Console

NOTE = (
    "In memory: nothing was queued. The code of the task {ran}. What plugins do outside of qtasks was done: "
    "a dry run cannot keep a plugin from sending a mail."
)


def add_to(cli: typer.Typer) -> None:
    """Adds this command."""
    cli.command("try")(attempt)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one dry run.

    Attributes:
        task: as a client sees it at the end; `None` where it was refused.
        refused: why the caller of `add_task` would get an error.
        trace: what was fired.
    """

    task: Task | None
    refused: str | None
    trace: Trace

    def to_dict(self) -> dict[str, Any]:
        """As plain data (JSON)."""
        task = None if self.task is None else task_dict(self.task)
        return {"task": task, "refused": self.refused, "trace": self.trace.to_dict()}


class DryExecutor(TaskExecutor):
    """Fires what an executor fires, and takes the result, or the failure, from whoever tries it out: neither the
    function nor its middlewares are called."""

    def __init__(self, result: Any, failure: str | None) -> None:
        super().__init__()
        self._result = result
        self._failure = failure

    async def execute(
        self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, context: TaskContext,
        args: tuple[Any, ...], kw: dict[str, Any],
    ) -> Any:  # fmt: skip
        """Gives the result that was named."""
        if self._failure is not None:
            raise RuntimeError(self._failure)
        many = task_func.kind in ("generator", "async_generator")
        return [] if many and self._result is None else self._result


def attempt(
    context: typer.Context,
    task: TaskName,
    args: Args = None,
    kw: Keywords = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="PLUGIN", help="Show what is different without this plugin; may be repeated."),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run the code of the task too, with all that it does.")
    ] = False,
    result: Annotated[
        str, typer.Option(metavar="JSON", help="What the code is taken to return, as long as it is not run.")
    ] = "null",
    fail: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Take the code to fail with this message, each time.")
    ] = None,
    plugins_only: Annotated[
        bool, typer.Option("--plugins-only", help="Leave out triggers that no plugin implements.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Try a task out: what would be fired for it, and which plugin would change what, in memory and with the
    application's plugins. The real queue is not touched.

    The code of the task is not run, since it may do anything: --run runs it. Delays and retries are not waited for.
    What plugins themselves do outside, a call to a server say, is done all the same. Exit code 1 if the task would
    be refused or would fail.
    """
    if run and fail is not None:
        raise typer.BadParameter("--run runs the code, so --fail has no place")
    kwargs = dict(_pair(item) for item in kw or ())
    uuid = uuid4()
    with errors_as_exit_codes(session(context).traceback):
        app = session(context).app()
        logging.getLogger().addHandler(logging.NullHandler())
        if task not in app.tasks:
            hint = _meant(task, list(app.tasks)) or f"; it declares {', '.join(sorted(app.tasks)) or 'none'}"
            raise CommandError(f"the application declares no task {task!r}{hint}", Code.USAGE)
        if unknown := [name for name in without or () if not app.pm.has(name)]:
            raise CommandError(f"the application has no plugin {', '.join(unknown)}", Code.USAGE)
        executor = app.task_executor if run else DryExecutor(_value(result), fail)
        trying = [_value(arg) for arg in args or ()], kwargs
        whole = run_async(_tried(app, executor, uuid, task, *trying))
        other = None
        if without:
            for name in without:
                app.pm.unregister(name)
            other = run_async(_tried(app, executor, uuid, task, *trying))
        _show(whole, other, without or [], ran=run, plugins_only=plugins_only, as_json=as_json)
    done = whole.task is not None and whole.task.status == "success"
    raise typer.Exit(Code.OK if done else Code.FAILED)


async def _tried(
    app: QueueTasks, executor: TaskExecutor, uuid: UUID, name: str, args: list[Any], kwargs: Mapping[str, Any]
) -> Tried:
    clock = VirtualClock(time.time())
    recorder = TraceRecorder(only=[uuid])
    own = app.task_executor
    executor.bind(app.pm, app_name=app.name, config=app.config)
    executor.app, app.task_executor = app, executor
    app.tracer.redact = lambda _trigger, _path: False  # who typed the values may see them
    app.pm.add_observer(recorder, idle=True)
    try:
        with in_memory(app, clock):
            async with app:
                return await _run(app, clock, recorder, uuid, name, args, kwargs)
    finally:
        app.pm.remove_observer(recorder)
        app.task_executor = own


async def _run(
    app: QueueTasks, clock: VirtualClock, recorder: TraceRecorder, uuid: UUID, name: str, args: list[Any],
    kwargs: Mapping[str, Any],
) -> Tried:  # fmt: skip
    try:
        await app.add_task(name, args=args, kwargs=kwargs, uuid=uuid, trace=True)
    except QTasksError as refused:
        part = TracePart(
            side="producer",
            calls=tuple(recorder.calls(uuid)),
            began=clock(),
            ended=clock(),
            outcome="refused",
        )
        return Tried(None, f"{type(refused).__name__}: {refused}", Trace(uuid, (part,)))
    (record,) = await app.storage.get_many([uuid])
    if record is not None:
        app.worker.configure(queues=[record.queue])
    await run_until_idle(app, clock)
    trace = await app.trace(uuid)
    return Tried(await app.get(uuid), None, trace or Trace(uuid, ()))


# --- Showing it -----------------------------------------------------------------------------------


def _show(
    whole: Tried, other: Tried | None, without: list[str], *, ran: bool, plugins_only: bool, as_json: bool
) -> None:
    if as_json:
        show_json(whole.to_dict() if other is None else {"with": whole.to_dict(), "without": other.to_dict()})
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(whole.trace.tree(_title(whole), idle=not plugins_only))
    if other is not None:
        console.print(Text(f"\nwithout {', '.join(without)}:", style="bold"))
        _show_difference(console, _lines(whole), _lines(other))
    console.print()
    console.print(Text(NOTE.format(ran="was run" if ran else "was not run (--run runs it)"), style="dim"))


def _title(tried: Tried) -> str:
    if tried.task is None:
        return f"refused: {clean(str(tried.refused))}"
    task = tried.task
    because = ((task.traceback or task.cancel_reason or "").strip().splitlines() or [""])[-1]
    ended = f"returning {task.returning!r}" if task.status == "success" else because
    return clean(f"{task.task_name} ends in {task.status}: {ended}")


def _lines(tried: Tried) -> list[str]:
    """The tree as lines, without what is another one in each run."""
    from rich.console import Console

    console = Console(width=10_000, file=io.StringIO(), record=True)
    console.print(tried.trace.tree(_title(tried)))
    text = re.sub(r" +[\d.]+ ms|worker [0-9a-f]{16}", "", console.export_text())
    return [
        re.sub(r"^[│├└─ ]*", lambda drawn: "  " * (len(drawn[0]) // 4), line) for line in text.splitlines()
    ]


def _show_difference(console: Console, before: list[str], after: list[str]) -> None:
    import difflib

    from rich.text import Text

    styles = {"+": "green", "-": "red", "@": "dim"}
    lines = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    for line in lines:
        console.print(
            Text("…" if line.startswith("@") else line, style=styles.get(line[0], "")), soft_wrap=True
        )
    if not lines:
        console.print("nothing is different")
