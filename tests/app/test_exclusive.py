"""Where one of two stores is not shared between processes, one process runs the app, and takes an id for it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from qtasks import QueueTasks
from qtasks.components.memory import MemoryBroker
from qtasks.components.sqlite import SQLiteStorage
from qtasks.errors import ExclusiveError, TransientError

from ..apps import make_app


class Away(SQLiteStorage):
    """The answer to the first tries to take the id is lost, but the id is taken."""

    lost = 0

    async def hold_exclusive(self, owner: str, ttl: float) -> bool:
        held = await super().hold_exclusive(owner, ttl)
        if self.lost:
            self.lost -= 1
            raise TransientError("the connection was cut")
        return held


def mixed(folder: Path) -> tuple[QueueTasks, Away]:
    storage = Away(str(folder / "results.db"))
    return make_app("memory", folder, broker=MemoryBroker(), storage=storage), storage


async def test_a_second_process_is_refused_until_the_first_has_stopped(tmp_path: Path) -> None:
    (first, _), (second, _) = mixed(tmp_path), mixed(tmp_path)
    async with first:
        with pytest.raises(ExclusiveError, match="MemoryBroker is not shared"):
            await second.open()
    async with second:
        pass


async def test_a_worker_asks_again_where_the_answer_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not refused by the id that it has got itself."""
    app, storage = mixed(tmp_path)
    storage.lost = 2

    with caplog.at_level(logging.WARNING, "qtasks.starter"):
        await app.serve(until_idle=True)
    assert storage.lost == 0
    assert caplog.text.count("the connection was cut") == 2


async def test_who_opens_the_app_is_told(tmp_path: Path) -> None:
    app, storage = mixed(tmp_path)
    storage.lost = 1
    with pytest.raises(TransientError, match="the connection was cut"):
        await app.open()
