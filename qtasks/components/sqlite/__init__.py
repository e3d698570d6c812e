"""The SQLite backend: broker, storage and global config in one file, shared by processes of one machine."""

from qtasks.components.sqlite.broker import SQLiteBroker
from qtasks.components.sqlite.global_config import SQLiteGlobalConfig
from qtasks.components.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteBroker", "SQLiteGlobalConfig", "SQLiteStorage"]
