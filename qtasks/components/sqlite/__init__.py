"""The SQLite backend: the embedded default, for any number of processes on one machine."""

from qtasks.components.sqlite.broker import SQLiteBroker
from qtasks.components.sqlite.global_config import SQLiteGlobalConfig
from qtasks.components.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteBroker", "SQLiteGlobalConfig", "SQLiteStorage"]
