"""Chaos in small, in every run of the tests; in large behind the `nightly` marker."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .__main__ import row
from .run import BACKENDS, SIZES, Size, run

SEED = random.SystemRandom().randrange(10**6)


def holds(backend: str, size: Size, fault: str, folder: Path) -> None:
    """Runs it; a failure names the command that repeats it."""
    report = run(backend, size, SEED, fault, folder)
    again = f"python -m tests.chaos --backend {backend} --tasks {size.tasks} --faults {size.faults} --seed {SEED} --fault {fault}"  # noqa: E501
    assert not report.failures, "\n".join([again, row(backend, fault, SEED, report), *report.failures[:20]])
    assert report.acked == size.tasks or fault in ("block", "poison", "mixed")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_lost_in_small(backend: str, tmp_path: Path) -> None:
    holds(backend, SIZES["smoke"], "mixed", tmp_path)


def test_nothing_runs_twice_without_a_fault(tmp_path: Path) -> None:
    holds("sqlite", SIZES["smoke"], "none", tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_lost_in_large(backend: str, tmp_path: Path) -> None:
    holds(backend, SIZES["long"], "mixed", tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("fault", ["corrupt", "failpoint", "kill", "pause", "poison", "sabotage"])
def test_one_fault_alone(fault: str, tmp_path: Path) -> None:
    holds("sqlite", Size(1500, 12, 2), fault, tmp_path)
