"""The plugin: what it tells, and that it passes the kit's checks."""

from __future__ import annotations

import pytest
from qtasks_postgres.slow_tasks import SlowTasks

from qtasks import QueueTasks


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 1), (60.0, 0)])
async def test_slow_tasks_are_told(server, caplog, seconds, told):
    app = QueueTasks(url=server.url(), plugins=[SlowTasks(seconds)])

    @app.task(name="ship")
    async def ship() -> None: ...

    async with app:
        await ship.add_task()
        await app.serve(until_idle=True)
    lines = [record.getMessage() for record in caplog.records if record.name == "qtasks_postgres.slow_tasks"]
    assert len(lines) == told
    assert all(line.startswith("task ship (") for line in lines)
