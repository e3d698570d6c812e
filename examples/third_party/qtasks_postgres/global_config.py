"""The global config: values in a table."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from qtasks import Capabilities, GlobalConfig, decode
from qtasks.components.primitives import Versioned
from qtasks_postgres.part import Part
from qtasks_postgres.rows import json_text

_LIVE: Final = "(c.expires_at IS NULL OR c.expires_at > moment())"
# Versions come from one sequence, and each is drawn under the lock of its row: a key that is deleted and set again
# does not repeat one.
_PUT: Final = """
    INSERT INTO config AS c (app, name, key, value, version, expires_at)
    VALUES (%s, %s, %s, %s, nextval('versions'), moment() + %s::float8)
    ON CONFLICT (app, name, key) DO UPDATE SET
        value = excluded.value, version = nextval('versions'), expires_at = excluded.expires_at
    """
_PUT_NEW: Final = f"{_PUT} WHERE NOT {_LIVE}"
_PUT_OVER: Final = f"""
    UPDATE config c SET value = v.value, version = nextval('versions'), expires_at = moment() + v.ttl
    FROM (
        SELECT %s::integer AS app, %s::text AS name, %s::text AS key, %s::text AS value, %s::float8 AS ttl
    ) v
    WHERE c.app = v.app AND c.name = v.name AND c.key = v.key AND c.version = %s AND {_LIVE}
    """
_ROWS: Final = f"SELECT c.name, c.key, c.value, c.version FROM config c WHERE c.app = %s AND {_LIVE}"
_DELETE: Final = f"DELETE FROM config c WHERE c.app = %s AND c.name = %s AND c.key = %s AND {_LIVE}"
_EXPIRED: Final = """
    DELETE FROM config WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM config WHERE app = %s AND expires_at <= moment() FOR UPDATE SKIP LOCKED
    ))
    """


class PostgresGlobalConfig(Part, GlobalConfig):
    """Shares values between processes through a table.

    Parameters:
        link: shared with the broker and the storage of the same application.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(durable=True, shared=True, fsync=True)

    async def put(
        self, name: str, key: str, value: Any, ttl: float | None = None, if_version: int | None = None
    ) -> int | None:
        values = (json_text(name), json_text(key), json_text(value), ttl)
        if if_version is None:
            rows = await self._rows(f"{_PUT} RETURNING c.version", *values)
        elif if_version == 0:
            rows = await self._rows(f"{_PUT_NEW} RETURNING c.version", *values)
        else:
            rows = await self._rows(f"{_PUT_OVER} RETURNING c.version", *values, if_version)
        if ttl is not None:
            # Signs of life end here, so that the table does not grow with every server there ever was.
            await self._rows(_EXPIRED)
        return rows[0][0] if rows else None

    async def fetch(self, name: str, key: str) -> Versioned | None:
        rows = await self._rows(f"{_ROWS} AND c.name = %s AND c.key = %s", json_text(name), json_text(key))
        return Versioned(decode(rows[0][2]), rows[0][3]) if rows else None

    async def fetch_all(self, name: str) -> dict[str, Versioned]:
        rows = await self._rows(f"{_ROWS} AND c.name = %s ORDER BY c.key", json_text(name))
        return {decode(key): Versioned(decode(value), version) for _, key, value, version in rows}

    async def match(self, pattern: str) -> dict[str, dict[str, Versioned]]:
        matched: dict[str, dict[str, Versioned]] = {}
        # By fnmatch and not by LIKE, which knows no classes of characters.
        for name, key, value, version in await self._rows(f"{_ROWS} ORDER BY c.name, c.key"):
            name, key = decode(name), decode(key)
            if fnmatchcase(f"{name}:{key}", pattern):
                matched.setdefault(name, {})[key] = Versioned(decode(value), version)
        return matched

    async def delete(self, name: str, key: str, if_version: int | None = None) -> bool:
        values: tuple[Any, ...] = (json_text(name), json_text(key))
        statement = _DELETE
        if if_version is not None:
            statement, values = f"{_DELETE} AND c.version = %s", (*values, if_version)
        return bool(await self._rows(f"{statement} RETURNING 1", *values))

    async def flush(self) -> None:
        await self._rows("DELETE FROM config WHERE app = %s")
