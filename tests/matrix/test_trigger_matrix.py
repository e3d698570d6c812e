"""The trigger matrix: every trigger by every behaviour of a plugin, `def` and `async def`, on every backend.

Each cell asserts the outcome that the delivery protocol names (its table "When a plugin fails"), and ends
with a worker that is alive, an empty queue and no open record.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..apps import BACKENDS, assert_quiet
from . import outcomes
from .effects import NEXT
from .scenario import Scenario
from .table import OUTCOMES, TRIGGERS, Cell, Outcome, cells

RUNS = {
    Outcome.PRODUCER: outcomes.producer,
    Outcome.BEFORE_RUN: outcomes.before_run,
    Outcome.RESULT: outcomes.result,
    Outcome.RETRY: outcomes.retry,
    Outcome.FINISH: outcomes.finishing,
    Outcome.CLIENT: outcomes.client,
    Outcome.CONFIG: outcomes.config,
    Outcome.SIGNAL: outcomes.signal,
}
CELLS = cells()


def test_the_matrix_has_every_trigger_in_every_place(record_property: pytest.RecordProperty) -> None:
    """52 triggers, two of which fire in a worker and in a client."""
    assert {cell.trigger for cell in CELLS} == set(TRIGGERS)
    assert len(TRIGGERS) == 52
    assert sum(map(len, OUTCOMES.values())) == 54
    count = len(CELLS) * len(BACKENDS)
    record_property("cells", count)
    assert count == 54 * (1 + 9 * 2) * 2


@pytest.mark.parametrize(
    "backend",
    [pytest.param(each, marks=() if each == "memory" else pytest.mark.thorough) for each in BACKENDS],
)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
async def test_cell(cell: Cell, backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One cell."""
    s = Scenario(cell, backend, tmp_path)
    await RUNS[cell.outcome](s)
    outcomes.check_call(s, caplog)
    failed = outcomes.fails(s) and not (cell.behaviour == "wrong shape" and cell.trigger in _NO_JUNK)
    if cell.outcome is Outcome.SIGNAL and cell.behaviour == "TaskDefer":
        assert s.app.pm.errors["probe", cell.trigger] == 1  # it raises at its first call only
    elif failed or (cell.outcome is Outcome.SIGNAL and cell.behaviour in outcomes.CONTROLS):
        outcomes.check_counted(s, caplog, isolated=cell.outcome is Outcome.SIGNAL)
    elif cell.behaviour not in outcomes.CONTROLS:
        assert s.app.pm.errors == {}
    if (
        cell.behaviour in ("replaces", "partial")
        and cell.trigger in NEXT
        and cell.outcome is not Outcome.CLIENT
    ):
        assert s.following, f"{NEXT[cell.trigger]} did not follow"
        outcomes.check_following(s)
    async with s.app:
        await assert_quiet(s.app)


_NO_JUNK = outcomes.ANY_VALUE | set(OUTCOMES[Outcome.SIGNAL])
"""Triggers where no return is wrong: any value is legal, or it is ignored."""
