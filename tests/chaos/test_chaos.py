"""Chaos in small, in every run of the tests; in large behind the `nightly` marker."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .faults import BACKENDS, FAULTS
from .run import SIZES, Size, applicable, run
from .table import Row

SMALL_SEED = 7
SEED = random.SystemRandom().randrange(10**6)
"""Of the large runs, each time another one."""
TINY = Size(150, 2, 2)


def holds(backend: str, size: Size, fault: str, folder: Path, seed: int = SEED) -> None:
    """Runs it; a failure names the command that repeats it."""
    report = run(backend, size, seed, fault, folder)
    again = (
        f"python -m tests.chaos --backend {backend} --tasks {size.tasks} --faults {size.faults} --seed {seed} "
        f"--fault {fault}"
    )
    assert not report.failures, "\n".join(
        [again, str(Row.of(backend, fault, seed, report, 0.0)), *report.failures[:20]]
    )
    assert report.acked >= size.tasks
    assert report.faults == (size.faults if fault != "none" else 0)


# The split pairing takes longest, and is thorough: the others have the same parts.
@pytest.mark.parametrize(
    "backend", [pytest.param(each, marks=pytest.mark.thorough if "+" in each else ()) for each in BACKENDS]
)
def test_nothing_is_lost_in_small(backend: str, tmp_path: Path) -> None:
    holds(backend, TINY, "mixed", tmp_path, SMALL_SEED)


def test_nothing_runs_twice_without_a_fault(tmp_path: Path) -> None:
    holds("sqlite", TINY, "none", tmp_path, SMALL_SEED)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_lost_in_large(backend: str, tmp_path: Path) -> None:
    holds(backend, SIZES["long"], "mixed", tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("backend", "fault"),
    [(backend, fault) for backend in BACKENDS for fault in FAULTS if backend in FAULTS[fault].backends],
)
def test_one_fault_alone(backend: str, fault: str, tmp_path: Path) -> None:
    if fault not in applicable(backend, "all"):
        pytest.skip("no small disk can be mounted here")
    holds(backend, SIZES["alone"], fault, tmp_path)
