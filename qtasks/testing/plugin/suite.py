"""The suite of a plugin, and `check_plugin`, which runs it over one."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from qtasks import TaskFunction
from qtasks.testing.bench import KitFailure
from qtasks.testing.checks import Check
from qtasks.testing.plugin.registration import Registration
from qtasks.testing.plugin.returns import Returns
from qtasks.testing.plugin.stage import MakePlugin
from qtasks.testing.plugin.whole import Whole


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
        tasks: declared tasks that examples are about too; by default they are about tasks of the kit.

    Raises:
        KitFailure: it falls short of a check; the message has each one's id, an example and what to look at.
    """
    found = plugin_failures(plugin, name=name, expected_failures=expected_failures, tasks=tasks)
    if found:
        listed = "\n\n".join(f"{failure}\n  {_advice(each, failure)}" for each, failure in found.items())
        raise KitFailure(f"the plugin falls short of {len(found)} checks:\n{listed}")


def plugin_failures(
    plugin: Any, *, name: str = "", expected_failures: Mapping[str, str] | None = None,
    tasks: Iterable[TaskFunction[..., Any]] = (),
    on_check: Callable[[Check, AssertionError | None], object] | None = None,
) -> dict[str, AssertionError]:  # fmt: skip
    """As `check_plugin`, but gives what it falls short of.

    Parameters:
        on_check: is told of each check when it is through, and of its failure.

    Returns:
        By the id of the check: the failure, which has the advice as a note.
    """
    namespace = {
        "plugin_name": name, "expected_failures": dict(expected_failures or {}),
        "tasks": tuple(tasks),
    }  # fmt: skip
    suite: type[PluginSuite] = type("CheckedPlugin", (PluginSuite,), namespace)
    make = factory_of(plugin)
    failures: dict[str, AssertionError] = {}
    for described in suite.checks():
        failure = _outside_of_loops(getattr(suite(), described.method), make)
        if failure is not None:
            failures[described.id] = failure
        if on_check is not None:
            on_check(described, failure)
    return failures


def factory_of(plugin: Any) -> MakePlugin:
    """What makes the plugin: the class or function given, else a function that gives the same one each time."""
    makes = inspect.isclass(plugin) or inspect.isfunction(plugin) or inspect.ismethod(plugin)
    return plugin if makes else lambda: plugin


def _advice(each: str, failure: AssertionError) -> str:
    return next((note for note in getattr(failure, "__notes__", ()) if note.startswith(f"{each}: ")), "")


def _outside_of_loops(method: Callable[[MakePlugin], None], make: MakePlugin) -> AssertionError | None:
    """Runs a check where no event loop runs, for it has one of its own."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            method(make)
        except pytest.xfail.Exception:
            pass  # it falls short of this one on purpose
        except BaseException as error:
            found.append(error)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run()
    else:
        thread = threading.Thread(target=run, name="qtasks-check-plugin")
        thread.start()
        thread.join()
    if not found:
        return None
    if isinstance(found[0], AssertionError):
        return found[0]
    raise found[0]
