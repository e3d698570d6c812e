"""`qtasks plugins check`: the kit's checks over the plugins of an application, and which pairs do not commute."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtasks.app import QueueTasks
from qtasks.cli.exits import Code, CommandError, clean, errors_as_exit_codes, leaving_at_once
from qtasks.cli.report import show_report
from qtasks.cli.session import Json, session, show_json
from qtasks.registry import TaskFunction

if TYPE_CHECKING:
    from qtasks.testing import OrderMatters, Report


def add_to(group: typer.Typer) -> None:
    """Adds this command to `qtasks plugins`."""
    group.command()(check)


def check(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLUGIN]...", help="Only these; else all of the application."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A declared task that examples are about, not one of the kit's; may be repeated.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 also where only registration orders such a pair.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the plugins of the application: what each falls short of, and which two do not commute on which trigger,
    with the smallest example.

    Each plugin is tried as it is configured, alone, in an application in memory: no queue is touched. What a plugin
    itself does outside is done. Exit code 1 if one falls short.
    """
    with errors_as_exit_codes(session(context).traceback):
        app = session(context).app()
        chosen = _chosen(app, names or [])
        tasks = [_task(app, name) for name in task or ()]
        logging.getLogger().addHandler(logging.NullHandler())
        reports, pairs = _looked_at(chosen, tasks)
        if as_json:
            show_json(
                {
                    "plugins": {name: report.to_dict() for name, report in reports.items()},
                    "order_matters": [pair.to_dict() for pair in pairs],
                }
            )
        else:
            _show(reports, pairs)
    sound = all(report.conforms for report in reports.values())
    ordered = all(pair.declared for pair in pairs)
    raise typer.Exit(Code.OK if sound and (ordered or not strict) else Code.FAILED)


def _chosen(app: QueueTasks, names: list[str]) -> dict[str, Any]:
    plugins = {info.name: info.plugin for info in app.pm.plugins()}
    if unknown := [name for name in names if name not in plugins]:
        raise CommandError(
            f"the application has no plugin {', '.join(unknown)}; it has {', '.join(plugins)}", Code.USAGE
        )
    return {name: plugin for name, plugin in plugins.items() if not names or name in names}


def _task(app: QueueTasks, name: str) -> TaskFunction[..., Any]:
    for function in app.tasks.functions():
        if function.name == name:
            return function
    raise CommandError(f"the application declares no task {name!r}", Code.USAGE)


def _looked_at(
    plugins: dict[str, Any], tasks: list[TaskFunction[..., Any]]
) -> tuple[dict[str, Report], list[OrderMatters]]:
    from rich.console import Console

    try:
        with leaving_at_once():
            kit = importlib.import_module("qtasks.testing")
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the checks need what is not installed ({error.name}): pip install 'qtasks[test]'", Code.USAGE
        ) from error
    reports = {}
    with Console(stderr=True).status("checking …") as status:
        for name, plugin in plugins.items():
            status.update(f"checking {name} …")
            reports[name] = kit.plugin_report(plugin, name=name, tasks=tasks)
        status.update("turning pairs round …")
        return reports, kit.order_matters(plugins, tasks=tasks)


def _show(reports: dict[str, Report], pairs: list[OrderMatters]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for name, report in reports.items():
        if report.conforms:
            console.print(Text.assemble((name, "bold"), f": all {len(report.results)} checks hold"))
        else:
            console.print(Text(name, style="bold"))
            show_report(report)
    for pair in pairs:
        console.print()
        console.print(
            Text.assemble(
                (f"{pair.first} and {pair.second} do not commute on {pair.trigger}", "yellow"),
                ": they say themselves who is first" if pair.declared else ": only registration orders them",
            )
        )
        for title, text in (
            ("example", pair.example), (f"{pair.first}, then {pair.second}", pair.as_is),
            (f"{pair.second}, then {pair.first}", pair.turned),
        ):  # fmt: skip
            console.print(Text(f"  {title}: {clean(text)}"))
    if len(reports) > 1 and not pairs:
        console.print("all of them commute, as far as examples show")
    if any(not pair.declared for pair in pairs):
        console.print(
            "\nSay it with @hookimpl(before=…) or (after=…), and the order of registration is no matter."
        )
