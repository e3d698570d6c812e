"""The parent of worker processes: starts them, forwards signals, replaces lost ones, reloads on changes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path

from qtasks.cli.exits import Code, run_async
from qtasks.cli.serve import PARENT

log = logging.getLogger("qtasks.processes")

BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 30.0
HEALTHY = 10.0
"""Seconds that a process has to live for its next loss to count as the first one again."""
MAX_LOSSES = 8
"""Losses in a row, none of them healthy, after which a process is given up."""
LOOK = 0.5
"""Seconds between two looks at the files."""
SKIPPED = {"__pycache__", "node_modules", "venv", "site-packages"}


class Family:
    """Worker processes and their parent.

    Parameters:
        command: what starts one.
        count: how many there are.
        reload: start them again when a `.py` file below the current folder changes.
    """

    def __init__(self, command: Sequence[str], count: int, *, reload: bool) -> None:
        self._command = list(command)
        self._count = count
        self._reload = reload
        self._children: set[Process] = set()
        self._signals = 0
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()

    def run(self) -> int:
        """Runs until all have ended; gives the exit code: 0 if all ended well."""
        return run_async(self._run(), self._on_signal)

    async def _run(self) -> int:
        watching = asyncio.create_task(self._watch()) if self._reload else None
        codes = await asyncio.gather(*(self._keep(number + 1) for number in range(self._count)))
        if watching is not None:
            watching.cancel()
        return next((code for code in codes if code), Code.OK)

    def _on_signal(self, number: int) -> None:
        log.info("%s: passed on to %d processes", signal.Signals(number).name, len(self._children))
        self._stop.set()
        self._signals += 1
        self._signal(number)

    def _signal(self, number: int) -> None:
        for child in self._children:
            if child.returncode is None:
                child.send_signal(number)

    async def _keep(self, number: int) -> int:
        """Keeps one process running; gives its last exit code."""
        losses = 0
        while True:
            self._changed.clear()
            began = time.monotonic()
            code = await self._live(number)
            if self._stop.is_set():
                # It may not have been far enough to take the signal as anything but its end.
                asked = code in (Code.OK, Code.INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)
                return Code.OK if asked and self._signals == 1 else abs(code)
            if self._changed.is_set():
                losses = 0
                continue
            if self._reload and code in (Code.FAILED, Code.USAGE):
                log.error("worker process %d ended with exit code %d; waiting for a change", number, code)
                await self._until(self._changed, None)
                continue
            if code in (Code.OK, Code.USAGE):
                return code
            losses = 1 if time.monotonic() - began >= HEALTHY else losses + 1
            if losses == MAX_LOSSES:
                log.critical("worker process %d was lost %d times in a row; it is given up", number, losses)
                return Code.FAILED
            pause = min(BACKOFF_FIRST * 2 ** (losses - 1), BACKOFF_LONGEST)
            log.error("worker process %d %s; another one starts in %.3g s", number, _ending(code), pause)
            await self._until(self._stop, pause)
            if self._stop.is_set():
                return Code.FAILED

    async def _live(self, number: int) -> int:
        # A group of its own: Ctrl-C on a terminal must not reach it twice.
        child = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, env={**os.environ, PARENT: "1"}, process_group=0
        )
        self._children.add(child)
        log.info("worker process %d is pid %d", number, child.pid)
        if self._stop.is_set():
            child.send_signal(signal.SIGTERM)
        try:
            return await child.wait()
        finally:
            self._children.discard(child)

    async def _until(self, event: asyncio.Event, seconds: float | None) -> None:
        ends = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._stop.wait())}
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    # --- Reload -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        seen = await asyncio.to_thread(snapshot, Path.cwd())
        while True:
            await asyncio.sleep(LOOK)
            found = await asyncio.to_thread(snapshot, Path.cwd())
            if found != seen:
                changed = sorted(str(path) for path, _ in found.items() ^ seen.items())
                log.info("%s changed: starting again", changed[0])
                seen = found
                self._changed.set()
                self._signal(signal.SIGTERM)


def snapshot(folder: Path) -> dict[Path, int]:
    """The `.py` files below a folder, with the times of their last change."""
    found = {}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        for name in names:
            if name.endswith(".py"):
                path = Path(root, name)
                try:
                    found[path] = path.stat().st_mtime_ns
                except OSError:
                    continue  # it is gone already
    return found


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
