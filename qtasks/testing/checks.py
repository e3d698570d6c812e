"""What a check is: a test method with an id, advice for its failure, and the capabilities it needs."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import pytest
import pytest_asyncio

from qtasks.components.primitives import Capabilities
from qtasks.config import QueueConfig
from qtasks.testing.bench import Bench, Factory, KitFailure
from qtasks.testing.explain import explain

KIT_VERSION = 1
"""The version of the kit. A check is run by suites whose `kit_version` is not below the check's `since`."""

CAPABILITIES = frozenset(field.name for field in fields(Capabilities))

FAILURES = (Exception, pytest.fail.Exception)
"""What ends a check: its own assertions, what the component raises, and `pytest.raises` without a raise."""

TestFunction = TypeVar("TestFunction", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a suite.

    Attributes:
        id: how reports and the docs name it, `STORAGE-12` say.
        method: the name of the test method.
        promise: what must hold, in one sentence.
        advice: what to look at if it fails.
        needs: the capabilities without which it is skipped.
        lacks: the capabilities with which it is skipped: it checks that they are refused otherwise.
        since: the kit version that brought it.
    """

    id: str
    method: str
    promise: str
    advice: str
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    since: int = 1

    def skipped_for(self, capabilities: Capabilities) -> str | None:
        """Why it is skipped for a component with these capabilities; `None` if it is run."""
        for name in self.needs:
            if not getattr(capabilities, name):
                return f"{self.id} needs the capability {name!r}, which the component does not declare"
        for name in self.lacks:
            if getattr(capabilities, name):
                return f"{self.id} is for components without the capability {name!r}, which this one declares"
        return None


def check(
    id: str,  # noqa: A002 - the word that reports and docs use for it
    *,
    needs: tuple[str, ...] = (),
    lacks: tuple[str, ...] = (),
    since: int = 1,
) -> Callable[[TestFunction], TestFunction]:
    """Makes a test method a check. Its docstring says what must hold, then "If this fails, check …".

    Parameters:
        id: its id, unique in the suite.
        needs: capabilities without which it is skipped.
        lacks: capabilities with which it is skipped.
        since: the kit version that brought it.

    Raises:
        ValueError: the docstring has no advice, or a capability is unknown.
    """
    if unknown := {*needs, *lacks} - CAPABILITIES:
        raise ValueError(f"{id}: there is no capability {', '.join(sorted(unknown))}")

    def decorate(function: TestFunction) -> TestFunction:
        promise, found, advice = inspect.cleandoc(function.__doc__ or "").partition("If this fails, check ")
        if not found or not advice or not promise:
            raise ValueError(f"{id}: the docstring of {function.__name__} lacks 'If this fails, check …'")
        described = Check(
            id,
            function.__name__,
            " ".join(promise.split()),
            "check " + " ".join(advice.split()),
            needs,
            lacks,
            since,
        )
        wrapper = _asynchronous if inspect.iscoroutinefunction(function) else _synchronous
        wrapped = wrapper(function, described)
        wrapped.qtasks_check = described
        wrapped.__doc__ = f"{id}: {function.__doc__}"
        return wrapped  # type: ignore[no-any-return]

    return decorate


def _asynchronous(function: Callable[..., Awaitable[None]], described: Check) -> Any:
    @functools.wraps(function)
    async def run(self: Suite, *args: Any, **kwargs: Any) -> None:
        self.admit(described, *args, *kwargs.values())
        try:
            await function(self, *args, **kwargs)
        except FAILURES as error:
            raise self.fell_short(described, error)  # noqa: B904 - it is the same, or has it as its cause
        self.held(described)

    return pytest.mark.asyncio(run)


def _synchronous(function: Callable[..., None], described: Check) -> Any:
    @functools.wraps(function)
    def run(self: Suite, *args: Any, **kwargs: Any) -> None:
        self.admit(described, *args, *kwargs.values())
        try:
            function(self, *args, **kwargs)
        except FAILURES as error:
            raise self.fell_short(described, error)  # noqa: B904 - it is the same, or has it as its cause
        self.held(described)

    return run


_DECIDING = frozenset({"admit", "fell_short", "held", "bench", "workbench", "checks"})
"""What a suite of a third party leaves as it is."""


class Suite:
    """The base of all suites. A suite is used by subclassing it, with a fixture `make_component`.

    Attributes:
        kit_version: the version of the kit that the subclass was written for; checks that came later
            are skipped until it is raised.
        expected_failures: checks, by id or by the name of the test, that the component is known to fail, with the
            reason: they become strict xfails.
        capabilities: what the component declares; read from the component unless it is set.
    """

    kit_version: ClassVar[int] = KIT_VERSION
    expected_failures: ClassVar[dict[str, str]] = {}
    capabilities: ClassVar[Capabilities | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(__package__ + "."):
            return
        known = {each.method: each.id for base in cls.__mro__[1:] for each in _own_checks(base)}
        for name in vars(cls).keys() & _DECIDING:
            raise TypeError(
                f"{cls.__name__} overrides {name}, which decides whether a check counts. Put what falls short into "
                "expected_failures = {'ID': 'why'}"
            )
        for name in vars(cls).keys() & known.keys():
            raise TypeError(
                f"{cls.__name__} overrides {name} ({known[name]}). A check is not overridden: put the reason "
                f"into expected_failures = {{{known[name]!r}: 'why'}}"
            )
        ids = {each.method: each.id for each in _checks_of(cls)}
        cls.expected_failures = {ids.get(name, name): why for name, why in cls.expected_failures.items()}
        if unknown := cls.expected_failures.keys() - {*ids.values()}:
            raise TypeError(f"{cls.__name__}.expected_failures names no check: {', '.join(sorted(unknown))}")

    @classmethod
    def checks(cls) -> list[Check]:
        """The checks of this suite, by id."""
        return sorted(_checks_of(cls), key=lambda described: (len(described.id), described.id))

    @pytest.fixture(autouse=True)
    def _no_settings_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        forget_settings(monkeypatch)

    @pytest_asyncio.fixture
    async def bench(self, make_component: Factory) -> AsyncIterator[Bench[Any]]:
        """A fresh workbench for one check."""
        async with self.workbench(make_component) as bench:
            yield bench

    def workbench(self, factory: Factory) -> Bench[Any]:
        """What its checks work at."""
        return Bench(factory, self.capabilities)

    def specimen(self, factory: Factory) -> Any:
        """One component (or an awaitable of it), to see what it is and declares."""
        return factory()

    def admit(self, described: Check, *given: Any) -> None:
        """Skips the check if it does not apply to this component."""
        if described.since > self.kit_version:
            pytest.skip(f"{described.id} came with kit version {described.since}")
        benches = [each.capabilities for each in given if isinstance(each, Bench)]
        capabilities = benches[0] if benches else self.capabilities
        reason = None if capabilities is None else described.skipped_for(capabilities)
        if reason is not None:
            pytest.skip(reason)

    def fell_short(self, described: Check, error: BaseException) -> AssertionError:
        """What is raised for a check that fell short: its message begins with the id, its note is the advice.
        An expected failure becomes an xfail."""
        if described.id in self.expected_failures:
            pytest.xfail(f"{described.id}: {self.expected_failures[described.id]}")
        if isinstance(error, AssertionError):
            told = str(error.args[0]) if error.args else explain(error) or described.promise
            error.args = (f"{described.id}: {told}", *error.args[1:])
            failure = error
        else:
            told = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
            failure = KitFailure(f"{described.id}: {told}")
            failure.__cause__ = error
        failure.add_note(f"{described.id}: {described.promise} If this fails, {described.advice}")
        return failure

    def held(self, described: Check) -> None:
        """Fails an expected failure that did not fail."""
        if described.id in self.expected_failures:
            raise KitFailure(f"{described.id} holds now: remove it from expected_failures (strict)")


def forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Takes the settings of qtasks out of the environment: what a component is held to must not hang on them."""
    for field in QueueConfig.model_fields:
        patch.delenv(f"QTASKS_{field.upper()}", raising=False)


def _own_checks(cls: type) -> list[Check]:
    found = (getattr(value, "qtasks_check", None) for value in vars(cls).values())
    return [each for each in found if isinstance(each, Check)]


def _checks_of(cls: type) -> list[Check]:
    found: dict[str, Check] = {}
    for base in reversed(cls.__mro__):
        for described in _own_checks(base):
            other = found.setdefault(described.id, described)
            if other != described:
                raise TypeError(f"{described.id} is the id of {other.method} and of {described.method}")
    for described in found.values():
        if getattr(getattr(cls, described.method), "qtasks_check", None) != described:
            raise TypeError(f"{described.id} never runs: something else is called {described.method} too")
    return list(found.values())


async def run_check(suite: type[Suite], id: str, factory: Factory) -> None:  # noqa: A002 - as in `check`
    """Runs one check without a test runner.

    Parameters:
        suite: the suite.
        id: the check.
        factory: makes components, as the fixture `make_component` does.

    Raises:
        LookupError: the suite has no such check.
        Exception: the check did not hold; the message begins with its id.
    """
    described = next((found for found in suite.checks() if found.id == id), None)
    if described is None:
        raise LookupError(f"{suite.__name__} has no check {id}")
    method = getattr(suite(), described.method)
    if not inspect.iscoroutinefunction(method):
        await asyncio.to_thread(method, factory)  # it has an event loop of its own
        return
    async with suite().workbench(factory) as bench:
        await method(bench)
