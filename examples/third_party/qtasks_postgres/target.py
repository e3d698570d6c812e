"""What a URL says: where the server is, and which schema of its database is used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qtasks.errors import ConfigError

SCHEMES: Final = ("postgresql", "postgres")
DEFAULT_SCHEMA: Final = "qtasks"
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Target:
    """One schema of one database.

    Attributes:
        conninfo: what libpq connects with.
        schema: the name of the schema.
        label: names both without the password, for `locality` and messages.
    """

    conninfo: str
    schema: str
    label: str


def target_of(url: str) -> Target:
    """Reads a URL: libpq's, with one option of our own, `?schema=name`.

    Raises:
        ConfigError: it is not such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"a PostgreSQL URL begins with postgresql://, not {parts.scheme!r}")
    options = parse_qsl(parts.query, keep_blank_values=True)
    named = [value for name, value in options if name == "schema"]
    schema = named[-1] if named else DEFAULT_SCHEMA
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ConfigError(f"schema={schema!r}: the name of a schema is {_SCHEMA_NAME.pattern!r}")
    rest = urlencode([(name, value) for name, value in options if name != "schema"])
    try:
        found = conninfo_to_dict(urlunsplit(parts._replace(scheme="postgresql", query=rest)))
    except ProgrammingError as error:
        raise ConfigError(f"the PostgreSQL URL cannot be read: {str(error).strip()}") from error
    host = str(found.get("host") or found.get("hostaddr") or "local")
    label = f"postgresql://{host}:{found.get('port') or 5432}/{found.get('dbname') or found.get('user') or ''}/{schema}"
    return Target(make_conninfo("", **found), schema, label)
