"""Faults of the stores: servers killed, stalled, full, read-only, replaced; files full; records damaged."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.redis_server import follows

if TYPE_CHECKING:
    from ..run import Experiment


def corrupt(experiment: Experiment, drawn: random.Random) -> None:
    """A record whose bytes are not readable: it alone is buried."""
    if experiment.backend == "redis":
        _corrupt_hash(experiment)
        return
    with sqlite3.connect(experiment.file, timeout=5) as file:
        row = file.execute("SELECT seq, uuid FROM tasks WHERE status = 0 LIMIT 1").fetchone()
        if row is not None:
            file.execute("UPDATE tasks SET payload = '{\"' WHERE seq = ? AND status = 0", row[:1])
            experiment.spoilt.add(row[1].hex())
    file.close()


def _corrupt_hash(experiment: Experiment) -> None:
    with experiment.server.client(db=experiment.db) as client:
        started = set(client.hkeys("qtasks:{chaos}:run"))
        for uuid in client.hkeys("qtasks:{chaos}:rec"):
            if uuid not in started:
                # From now on it may be claimed, run and finished: then there is nothing to damage.
                spoil = (
                    "return redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 and "
                    "redis.call('HSET', KEYS[1], ARGV[1], 'R')"
                )
                client.eval(spoil, 1, "qtasks:{chaos}:rec", uuid)
                experiment.spoilt.add(uuid.hex())
                return


def disk_full(experiment: Experiment, drawn: random.Random) -> None:
    """The disk of the SQLite file is full for a while (a small tmpfs of its own)."""
    assert experiment.disk is not None
    filler = experiment.disk / "filler"
    until = time.monotonic() + drawn.uniform(0.5, 2.5)
    try:
        while time.monotonic() < until:
            _fill(filler)
            time.sleep(0.02)
    finally:
        filler.unlink()


def _fill(path: Path) -> None:
    for size in (1 << 16, 1 << 12, 1):
        with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(size)) == size:
                pass


def kill_server(experiment: Experiment, drawn: random.Random) -> None:
    """kill -9 of the Redis server, which starts again from its AOF."""
    experiment.server.kill()
    time.sleep(drawn.uniform(0, 1))
    experiment.server.start()


def pause_server(experiment: Experiment, drawn: random.Random) -> None:
    """The Redis server stands still, also for longer than a command waits."""
    experiment.server.pause()
    time.sleep(drawn.uniform(0.2, 3))
    experiment.server.resume()


def promote(experiment: Experiment, drawn: random.Random) -> None:
    """The replica becomes the master, the old one dies or is left behind, and becomes the replica."""
    old, new = experiment.server, experiment.replica
    assert new is not None
    follows(new)
    if drawn.random() < 0.5:
        old.kill()
    # Nobody reaches the old one any more, as when an address moves.
    experiment.network.do(lambda proxy: (proxy.hold(), proxy.cut(), setattr(proxy, "server_port", new.port)))
    with new.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    new.options.pop("replicaof", None)
    experiment.network.do(lambda proxy: proxy.let_go())
    time.sleep(drawn.uniform(0, 1))
    old.options["replicaof"] = f"127.0.0.1 {new.port}"
    if old.process is None:
        old.start()
    else:
        with old.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(new.port))
    experiment.server, experiment.replica = new, old


def forget_scripts(experiment: Experiment, drawn: random.Random) -> None:
    """SCRIPT FLUSH."""
    with experiment.server.client() as client:
        client.script_flush()


def wipe(experiment: Experiment, drawn: random.Random) -> None:
    """FLUSHALL of the broker; the storage is another store."""
    with experiment.server.client() as client:
        client.flushall()


def read_only(experiment: Experiment, drawn: random.Random) -> None:
    """The server becomes a replica of nobody that answers, and refuses writes for a while (READONLY)."""
    with experiment.server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        time.sleep(drawn.uniform(0.2, 2))
        client.execute_command("REPLICAOF", "NO", "ONE")


def memory_full(experiment: Experiment, drawn: random.Random) -> None:
    """maxmemory is reached: writes are refused for a while (OOM)."""
    with experiment.server.client() as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(drawn.uniform(0.2, 2))
        client.config_set("maxmemory", "0")
