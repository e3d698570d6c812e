"""Renders the parts of the documentation that the code knows better: triggers, settings, command line.

A page has a marker such as `<!-- reference: triggers -->`, which is replaced when Sphinx reads the page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

SECTIONS = ("Fires", "Parameters", "Replaces", "On failure", "Example")

TITLES = {
    "qtasks": "QueueTasks",
    "broker": "Broker",
    "global_config": "GlobalConfig",
    "task_executor": "TaskExecutor",
    "starter": "Starter",
    "storage": "Storage",
    "worker": "Worker",
    "stats": "Stats",
}


def sections(docstring: str) -> dict[str, str]:
    """The summary (under the key `""`) and the sections of a hookspec's docstring."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in inspect.cleandoc(docstring).splitlines():
        heading = line.removesuffix(":")
        if line.endswith(":") and heading in SECTIONS:
            current = heading
            found[current] = []
        else:
            found[current].append(line)
    return {name: inspect.cleandoc("\n".join(["", *lines])).strip() for name, lines in found.items()}


def parameters(text: str) -> dict[str, str]:
    """The entries of a `Parameters:` section by name."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        entry = re.match(r"([a-z_][a-z_, ]*): (.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif line.strip():
            found[name] += " " + line.strip()
    return found


def trigger_functions(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """The hookspec functions of a module, in its order."""
    for value in vars(module).values():
        if (
            inspect.isfunction(value)
            and hasattr(value, "qtasks_trigger")
            and value.__module__ == module.__name__
        ):
            yield value


def triggers() -> str:
    """All triggers, a section per component."""
    from qtasks.hookspecs import MODULES

    parts = []
    for module in MODULES:
        functions = list(trigger_functions(module))
        component = module.__name__.rpartition(".")[2]
        parts.append(f"## {TITLES[component]}\n")
        parts += ["| Trigger | Replaces |", "|---|---|"]
        for function in functions:
            replaced = ", ".join(f"`{name}`" for name in function.qtasks_trigger.replaces)
            parts.append(f"| [`{function.__name__}`](#{function.__name__}) | {replaced or '(signal)'} |")
        parts.append("")
        parts += [trigger(function) for function in functions]
    return "\n".join(parts)


def trigger(function: Callable[..., Any]) -> str:
    """One trigger."""
    declared = function.qtasks_trigger
    text = sections(function.__doc__ or "")
    described = parameters(text["Parameters"])
    lines = [
        f"({declared.name})=",
        f"### `{declared.name}`",
        "",
        text[""],
        "",
        f"**Fires.** {text['Fires']}",
        "",
    ]
    lines += ["| Parameter | Type | |", "|---|---|---|"]
    for name, parameter in inspect.signature(function).parameters.items():
        kind = str(parameter.annotation).replace("|", r"\|")
        lines.append(f"| `{name}` | `{kind}` | {described[name].replace('|', chr(92) + '|')} |")
    replaced = ", ".join(f"`{name}`" for name in declared.replaces)
    shape = f" (shape: {declared.shape})" if declared.shape else ""
    what = f"{replaced}{shape}. {_rest(text['Replaces'])}" if replaced else "nothing: it is a signal."
    lines += ["", f"**Replaces** {what}", ""]
    lines += [f"**When a plugin fails:** {text['On failure']}", "", "```py", text["Example"], "```", ""]
    lines += [f"Since {function.qtasks_since}.", ""]
    return "\n".join(lines)


def _rest(replaces: str) -> str:
    """What the section says beyond the names and the shape."""
    said = replaces.partition(": ")[2]
    return said[:1].upper() + said[1:]


def settings() -> str:
    """The fields of QueueConfig."""
    from qtasks import QueueConfig

    lines = ["| Variable | Type | Default | |", "|---|---|---|---|"]
    for name, field in QueueConfig.model_fields.items():
        kind = str(field.annotation).replace("typing.", "")
        kind = re.sub(r"<class '(.*?)'>", r"\1", kind).replace("|", r"\|")
        lines.append(f"| `QTASKS_{name.upper()}` | `{kind}` | `{field.default!r}` | {field.description} |")
    return "\n".join(lines)


def command_line() -> str:
    """Every command with its arguments and options."""
    from typer.main import get_command

    from qtasks.cli.commands import cli

    root = cli if hasattr(cli, "params") else get_command(cli)
    return "\n".join(_commands(root, "qtasks"))


def _commands(command: Any, path: str) -> Iterator[str]:
    yield f"## `{path}`\n" if " " not in path else f"### `{path}`\n"
    yield " ".join((command.help or "").split()) + "\n"
    rows = [row for parameter in command.params if (row := _parameter(parameter))]
    if rows:
        yield "| Option | |\n|---|---|"
        yield from rows
        yield ""
    for name, sub in getattr(command, "commands", {}).items():
        if not sub.hidden:
            yield from _commands(sub, f"{path} {name}")


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name).upper()
        spelled = f"`{name}`"
    else:
        if parameter.hidden or parameter.name == "help":
            return ""
        flags = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
        value = "" if parameter.is_flag else f" `{parameter.metavar or _value(parameter)}`"
        spelled = flags + value
    text = " ".join((getattr(parameter, "help", None) or "").split())
    return f"| {spelled} | {text} |".replace("NAME | no:NAME", r"NAME \| no:NAME")


def _value(option: Any) -> str:
    kind = getattr(option, "type", None) or getattr(option, "annotation", None)
    return str(getattr(kind, "name", None) or "value").upper()


def checks() -> str:
    """Every check of the conformance kit, a section per component."""
    from qtasks import testing

    suites = [
        value
        for value in vars(testing).values()
        if inspect.isclass(value) and value.__name__.endswith("Suite")
    ]
    parts = []
    for suite in sorted(suites, key=lambda suite: SUITES.index(suite.__name__)):
        if suite is testing.Suite:
            continue
        found = suite.checks()
        parts.append(f"### `{suite.__name__}`, {len(found)} checks\n")
        parts += ["| Id | What holds | If it fails | Runs |", "|---|---|---|---|"]
        for each in found:
            advice = each.advice[:1].upper() + each.advice[1:]
            parts.append(f"| `{each.id}` | {_cell(each.promise)} | {_cell(advice)} | {_runs(each)} |")
        parts.append("")
    return "\n".join(parts)


SUITES = (
    "BrokerSuite", "StorageSuite", "PairingSuite", "GlobalConfigSuite", "WorkerSuite", "TaskExecutorSuite",
    "StarterSuite", "StatsSuite", "ApplicationSuite", "PluginSuite", "Suite",
)  # fmt: skip
"""In the order of the page."""


def _runs(each: Any) -> str:
    needs = [f"with `{name}`" for name in each.needs] + [f"without `{name}`" for name in each.lacks]
    since = [f"since {each.since}"] if each.since > 1 else []
    return ", ".join(needs + since) or "always"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def capabilities() -> str:
    """The capabilities, from the docstring of the dataclass."""
    from qtasks import Capabilities

    doc = inspect.cleandoc(Capabilities.__doc__ or "").partition("Attributes:\n")[2]
    described = parameters(inspect.cleandoc(doc))
    lines = ["| Capability | Unless it is said | Means |", "|---|---|---|"]
    for name, field in Capabilities.__dataclass_fields__.items():
        lines.append(f"| `{name}` | {'yes' if field.default else 'no'} | {_cell(described[name])} |")
    return "\n".join(lines)


RENDERED = {
    "triggers": triggers, "settings": settings, "command line": command_line, "checks": checks,
    "capabilities": capabilities,
}  # fmt: skip


def rendered(source: str) -> str:
    """A page with its markers replaced."""
    return re.sub(r"<!-- reference: ([a-z ]+) -->", lambda found: RENDERED[found[1]](), source)


def _read(_app: Any, _page: str, source: list[str]) -> None:
    source[0] = rendered(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
