"""Makes the tables and functions of a schema, once, and checks those that are there."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from psycopg import AsyncConnection, sql

from qtasks.errors import FatalError
from qtasks_postgres.rows import COLUMNS, RECORD

VERSION: Final = 1

# A plan is kept for the life of a connection, also when it was made over an empty table: it must be the one that is
# right for a full table, an index lookup for each item. A path that is switched off costs so much that it would be
# compiled (jit).
_SETTINGS: Final = (
    "SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off "
    "SET enable_mergejoin = off SET enable_material = off SET jit = off"
)
_COMPARED: Final = frozenset({"queue", "unique_key", "owner", "digest"})
_HELD: Final = "p_entries AND t.state = 2 AND t.entry_epoch = v.epoch AND t.entry_owner = v.owner"


def channel_of(schema: str) -> str:
    """The name of the notifications of a schema."""
    return f"qtasks.{schema}"


def _changes() -> str:
    """Sets each column that the object `v.c` names."""
    sets = []
    for name, kind in RECORD.items():
        if name not in ("uuid", "status", "epoch", "owner"):
            value = f"v.c ->> '{name}'" if kind == "text" else f"(v.c ->> '{name}')::{kind}"
            sets.append(f"{name} = CASE WHEN v.c ? '{name}' THEN {value} ELSE t.{name} END")
    return ", ".join(sets)


def script(schema: str, quoted: str) -> str:
    """The statements that make a schema.

    Parameters:
        schema: its name, of letters, digits and underscores.
        quoted: its name as SQL writes it.
    """
    columns = list(RECORD)
    parts = {
        "{settings}": _SETTINGS,
        "{record}": ", ".join(
            f"{name} {kind}" + (' COLLATE "C"' if name in _COMPARED else "") for name, kind in RECORD.items()
        ),
        "{types}": ", ".join(f"{name} {kind}" for name, kind in RECORD.items()),
        "{result}": ", ".join(f"o_{name} {kind}" for name, kind in RECORD.items()),
        "{columns}": COLUMNS,
        "{r_columns}": ", ".join(f"r.{name}" for name in columns),
        "{t_columns}": ", ".join(f"t.{name}" for name in columns),
        "{no_record}": ", ".join(f"{name} = NULL" for name in columns if name != "uuid"),
        "{changes}": _changes(),
        "{held}": _HELD,
        "{channel}": f"'{channel_of(schema)}'",
        "{schema}": quoted,
    }
    text = files("qtasks_postgres").joinpath("schema.sql").read_text(encoding="utf-8")
    for mark, value in parts.items():
        text = text.replace(mark, value)
    return text


async def install(connection: AsyncConnection[Any], schema: str) -> None:
    """Makes the schema if it is not there, with all that is in it.

    Parameters:
        connection: in autocommit mode.
        schema: the name of the schema.

    Raises:
        FatalError: it was made by another version, or the database does not keep text as UTF-8.
    """
    encoding = await (await connection.execute("SHOW server_encoding")).fetchone()
    if encoding is None or encoding[0] != "UTF8":
        raise FatalError(
            f"the database keeps text as {encoding and encoding[0]}: use one with the encoding UTF8"
        )
    async with connection.transaction():
        # Two processes that start together: the second finds what the first has made.
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [channel_of(schema)]
        )
        found = await (await connection.execute("SELECT to_regclass(%s)", [f"{schema}.meta"])).fetchone()
        if found is None or found[0] is None:
            quoted = sql.Identifier(schema).as_string(connection)
            await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            await connection.execute(script(schema, quoted))
            await connection.execute(
                sql.SQL("INSERT INTO {}.meta VALUES (%s)").format(sql.Identifier(schema)), [VERSION]
            )
            return
        statement = sql.SQL("SELECT version FROM {}.meta").format(sql.Identifier(schema))
        version = await (await connection.execute(statement)).fetchone()
    if version is None or version[0] != VERSION:
        raise FatalError(
            f"schema {schema!r} is of version {version and version[0]}, and this qtasks-postgres knows {VERSION}: "
            "install the version that made it, or name another schema with ?schema=…"
        )
