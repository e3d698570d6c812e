"""The tables of an SQLite file, and how a connection to it is made ready.

One table holds a task's entry (the broker's half) and its record (the storage's half): with both in
one row a claim or a settle is one update. Where only one of them lives in this file, the other half
is NULL. Two tables were measured at about 70 % of the rate.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from qtasks.errors import FatalError

VERSION: Final = 1
BUSY_TIMEOUT: Final = 5.0
"""Seconds that a statement waits for another process's transaction."""

READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2
BURIED: Final = 3
"""States of an entry."""

NEW: Final = 0
PROCESS: Final = 1
SUCCESS: Final = 2
ERROR: Final = 3
CANCEL: Final = 4
"""Statuses of a record, as they are stored; above `PROCESS` they are terminal."""

_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
    """CREATE TABLE apps (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 0,
        exclusive_owner TEXT, exclusive_until REAL
    ) STRICT""",
    """CREATE TABLE tasks (
        seq INTEGER PRIMARY KEY, app INTEGER NOT NULL, uuid BLOB NOT NULL,
        state INTEGER, queue TEXT, priority INTEGER, due_at REAL, pushed_at REAL,
        entry_epoch INTEGER, entry_owner TEXT, entry_deliveries INTEGER, restored INTEGER,
        lease_until REAL, reason TEXT,
        status INTEGER, epoch INTEGER, owner TEXT, attempt INTEGER, deliveries INTEGER,
        created_at REAL, updated_at REAL, available_at REAL, unique_key TEXT, payload ANY,
        started_at REAL, finished_at REAL, expires_at REAL, result BLOB, traceback TEXT,
        cancel_reason TEXT, cancel_requested INTEGER, dead INTEGER, progress BLOB
    ) STRICT""",
    "CREATE UNIQUE INDEX task_uuid ON tasks (app, uuid)",
    "CREATE INDEX task_ready ON tasks (app, queue, priority, seq) WHERE state = 0",
    "CREATE INDEX task_delayed ON tasks (app, due_at) WHERE state = 1",
    "CREATE INDEX task_leased ON tasks (app, lease_until) WHERE state = 2",
    "CREATE INDEX task_buried ON tasks (app, seq) WHERE state = 3",
    "CREATE INDEX task_open ON tasks (app, seq) WHERE status <= 1",
    "CREATE UNIQUE INDEX task_unique ON tasks (app, unique_key) WHERE unique_key IS NOT NULL AND status <= 1",
    "CREATE INDEX task_dead ON tasks (app, finished_at, seq) WHERE dead = 1",
    "CREATE INDEX task_expiring ON tasks (app, expires_at) WHERE expires_at IS NOT NULL AND status >= 2",
    """CREATE TABLE items (
        app INTEGER NOT NULL, uuid BLOB NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (app, uuid, number)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE config (
        app INTEGER NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
        version INTEGER NOT NULL, expires_at REAL, PRIMARY KEY (app, name, key)
    ) STRICT, WITHOUT ROWID""",
)


def prepare(connection: sqlite3.Connection, *, fsync: bool, cache_kib: int = 16_384) -> None:
    """Sets what holds for one connection."""
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")
    connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA temp_store = MEMORY")


def install(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables of a new file, and checks those of an old one.

    Raises:
        FatalError: the file is of a newer version of qtasks, or it is not a file of qtasks.
    """
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise FatalError(f"{path} cannot be switched to WAL (journal mode {mode!r}): put it on a local disk")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _install(connection, path)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _install(connection: sqlite3.Connection, path: Path) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute("INSERT INTO meta (name, value) VALUES ('schema', ?)", (VERSION,))
        return
    if not {"meta", "apps", "tasks"} <= tables:
        raise FatalError(f"{path} is an SQLite file of another program: choose another file")
    found = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    if found is None or found[0] > VERSION:
        version = "without a version" if found is None else f"of version {found[0]}"
        raise FatalError(
            f"{path} has a schema {version}; this qtasks knows up to {VERSION}: upgrade qtasks or use another file"
        )


def app_id(connection: sqlite3.Connection, name: str) -> int:
    """The number of an app in this file, given when it is first seen."""
    connection.execute("INSERT INTO apps (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    found: int = connection.execute("SELECT id FROM apps WHERE name = ?", (name,)).fetchone()[0]
    return found
