"""The protocol as a model: every state of it keeps the invariants, and no mutant of it does."""

import sys

import pytest

from .explore import Violation, explore
from .protocol import MUTANTS, Protocol
from .state import Faults, State

NIGHTLY = Faults(total=3)


@pytest.mark.parametrize("colocated", [False, True], ids=["split", "colocated"])
def test_every_state_keeps_the_invariants(colocated: bool, capsys: pytest.CaptureFixture[str]) -> None:
    explored = explore(Protocol(colocated=colocated))
    with capsys.disabled():
        sys.stdout.write(f" {explored.states} states, {explored.steps} steps, {explored.ends} ends ")
    assert explored.ends


@pytest.mark.nightly
@pytest.mark.parametrize("colocated", [False, True], ids=["split", "colocated"])
def test_every_state_of_the_large_model(colocated: bool, capsys: pytest.CaptureFixture[str]) -> None:
    explored = explore(Protocol(colocated=colocated), State(faults=NIGHTLY), limit=20_000_000)
    with capsys.disabled():
        sys.stdout.write(f" {explored.states} states, {explored.steps} steps, {explored.ends} ends ")


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_breaks_an_invariant(mutant: str) -> None:
    with pytest.raises(Violation) as broken:
        explore(Protocol(colocated=False, mutant=mutant))
    sys.stdout.write(str(broken.value))
