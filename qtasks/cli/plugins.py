"""Commands about plugins and triggers: triggers, plugins, plugins explain; `check` is in a file of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from qtasks.chain import Trigger
from qtasks.cli import check
from qtasks.cli.exits import Code, CommandError, clean, errors_as_exit_codes
from qtasks.cli.session import Json, session, show_json, show_rows
from qtasks.hookspecs import MODULES
from qtasks.markers import trigger_of


def add_to(cli: typer.Typer) -> None:
    """Adds these commands."""
    cli.command()(triggers)
    group = typer.Typer(help="The plugins of the application.", invoke_without_command=True)
    group.callback()(plugins)
    group.command()(explain)
    check.add_to(group)
    cli.add_typer(group, name="plugins")


def triggers(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One trigger, with all there is to say.", autocompletion=complete_trigger
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every place where a plugin can step in; needs no application."""
    with errors_as_exit_codes(session(context).traceback):
        declared = _declared()
        if name is not None:
            _show_one(name, declared, as_json)
        elif as_json:
            show_json([_as_dict(*item) for item in declared.values()])
        else:
            show_rows(
                f"{len(declared)} triggers", ["trigger", "may replace", "what it is for"],
                [
                    [trigger.name, ", ".join(trigger.replaces) or "(signal)", _summary(function)]
                    for _, trigger, function in declared.values()
                ],
                whole="trigger",
            )  # fmt: skip


def complete_trigger(incomplete: str) -> list[str]:
    """Names of triggers that begin like this, for the shell's completion."""
    return [name for name in _declared() if name.startswith(incomplete)]


def _declared() -> dict[str, tuple[str, Trigger, Callable[..., Any]]]:
    found = {}
    for module in MODULES:
        for function in vars(module).values():
            trigger = trigger_of(function) if inspect.isfunction(function) else None
            if trigger is not None:
                found[trigger.name] = module.__name__.rpartition(".")[2], trigger, function
    return found


def _show_one(name: str, declared: dict[str, tuple[str, Trigger, Callable[..., Any]]], as_json: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    if name not in declared:
        raise CommandError(f"there is no trigger {name!r}{_similar(name, declared)}", Code.FAILED)
    _, trigger, function = declared[name]
    if as_json:
        show_json(_as_dict(*declared[name]))
        return
    console = Console(soft_wrap=True)
    console.print(Text(f"{name}({', '.join(trigger.params)})", style="bold"))
    console.print(Text("\n" + inspect.cleandoc(function.__doc__ or "")), highlight=False)


def _similar(name: str, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "; `qtasks triggers` lists them"


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _as_dict(component: str, trigger: Trigger, function: Callable[..., Any]) -> dict[str, Any]:
    return {
        "name": trigger.name, "component": component, "params": list(trigger.params),
        "replaces": list(trigger.replaces), "returns": trigger.shape, "control_flow": trigger.control_flow,
        "summary": _summary(function), "doc": inspect.cleandoc(function.__doc__ or ""),
    }  # fmt: skip


def plugins(context: typer.Context, as_json: Json = False) -> None:
    """The plugins of the application, in registration order, and those that were left out."""
    if context.invoked_subcommand is not None:
        return
    with errors_as_exit_codes(session(context).traceback):
        pm = session(context).app().pm
        registered: list[dict[str, Any]] = [
            {"name": info.name, "distribution": info.distribution, "version": info.version, "origin": info.origin,
             "triggers": list(info.triggers)}
            for info in pm.plugins()
        ]  # fmt: skip
        left_out = [
            {"name": item.name, "distribution": item.distribution, "version": item.version, "origin": item.origin,
             "reason": item.reason}
            for item in pm.quarantined()
        ]  # fmt: skip
        if as_json:
            show_json({"plugins": registered, "quarantined": left_out, "blocked": pm.blocked()})
            return
        columns = ["plugin", "distribution", "version", "origin"]
        show_rows(
            f"{len(registered)} plugins", [*columns, "triggers"],
            [[*(p[name] for name in _COLUMNS), "\n".join(p["triggers"])] for p in registered], whole="triggers",
        )  # fmt: skip
        if left_out:
            rows: list[list[object]] = [
                [*(item[name] for name in _COLUMNS), item["reason"]] for item in left_out
            ]
            show_rows("in quarantine", [*columns, "because"], rows)
        if pm.blocked():
            typer.echo(f"kept out: {', '.join(pm.blocked())}")


_COLUMNS = ("name", "distribution", "version", "origin")


def explain(
    context: typer.Context,
    trigger: Annotated[
        str,
        typer.Argument(metavar="TRIGGER", help="The name of a trigger.", autocompletion=complete_trigger),
    ],
    as_json: Json = False,
) -> None:
    """The chain of a trigger in the order in which it runs, and why it is so."""
    with errors_as_exit_codes(session(context).traceback):
        pm = session(context).app().pm
        if trigger not in pm.triggers:
            raise CommandError(f"there is no trigger {trigger!r}{_similar(trigger, pm.triggers)}")
        links = pm.explain(trigger)
        if as_json:
            show_json([asdict(link) for link in links])
        elif not links:
            typer.echo(f"no plugin implements {trigger}")
        else:
            show_rows(
                f"{trigger}: {len(links)} in its chain; the last one has the last word",
                ["", "plugin", "function", "kind", "why it stands here"],
                [[link.position, link.plugin, link.function, link.kind, link.why] for link in links],
            )  # fmt: skip
            for link in links:
                for conflict in link.conflicts:
                    typer.echo(f"conflict: {clean(link.plugin)}: {clean(conflict)}")
