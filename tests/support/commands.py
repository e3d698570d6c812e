"""The command line as real processes: started in a folder, read line by line, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import qtasks

WAIT = 30.0
"""Seconds after which a process counts as stuck. Nothing waits that long when all is well."""


def environment(**more: str) -> dict[str, str]:
    """The environment of a process: nothing of qtasks in it but where the package lies."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QTASKS_")}
    source = str(Path(qtasks.__file__).resolve().parent.parent)
    return {**kept, "PYTHONPATH": source, "COLUMNS": "200", "NO_COLOR": "1", **more}


def run(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "qtasks", *args], cwd=folder, env=environment(**env), capture_output=True, text=True,
        timeout=WAIT, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Running:
    """A command that runs; its output (stderr with stdout) is read as it comes."""

    def __init__(self, folder: Path, args: tuple[str, ...], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "qtasks", *args], cwd=folder, env=environment(**env), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        for line in stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    @property
    def output(self) -> str:
        """Everything so far."""
        return "\n".join(self.lines)

    def wait_for(self, wanted: Callable[[str], bool], count: int = 1) -> bool:
        """Waits for the n-th line that is wanted; gives whether it came before the output ended."""
        deadline = time.monotonic() + WAIT
        with self._more:
            while sum(map(wanted, self.lines)) < count:
                if self._ended:
                    return False
                if not self._more.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"no such line came in {WAIT} s:\n{self.output}")
        return True

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to this process alone."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, when all its output is read."""
        code = self.process.wait(WAIT)
        with self._more:
            self._more.wait_for(lambda: self._ended, WAIT)
        return code


@contextmanager
def running(folder: Path, *args: str, **env: str) -> Iterator[Running]:
    """A command that runs in the background, ended with what it started at the latest when the block is left."""
    command = Running(folder, args, env)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()
        stdout = command.process.stdout
        with command._more:
            command._more.wait_for(lambda: command._ended, 5)
        assert stdout is not None
        stdout.close()
