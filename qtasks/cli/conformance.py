"""`qtasks conformance`: the conformance kit without test files."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from qtasks.cli.exits import Code, CommandError, errors_as_exit_codes, leaving_at_once
from qtasks.cli.locate import import_here
from qtasks.cli.report import show_report
from qtasks.cli.session import Json, session, show_json
from qtasks.cli.stores import PARTS, Stores, stores_at

if TYPE_CHECKING:
    from qtasks.testing import Report, Result, Suite

SUITES = {
    "broker": ("BrokerSuite", ("Broker",)),
    "storage": ("StorageSuite", ("Storage",)),
    "config": ("GlobalConfigSuite", ("GlobalConfig",)),
    "pairing": ("PairingSuite", ("Broker", "Storage")),
    "worker": ("WorkerSuite", ("Worker",)),
    "executor": ("TaskExecutorSuite", ("TaskExecutor",)),
    "starter": ("StarterSuite", ("Starter",)),
    "stats": ("StatsSuite", ("Stats",)),
    "app": ("ApplicationSuite", ("QueueTasks",)),
    "plugin": ("PluginSuite", ()),
}
"""By kind: the suite in `qtasks.testing`, and the contracts in `qtasks` of what a factory gives."""


class Job(NamedTuple):
    """One suite to be run."""

    kind: str
    factory: Callable[..., Any]
    stores: Stores | None


def add_to(cli: typer.Typer) -> None:
    """Adds this command."""
    cli.command()(conformance)


def conformance(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="KIND|URL",
            help=f"{', '.join(SUITES)}; or the URL of a backend: then {', '.join(PARTS)}, one after the other.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:FACTORY|URL]",
            help="A function that gives a fresh component each time, as the kit's make_component; or a URL.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--check", metavar="ID", help="Only this check; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a component against its contract: what holds, what falls short and why, what was skipped.

    Exit code 1 if something falls short. Nothing is left behind, and the data of a store that a URL names is not
    touched: SQLite is tested in files of its own, a server under names of apps that nobody else has.
    """
    show_traceback = session(context).traceback
    with errors_as_exit_codes(show_traceback), _ending_tidily(), ExitStack() as stack:
        jobs = _jobs(what, target, stack)
        suites = {job.kind: _suite(job.kind) for job in jobs}
        if only:
            jobs = _with_checks(jobs, suites, set(only))
        for job in jobs:
            if job.stores is not None:
                asyncio.run(job.stores.probe())
            else:
                asyncio.run(_probe(job, suites[job.kind]))
        reports = []
        for job in jobs:
            reports.append(_run(job, suites[job.kind], only or [], show_traceback))
            if not as_json:
                show_report(reports[-1])
        if as_json:
            show_json([report.to_dict() for report in reports])
        elif jobs[0].stores is not None:
            typer.echo(f"Tested {jobs[0].stores.where}.")
    raise typer.Exit(Code.OK if all(report.conforms for report in reports) else Code.FAILED)


# --- What is to be run ------------------------------------------------------------------------------


def _jobs(what: str, target: str | None, stack: ExitStack) -> list[Job]:
    if "://" in what:
        if target is not None:
            raise CommandError(f"{target!r} is one argument too many after a URL", Code.USAGE)
        stores = stack.enter_context(stores_at(what))
        return [Job(kind, stores.factory(kind), stores) for kind in PARTS]
    if what not in SUITES:
        raise CommandError(
            f"there is no suite for {what!r}: name one of {', '.join(SUITES)}, or a URL", Code.USAGE
        )
    if target is None:
        raise CommandError(
            f"name what gives the component: qtasks conformance {what} my_package:make_{what}", Code.USAGE
        )
    if "://" not in target:
        return [Job(what, _factory(what, target), None)]
    if what not in PARTS:
        raise CommandError(f"a URL names no {what}: name a function that gives one", Code.USAGE)
    stores = stack.enter_context(stores_at(target))
    return [Job(what, stores.factory(what), stores)]


def _suite(kind: str) -> type[Suite]:
    try:
        with leaving_at_once():
            kit = importlib.import_module("qtasks.testing")
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the conformance kit needs what is not installed ({error.name}): pip install 'qtasks[test]'",
            Code.USAGE,
        ) from error
    suite: type[Suite] = getattr(kit, SUITES[kind][0])
    return suite


def _with_checks(jobs: list[Job], suites: dict[str, type[Suite]], only: set[str]) -> list[Job]:
    known = {kind: {each.id for each in suite.checks()} for kind, suite in suites.items()}
    if unknown := only - set().union(*known.values()):
        raise CommandError(f"there is no check {', '.join(sorted(unknown))} here", Code.USAGE)
    return [job for job in jobs if known[job.kind] & only]


def _factory(kind: str, spec: str) -> Callable[..., Any]:
    """What a `module:function` names, looked up from the current folder."""
    module_name, _, attribute = spec.partition(":")
    found: Any = import_here(module_name)
    for part in attribute.split(".") if attribute else ():
        if not hasattr(found, part):
            raise CommandError(f"{module_name!r} has no {attribute!r}", Code.USAGE)
        found = getattr(found, part)
    if kind == "plugin" and not callable(found):
        return lambda: found  # an instance, or a module
    if not callable(found):
        raise CommandError(
            f"{spec} is not a function that gives components: name module:function", Code.USAGE
        )
    factory: Callable[..., Any] = found
    return factory


async def _probe(job: Job, suite: type[Suite]) -> None:
    """What a function of the user's gives, looked at once before everything falls short because of it."""
    import qtasks

    if job.kind in PARTS:
        _must_take(
            job.factory, {"like": None},
            "like=None: make_component(like=other) gives a component over the store of the other one",
        )  # fmt: skip
    elif job.kind == "app":
        _must_take(job.factory, {"config": None}, "config, the settings of the application")
    made = suite().specimen(job.factory)
    made = await made if inspect.isawaitable(made) else made
    parts = made if isinstance(made, tuple) else (made,)
    names = SUITES[job.kind][1]
    contracts = [getattr(qtasks, name) for name in names]
    if not contracts:
        return
    if len(parts) != len(contracts) or not all(map(isinstance, parts, contracts)):
        given = ", ".join(type(part).__name__ for part in parts)
        raise CommandError(f"the function gives {given}, not a qtasks.{', qtasks.'.join(names)}", Code.USAGE)


def _must_take(factory: Callable[..., Any], given: dict[str, Any], told: str) -> None:
    try:
        inspect.signature(factory).bind(**given)
    except (TypeError, ValueError):
        raise CommandError(f"the function must take {told}", Code.USAGE) from None


# --- Running it -------------------------------------------------------------------------------------


@contextmanager
def _ending_tidily() -> Iterator[None]:
    """SIGTERM ends it as SIGINT does, so that nothing is left; log lines of components are kept out of the report."""
    logging.getLogger().addHandler(logging.NullHandler())
    sys.dont_write_bytecode = True
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread: nobody can be told of a signal here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(job: Job, suite: type[Suite], only: list[str], show_traceback: bool) -> Report:
    from rich.console import Console

    from qtasks.testing import Verdict, run_suite

    ids = {each.id for each in suite.checks()}
    with Console(stderr=True).status(f"{suite.__name__} …") as status:

        def told(result: Result) -> None:
            status.update(f"{suite.__name__}: {result.check.id} {result.verdict}")
            if show_traceback and result.verdict is Verdict.FALLS_SHORT and result.error is not None:
                traceback.print_exception(result.error)

        return run_suite(
            suite, job.factory, only=[each for each in only if each in ids],
            after_each=None if job.stores is None else job.stores.tidy, told=told,
        )  # fmt: skip
