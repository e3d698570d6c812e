"""Records, files and other processes for the tests of the SQLite backend."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID, uuid4

from qtasks.components.primitives import DeliveryHandle, Outcome, Settle
from qtasks.components.sqlite import SQLiteBroker, SQLiteStorage
from qtasks.schemas import TaskRecord, TaskStatusEnum

QUEUE = ("default",)


@asynccontextmanager
async def opened(path, app="app"):
    """A broker and a storage on a file."""
    broker, storage = SQLiteBroker(path), SQLiteStorage(path)
    broker.app_name = storage.app_name = app
    await broker.open()
    try:
        await storage.open()
        yield broker, storage
    finally:
        await storage.close()
        await broker.close()


def record(**changes) -> TaskRecord:
    """A new record."""
    return TaskRecord(**{"uuid": uuid4(), "task_name": "t", "digest": "d", "created_at": 1.5, **changes})


def success(handle: DeliveryHandle, returning=None) -> Settle:
    """A settle that ends well."""
    changes = {
        "status": TaskStatusEnum.SUCCESS, "updated_at": 2.5, "finished_at": 2.5, "expires_at": 9e9,
        "returning": returning,
    }  # fmt: skip
    return Settle(handle, Outcome.SUCCESS, changes)


@contextmanager
def raw(path):
    """A plain connection to the file."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def refuse(path, uuid: UUID) -> None:
    """From now on the file takes no write of this task."""
    with raw(path) as connection:
        for event in ("INSERT", "UPDATE"):
            connection.execute(
                f"CREATE TRIGGER refuse_{event}_{uuid.hex} BEFORE {event} ON tasks WHEN NEW.uuid = x'{uuid.hex}' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )


@contextmanager
def process(code: str, *args: object):
    """Another process that talks to the test over its pipes."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()
