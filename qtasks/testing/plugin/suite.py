"""The suite of a plugin, and `check_plugin`, which runs it over one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from qtasks import TaskFunction
from qtasks.testing.bench import KitFailure
from qtasks.testing.plugin.registration import Registration
from qtasks.testing.plugin.returns import Returns
from qtasks.testing.plugin.stage import MakePlugin
from qtasks.testing.plugin.whole import Whole
from qtasks.testing.report import Report, Result, Verdict, run_suite

T = TypeVar("T")


class PluginSuite(Registration, Returns, Whole):
    """All that a plugin has to hold. Subclass it with a fixture `make_component` that gives a function which makes
    a fresh plugin:

    class TestMyPlugin(PluginSuite):
        kit_version = 1

        @pytest.fixture
        def make_component(self):
            return lambda: MyPlugin(key="…")
    """


def check_plugin(
    plugin: Any, *, name: str = "", expected_failures: Mapping[str, str] | None = None,
    tasks: Iterable[TaskFunction[..., Any]] = (),
) -> None:  # fmt: skip
    """Runs all checks of `PluginSuite` over a plugin; for a test of one line.

    Parameters:
        plugin: a plugin (an instance or a module), or what makes a fresh one each time: a class, or a function
            without parameters. A plugin with state is best given as what makes it.
        name: what to register it under; empty lets it name itself.
        expected_failures: checks, by id, that it falls short of on purpose, each with the reason.
        tasks: declared tasks that examples are about; by default they are about tasks of the kit.

    Raises:
        KitFailure: it falls short of a check; the message has each one's id, an example and what to look at.
    """
    report = plugin_report(plugin, name=name, expected_failures=expected_failures, tasks=tasks)
    short = report.of(Verdict.FALLS_SHORT)
    if short:
        listed = "\n\n".join(
            f"{each.check.id}: {each.told}\n  {each.check.promise} If this fails, {each.check.advice}"
            for each in short
        )
        raise KitFailure(f"the plugin falls short of {len(short)} checks:\n{listed}")


def plugin_report(
    plugin: Any, *, name: str = "", expected_failures: Mapping[str, str] | None = None,
    tasks: Iterable[TaskFunction[..., Any]] = (), told: Callable[[Result], None] | None = None,
) -> Report:  # fmt: skip
    """As `check_plugin`, but gives the report, whatever it says.

    Parameters:
        told: is told of each result as it comes.
    """
    namespace = {
        "plugin_name": name, "expected_failures": dict(expected_failures or {}), "tasks": tuple(tasks),
    }  # fmt: skip
    suite: type[PluginSuite] = type("PluginSuite", (PluginSuite,), namespace)
    return outside_of_loops(lambda: run_suite(suite, factory_of(plugin), told=told))


def factory_of(plugin: Any) -> MakePlugin:
    """What makes the plugin: the class or function given, else a function that gives the same one each time."""
    makes = inspect.isclass(plugin) or inspect.isroutine(plugin) or isinstance(plugin, partial)
    return plugin if makes else lambda: plugin


def outside_of_loops(step: Callable[[], T]) -> T:
    """Does something where no event loop runs: checks have loops of their own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return step()
    with ThreadPoolExecutor(1, "qtasks-check-plugin") as thread:
        return thread.submit(step).result()
