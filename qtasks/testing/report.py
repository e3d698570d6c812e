"""Runs a suite without a test runner, and says what holds, what falls short and what was skipped."""

from __future__ import annotations

import asyncio
import inspect
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from qtasks.components.broker import Broker
from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Capabilities
from qtasks.components.storage import Storage
from qtasks.testing.bench import Factory, common, parts_of
from qtasks.testing.checks import KIT_VERSION, Check, Suite, forget_settings, run_check

CHECK_TIMEOUT = 120.0
"""Seconds after which a check that hangs is given up."""

PROFILE = "qtasks-conformance"
settings.register_profile(
    PROFILE,
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Verdict(StrEnum):
    """What became of a check. EXPECTED: it fell short, and `expected_failures` says why."""

    HOLDS = "holds"
    FALLS_SHORT = "falls short"
    SKIPPED = "skipped"
    EXPECTED = "expected"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check.

    Attributes:
        told: what came instead of what was promised, or why it was skipped.
        capability: where it was skipped for a capability, its name.
        error: what was raised, where it fell short.
    """

    check: Check
    verdict: Verdict
    told: str = ""
    capability: str | None = None
    error: BaseException | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data (JSON)."""
        return {
            "id": self.check.id, "verdict": self.verdict.value, "promise": self.check.promise,
            "advice": self.check.advice, "told": self.told, "capability": self.capability,
            "since": self.check.since,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What a suite found out about a component.

    Attributes:
        suite: the name of the suite.
        component: the name of the component's class; of a pair, both.
        capabilities: what it declares; `None` where its suite asks for none.
        results: one for each check, by id.
        kit_version: the version of the kit that ran.
    """

    suite: str
    component: str
    capabilities: Capabilities | None
    results: tuple[Result, ...]
    kit_version: int = KIT_VERSION

    @property
    def conforms(self) -> bool:
        """Whether nothing falls short."""
        return not self.of(Verdict.FALLS_SHORT)

    def of(self, verdict: Verdict) -> list[Result]:
        """The results of this kind."""
        return [result for result in self.results if result.verdict is verdict]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data (JSON)."""
        return {
            "suite": self.suite, "component": self.component, "kit_version": self.kit_version,
            "conforms": self.conforms,
            "capabilities": None if self.capabilities is None else asdict(self.capabilities),
            "counts": {verdict.value: len(self.of(verdict)) for verdict in Verdict},
            "checks": [result.to_dict() for result in self.results],
        }  # fmt: skip


def run_suite(
    suite: type[Suite], factory: Factory, *, only: Sequence[str] = (),
    after_each: Callable[[], Coroutine[Any, Any, None]] | None = None,
    told: Callable[[Result], None] | None = None,
) -> Report:  # fmt: skip
    """Runs the checks of a suite, one after the other, each in an event loop of its own.

    Parameters:
        suite: the suite.
        factory: makes components, as the fixture `make_component` does.
        only: the ids of the checks to be run; without any, all.
        after_each: tidies up what a check has left.
        told: is told of each result as it comes.

    Raises:
        LookupError: the suite has no such check.
        Exception: what the factory raises.
    """
    checks = suite.checks()
    if unknown := set(only) - {each.id for each in checks}:
        raise LookupError(f"{suite.__name__} has no check {', '.join(sorted(unknown))}")
    component, capabilities = asyncio.run(_look_at(suite().specimen(factory)))
    results = []
    with _undisturbed():
        for described in checks:
            if only and described.id not in only:
                continue
            try:
                result = _result(suite, described, factory, capabilities)
            finally:
                if after_each is not None:
                    asyncio.run(after_each())
            results.append(result)
            if told is not None:
                told(result)
    return Report(suite.__name__, component, capabilities, tuple(results))


async def _look_at(made: Any) -> tuple[str, Capabilities | None]:
    parts = parts_of(await made if inspect.isawaitable(made) else made)
    declared = [part.capabilities for part in parts if isinstance(part, Broker | Storage | GlobalConfig)]
    return " + ".join(type(part).__name__ for part in parts), common(declared) if declared else None


def _result(
    suite: type[Suite], described: Check, factory: Factory, capabilities: Capabilities | None
) -> Result:
    try:
        _run(suite, described, factory)
    except pytest.skip.Exception as skipped:
        return Result(described, Verdict.SKIPPED, str(skipped), _capability(described, capabilities))
    except pytest.xfail.Exception as expected:
        return Result(described, Verdict.EXPECTED, str(expected).removeprefix(f"{described.id}: "))
    except TimeoutError as error:
        told = f"it did not come to an end within {CHECK_TIMEOUT:.0f} s"
        return Result(described, Verdict.FALLS_SHORT, told, error=error)
    except (Exception, asyncio.CancelledError, SystemExit) as error:
        told = _told(described, error)
        return Result(described, Verdict.FALLS_SHORT, told, error=error)
    return Result(described, Verdict.HOLDS)


def _told(described: Check, error: BaseException) -> str:
    """What was raised, and what was noted on it: the shrunk program of a state machine, say."""
    notes = [note for each in (error, error.__cause__) for note in getattr(each, "__notes__", ())]
    noted = [note for note in notes if not note.startswith(f"{described.id}: ")]
    return "\n".join([str(error).removeprefix(f"{described.id}: ") or type(error).__name__, *noted])


def _run(suite: type[Suite], described: Check, factory: Factory) -> None:
    method = getattr(suite(), described.method)
    if not inspect.iscoroutinefunction(method):
        method(factory)  # it has event loops of its own
        return

    async def bounded() -> None:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await run_check(suite, described.id, factory)

    asyncio.run(bounded())


def _capability(described: Check, capabilities: Capabilities | None) -> str | None:
    if capabilities is None:
        return None
    missing = [name for name in described.needs if not getattr(capabilities, name)]
    return next(iter(missing + [name for name in described.lacks if getattr(capabilities, name)]), None)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The same examples each time, no settings of the environment, nothing written here, no warnings."""
    before = settings.get_current_profile_name()
    with (
        tempfile.TemporaryDirectory(prefix="qtasks-") as folder,
        warnings.catch_warnings(),
        pytest.MonkeyPatch.context() as patch,
    ):
        warnings.simplefilter("ignore")
        patch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", folder)
        forget_settings(patch)
        settings.load_profile(PROFILE)
        try:
            yield
        finally:
            settings.load_profile(before)
