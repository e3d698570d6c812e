"""What chaos makes of the witness files: an error of a plugin is told from a loss, a recovery from a wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from .recoveries import Back, Span, backs, unserved
from .saboteur import excused, told
from .site import Site
from .table import Row, total

BLAMED = "PluginError: plugin 'saboteur' failed in trigger '{}': RuntimeError: sabotage"


@pytest.mark.parametrize(
    ("trace", "is_excused"),
    [
        (BLAMED.format("task_executor_decode"), True),
        ("plugin 'saboteur' returned a wrong value from trigger 'task_executor_run_task': expected str, got 42", True),
        ("plugin 'saboteur' ran longer than its plugin_timeout of 0.5 s in trigger 'task_executor_run_task_gen'", True),
        ("EncodeError: object has no JSON form", True),
        (BLAMED.format("storage_get"), False),
        (BLAMED.format("worker_execute_after"), False),
        (BLAMED.replace("saboteur", "retry").format("task_executor_decode"), False),
        ("its worker was lost 60 times: deliveries are used up", False),
    ],
)  # fmt: skip
def test_a_saboteur_excuses_an_error_only_where_a_plugin_may_end_a_task(trace: str, is_excused: bool) -> None:
    assert excused(trace) is is_excused


def test_incidents_are_counted_by_kind() -> None:
    incidents = [["a", "signal", "raised"], ["b", "replacement", "junk"], ["b", "replacement", "junk"]]
    assert told(incidents) == "3 incidents at 2 triggers (replacements junk 2, signals raised 1)"


@pytest.fixture
def place(tmp_path: Path) -> Site:
    """Worker 1 is killed at 10 while it runs `a`; worker 2 serves from 0, worker 3 from 20."""
    site = Site(tmp_path)
    site.noted("acked", "a", "work")
    for pid, at in ((1, 0), (2, 0), (3, 20)):
        site.noted("workers", pid, "up", at)
    site.noted("runs", "a", "begin", 1, 9)
    site.noted("kills", 1, 10)
    return site


def test_recovery_is_from_the_kill_until_the_task_is_queued_again(place: Site) -> None:
    place.noted("restored", "a", 12)
    place.noted("runs", "a", "begin", 2, 17)
    assert backs(place) == [Back(2, 5)]


def test_without_a_sweep_that_was_seen_it_is_until_the_next_begin(place: Site) -> None:
    place.noted("runs", "a", "begin", 2, 13)
    assert backs(place) == [Back(3, 0)]


def test_it_begins_when_the_store_is_there_again(place: Site) -> None:
    place.noted("away", 11, 15)
    place.noted("restored", "a", 16)
    place.noted("runs", "a", "begin", 2, 16.5)
    assert backs(place) == [Back(1, 0.5)]


def test_it_begins_when_a_worker_serves_again(place: Site) -> None:
    place.noted("stopped", 2, 11)
    place.noted("restored", "a", 21)
    place.noted("runs", "a", "begin", 3, 21)
    assert backs(place) == [Back(1, 0)]


def test_what_came_back_before_the_kill_or_while_the_store_was_away_is_left_out(place: Site) -> None:
    place.noted("restored", "a", 9.5)
    place.noted("runs", "a", "begin", 2, 13)
    assert backs(place) == []
    place.noted("runs", "b", "begin", 1, 9)
    place.noted("restored", "b", 12)
    place.noted("runs", "b", "begin", 2, 13)
    assert backs(place) == [Back(2, 1)]
    place.noted("away", 11, 14)
    assert backs(place) == []


def test_a_worker_that_is_paused_or_blocked_does_not_serve(place: Site) -> None:
    place.noted("paused", 2, 11, 13)
    place.noted("acked", "slow", "blocking")
    place.noted("runs", "slow", "begin", 2, 15)
    place.noted("runs", "slow", "end", 2, 18)
    assert unserved(place) == [Span(11, 13), Span(15, 18)]


def test_rows_are_summed() -> None:
    rows = [Row("redis", "kill", 1, acked=5, kills=2, repeats=3, recovery=[1.0], waited=[0.0])] * 2
    assert str(total(rows)) == (
        "| **all** |  | 10 | 0 | 4 | 0 | 0 | 6 | 1.50 | 1.00 / 1.00 | 0.00 / 0.00 |  |"
    )
