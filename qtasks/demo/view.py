"""What the demo shows: a bar and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from qtasks.demo.tasks import STATE_FILE
from qtasks.schemas import Task, TaskStatusEnum
from qtasks.trace import render_tree

if TYPE_CHECKING:
    from qtasks.demo.run import Outcome, Plan

ROWS = 12
LINES = 100
"""Progress lines at most, where there is no terminal."""


class View:
    """Shows one run.

    Parameters:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._bar_task = TaskID(0)
        self._total = 0
        self._step = 1

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
        self._console.file.flush()

    # --- Before -----------------------------------------------------------------------------

    def found(self, root: Path, count: int, *, more: bool, unnameable: int) -> None:
        """The folder was looked through."""
        where = escape(str(root))
        if not count:
            self._say(f"There are no files to measure in {where}. Try another folder: qtasks demo DIR")
            return
        self._say(
            f"[bold]{count} files[/bold] in {where}; the queue is the SQLite file {STATE_FILE} in this folder."
        )
        if more:
            self._say("There are more; only the first ones are taken (--limit).")
        if unnameable:
            self._say(f"{unnameable} files are left out: their names are not valid text.")

    def planned(self, plan: Plan) -> None:
        """It is known what is left to do."""
        if plan.stale:
            self._say(
                f"{plan.stale} files changed or went since an earlier run: their old results are thrown away."
            )
        if plan.again:
            self._say(f"{plan.again} files failed in an earlier run: they are tried again.")
        if plan.done == len(plan.files):
            self._say("An earlier run did all of it, so nothing is run again; --fresh starts over.")
        elif plan.done or plan.waiting:
            self._say(
                f"Going on with an earlier run: {plan.done} done, {plan.waiting} waiting in the queue, "
                f"{len(plan.missing)} to be added."
            )

    # --- During -----------------------------------------------------------------------------

    def start(self, total: int, done: int) -> None:
        """The work begins."""
        self._total, self._step = total, max(1, total // LINES)
        if self._console.is_terminal:
            columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[path]}"), console=self._console)
            self._bar_task = self._bar.add_task("", total=total, completed=done, path="")
            self._bar.start()

    def ended(self, path: str, status: TaskStatusEnum, done: int) -> None:
        """A task has finished; `done` is how many have by now."""
        if self._bar is not None:
            self._bar.update(self._bar_task, completed=done, path=escape(path[-40:]))
        elif done % self._step == 0 or done == self._total or status is not TaskStatusEnum.SUCCESS:
            self._say(f"{done}/{self._total} {escape(_printable(path))}: {status.value}")

    def retried(self, path: str, seconds: float) -> None:
        """A run of a task failed, and is made again."""
        self._say(f"{escape(_printable(path))}: failed at first, and is run again in {seconds:.1f} s")

    def stopping(self) -> None:
        """A signal came."""
        self.stop()
        self._say("Stopping: what is running may finish (press again to leave at once).")

    def stop(self) -> None:
        """No more progress."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def interrupted(self, done: int, total: int) -> None:
        """The run ended early."""
        self._say(
            f"Interrupted with {done} of {total} files done. Nothing is lost: run the same command to go on."
        )

    # --- After ------------------------------------------------------------------------------

    def outcome(self, outcome: Outcome) -> None:
        """Everything is done: the results, the trace of one task, what to try next."""
        done = [task for task in outcome.tasks if task.status is TaskStatusEnum.SUCCESS]
        self._console.print(_results(done))
        if len(done) > ROWS:
            self._say(f"… and {len(done) - ROWS} more. The generator task `summarise` says:")
        self._console.print(_kinds(outcome.kinds))
        self._failures([task for task in outcome.tasks if task.status is not TaskStatusEnum.SUCCESS])
        if outcome.traced is not None:
            self._trace(outcome)
        self._next(outcome.traced)

    def _failures(self, failed: list[Task]) -> None:
        if not failed:
            return
        self._say(f"[red]{len(failed)} files failed[/red]; the next run tries them again:")
        for task in failed[:ROWS]:
            reason = (task.traceback or task.cancel_reason or "").strip().splitlines()
            self._say(
                f"  {escape(_printable(str(task.args[0])))}: {escape(reason[-1]) if reason else task.status}"
            )

    def _trace(self, outcome: Outcome) -> None:
        task = outcome.traced
        if task is None or not outcome.trace:
            return
        self._say("")
        self._say(
            "The life of one task: every trigger that fired, and which plugin changed which value from what to what"
        )
        title = f"{task.task_name} {_printable(str(task.args[0]))}  {task.uuid}"
        self._console.print(render_tree(title, outcome.trace), highlight=False)

    def _next(self, traced: Task | None) -> None:
        uuid = traced.uuid if traced is not None else "UUID"
        self._say("")
        self._say("[bold]What to try next[/bold]")
        for command, what in (
            (f"qtasks -A qtasks.demo:app get {uuid}", "one task, as a client sees it"),
            ("qtasks -A qtasks.demo:app stats", "queues, workers, tasks, plugins"),
            (
                "qtasks -A qtasks.demo:app plugins explain task_executor_args_replace",
                "who runs when, and why",
            ),
            ("qtasks triggers", "every place where a plugin can step in"),
            ("qtasks demo DIR", "another folder; press Ctrl-C in the middle, and run it again"),
            ("qtasks demo --fresh", "start over"),
        ):
            self._say(f"  {command}  [dim]{what}[/dim]")


def _results(done: list[Task]) -> Table:
    table = Table(title=f"{len(done)} files measured; the largest")
    table.add_column("file", overflow="fold")
    for name in ("bytes", "lines"):
        table.add_column(name, justify="right")
    table.add_column("kind")
    table.add_column("digest")
    table.add_column("runs", justify="right")
    for task in sorted(done, key=lambda task: -task.returning["size"])[:ROWS]:
        result: dict[str, Any] = task.returning
        table.add_row(
            escape(_printable(str(task.args[0]))), f"{result['size']:,}", f"{result['lines']:,}", result["kind"],
            f"{result['sha256'][:17]}…", str(task.attempt + 1),
        )  # fmt: skip
    return table


def _kinds(kinds: list[dict[str, Any]]) -> Table:
    table = Table(title="by kind")
    table.add_column("kind")
    for name in ("files", "lines", "bytes"):
        table.add_column(name, justify="right")
    for kind in kinds:
        table.add_row(kind["kind"], f"{kind['files']:,}", f"{kind['lines']:,}", f"{kind['size']:,}")
    return table


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
