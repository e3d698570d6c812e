"""The global config on an SQLite file."""

from __future__ import annotations

import sqlite3
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from qtasks.codec import decode, encode
from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Capabilities, Versioned
from qtasks.components.sqlite.member import CAPABILITIES, SQLiteMember

_ALIVE = "app = ? AND (expires_at IS NULL OR expires_at > ?)"


class SQLiteGlobalConfig(SQLiteMember, GlobalConfig):
    """Shares values over one SQLite file."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    async def put(
        self, name: str, key: str, value: Any, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        now = self.clock()
        expires_at = None if ttl is None else now + ttl
        encoded = encode(value).decode()

        def job(db: sqlite3.Connection, app: int) -> int | None:
            present = _version(db, app, name, key, now)
            if if_version is not None and present != if_version:
                return None
            # One counter for the app: a version is never used again, also after a delete.
            db.execute("UPDATE apps SET version = version + 1 WHERE id = ?", (app,))
            version: int = db.execute("SELECT version FROM apps WHERE id = ?", (app,)).fetchone()[0]
            db.execute(
                "INSERT OR REPLACE INTO config (app, name, key, value, version, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                (app, name, key, encoded, version, expires_at),
            )
            return version

        return await self._write(job)

    async def fetch(self, name: str, key: str) -> Versioned | None:
        rows = await self._read(
            f"SELECT value, version FROM config WHERE {_ALIVE} AND name = ? AND key = ?",
            self.clock(), name, key,
        )  # fmt: skip
        return Versioned(decode(rows[0][0]), rows[0][1]) if rows else None

    async def fetch_all(self, name: str) -> dict[str, Versioned]:
        rows = await self._read(
            f"SELECT key, value, version FROM config WHERE {_ALIVE} AND name = ?",
            self.clock(), name,
        )  # fmt: skip
        return {key: Versioned(decode(value), version) for key, value, version in rows}

    async def match(self, pattern: str) -> dict[str, dict[str, Versioned]]:
        rows = await self._read(
            f"SELECT name, key, value, version FROM config WHERE {_ALIVE}",
            self.clock(),
        )
        found: dict[str, dict[str, Versioned]] = {}
        for name, key, value, version in rows:
            if fnmatchcase(f"{name}:{key}", pattern):
                found.setdefault(name, {})[key] = Versioned(decode(value), version)
        return found

    async def delete(self, name: str, key: str, if_version: int | None = None) -> bool:
        now = self.clock()

        def job(db: sqlite3.Connection, app: int) -> bool:
            present = _version(db, app, name, key, now)
            if present == 0 or (if_version is not None and present != if_version):
                return False
            db.execute("DELETE FROM config WHERE app = ? AND name = ? AND key = ?", (app, name, key))
            return True

        return await self._write(job)

    async def flush(self) -> None:
        await self._write(lambda db, app: db.execute("DELETE FROM config WHERE app = ?", (app,)).rowcount)


def _version(db: sqlite3.Connection, app: int, name: str, key: str, now: float) -> int:
    row = db.execute(
        f"SELECT version FROM config WHERE {_ALIVE} AND name = ? AND key = ?",
        (app, now, name, key),
    ).fetchone()
    return 0 if row is None else int(row[0])
