"""Notices that the file has changed: at once when this process wrote, soon when another one did.

`PRAGMA data_version` tells of other connections' commits. It and the look for due work read a few
pages of shared memory (about ten microseconds, never blocked by a writer in WAL mode), so they run on
the event loop over a connection of their own; a trip to another thread would cost ten times that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qtasks.components.sqlite.schema import prepare

SHORTEST, LONGEST = 0.001, 0.02
"""Seconds between two looks, just after activity and after a while without."""

_SLACKEN: Final = 0.05


class Watch:
    """Wakes those who wait for a change of the file. Used on its event loop only.

    Parameters:
        path: an existing SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        prepare(self._connection, fsync=False, cache_kib=512)
        self._connection.execute("PRAGMA busy_timeout = 0")
        self._connection.execute("PRAGMA query_only = 1")
        self._version = self._look()
        self._active_at = self._loop.time()
        self._waiting: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def register(self) -> asyncio.Future[None]:
        """A future that the next change resolves; cancel it when it is not needed any more."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if self._timer is None:
            self._timer = self._loop.call_later(SHORTEST, self._tick)
        return future

    def changed(self) -> None:
        """This process has written."""
        self._active_at = self._loop.time()
        if self._waiting:
            # Looked at here, so that the next tick does not take our own commit for news.
            self._version = self._look()
            self._wake()

    def next_due(self, app: int, queues: Sequence[str], now: float) -> float | None:
        """When the next entry of these queues is due (Unix seconds; at latest `now` if one is ready);
        `None` if none waits.
        """
        try:
            for queue in queues:
                ready = self._connection.execute(
                    "SELECT 1 FROM tasks WHERE app = ? AND queue = ? AND state = 0 LIMIT 1", (app, queue)
                ).fetchone()
                if ready is not None:
                    return now
            # It may be of another queue; then the caller looks again too early, which is harmless.
            row = self._connection.execute(
                "SELECT due_at FROM tasks WHERE app = ? AND state = 1 ORDER BY due_at LIMIT 1", (app,)
            ).fetchone()
        except sqlite3.OperationalError:
            return now  # locked for a moment: the claim itself will find out
        return None if row is None else float(row[0])

    def close(self) -> None:
        """Ends the watching; whoever still waits is woken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        self._connection.close()

    def _look(self) -> int:
        try:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.OperationalError:
            return -1  # locked for a moment: taken for a change, which is only a hint

    def _wake(self) -> None:
        for future in tuple(self._waiting):
            if not future.done():
                future.set_result(None)

    def _tick(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        version = self._look()
        now = self._loop.time()
        if version != self._version:
            self._version = version
            self._active_at = now
            self._wake()
        pause = min(LONGEST, max(SHORTEST, (now - self._active_at) * _SLACKEN))
        self._timer = self._loop.call_later(pause, self._tick)
