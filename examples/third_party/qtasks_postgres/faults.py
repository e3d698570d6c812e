"""What an error of PostgreSQL means: the same again, later, never, or one bad item."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg_pool import PoolTimeout

from qtasks.errors import BackendError, FatalError, TransientError

_LATER: Final = ("08", "53", "55", "57", "58")
"""Classes of SQLSTATE: connection, resources, locks, shutdown, the system."""
_READ_ONLY: Final = "25006"
"""A server that does not write for now: after a failover, say."""


def lost_a_race(error: BaseException) -> bool:
    """Whether the transaction was rolled back for another's sake (a deadlock, say): nothing of it is done."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("40")


def about_an_item(error: BaseException) -> bool:
    """Whether a value does not fit its column: others of the same batch may."""
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError)


def backend_error(error: BaseException, label: str) -> BackendError:
    """The error as the contract names it."""
    told = f"{label}: {str(error).strip() or type(error).__name__}"
    state = getattr(error, "sqlstate", None)
    if state is None:
        gone = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | OSError)
        return TransientError(told) if gone else FatalError(told)
    return (
        TransientError(told)
        if state[:2] in _LATER or state == _READ_ONLY or lost_a_race(error)
        else FatalError(told)
    )
