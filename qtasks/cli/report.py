"""Shows a report of the conformance kit."""

from __future__ import annotations

import textwrap
from dataclasses import fields
from typing import TYPE_CHECKING

from qtasks.cli.exits import clean
from qtasks.components.primitives import Capabilities

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from qtasks.testing import Report, Result

WIDTH = 110
TOLD = 3000
"""Letters of what came that are shown."""


def show_report(report: Report) -> None:
    """Writes it to stdout: the sum, what falls short with its advice, what was skipped, what holds."""
    from rich.console import Console
    from rich.text import Text

    from qtasks.testing import Verdict

    held, short, skipped, expected = (
        report.of(verdict)
        for verdict in (Verdict.HOLDS, Verdict.FALLS_SHORT, Verdict.SKIPPED, Verdict.EXPECTED)
    )
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"{report.component}: {report.suite}, kit version {report.kit_version}", style="bold"))
    if report.capabilities is not None:
        console.print(Text(f"  declares {_declared(report.capabilities)}"))
    for style, verb, results in (
        ("green", "hold", held),
        ("red", "fall short", short),
        ("yellow", "skipped", skipped),
    ):
        if results:
            console.print(Text(f"  {len(results)} {verb}", style=style))
    for result in short:
        _show_short(console, result)
    for result in expected:
        console.print(Text(f"  {result.check.id} falls short, as expected: {clean(result.told)}"))
    by_reason: dict[str, list[Result]] = {}
    for result in skipped:
        reason = "needs" if result.capability in result.check.needs else "only without"
        by_reason.setdefault(
            f"{reason} {result.capability}" if result.capability else result.told, []
        ).append(result)
    for told, results in by_reason.items():
        console.print(_ids(f"skipped, {told}", results))
    if held:
        console.print(_ids("hold", held))
    console.print()


def _declared(capabilities: Capabilities) -> str:
    said = [
        field.name
        for field in fields(capabilities)
        if not field.default and getattr(capabilities, field.name)
    ]
    unsaid = [
        field.name
        for field in fields(capabilities)
        if field.default and not getattr(capabilities, field.name)
    ]
    without = f"; without {', '.join(unsaid)}" if unsaid else ""
    return (", ".join(said) or "nothing beyond the contract") + without


def _show_short(console: Console, result: Result) -> None:
    from rich.text import Text

    console.print(Text(f"\n  {result.check.id} falls short: {result.check.promise}", style="red"))
    told = clean(result.told).strip()
    told = told if len(told) <= TOLD else told[:TOLD] + " …"
    console.print(Text(textwrap.indent(f"What came: {told}", " " * 6)))
    console.print(Text(f"      {result.check.advice[:1].upper()}{result.check.advice[1:]}\n"))


def _ids(title: str, results: list[Result]) -> Text:
    from rich.text import Text

    text = f"{title}: " + ", ".join(result.check.id for result in results)
    return Text(
        textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    )
