"""The properties are sharp: each of the mutants is killed by one of them."""

from __future__ import annotations

import pytest

from tests.properties.mutants import MUTANTS, Mutant, kill


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # what a broken chain leaves behind, an awaitable say, is no news
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant: Mutant) -> None:
    killer = kill(mutant)
    assert killer is not None, f"no property notices that {mutant.name}"
    assert killer.startswith("test_")


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
