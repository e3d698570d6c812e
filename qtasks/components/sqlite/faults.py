"""What an error of SQLite means: wait and try again, give up for now, stop, or one bad row."""

from __future__ import annotations

import sqlite3
from enum import Enum

from qtasks.errors import BackendError, FatalError, TransientError


class Fault(Enum):
    """What to do about an error."""

    BUSY = "busy"
    TRANSIENT = "transient"
    FATAL = "fatal"
    ROW = "row"


_KINDS = {
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_PROTOCOL: Fault.BUSY,
    sqlite3.SQLITE_FULL: Fault.TRANSIENT,
    sqlite3.SQLITE_IOERR: Fault.TRANSIENT,
    sqlite3.SQLITE_NOMEM: Fault.TRANSIENT,
    sqlite3.SQLITE_INTERRUPT: Fault.TRANSIENT,
    sqlite3.SQLITE_READONLY: Fault.FATAL,
    sqlite3.SQLITE_CORRUPT: Fault.FATAL,
    sqlite3.SQLITE_NOTADB: Fault.FATAL,
    sqlite3.SQLITE_CANTOPEN: Fault.FATAL,
    sqlite3.SQLITE_PERM: Fault.FATAL,
    sqlite3.SQLITE_AUTH: Fault.FATAL,
}


def fault_of(error: BaseException) -> Fault:
    """The kind of an error. Whatever is not about the file as a whole is about a row."""
    code = getattr(error, "sqlite_errorcode", None)
    return Fault.ROW if code is None else _KINDS.get(code & 0xFF, Fault.ROW)


def backend_error(error: BaseException, path: object) -> BackendError:
    """The error as the contract names it."""
    kind = fault_of(error)
    detail = f"SQLite file {path}: {error}"
    if kind is Fault.BUSY:
        return TransientError(f"{detail}: another process keeps it locked")
    if kind is Fault.TRANSIENT:
        return TransientError(detail)
    return FatalError(detail)
