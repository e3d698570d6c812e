"""Text that others wrote, made fit to be stored and to be logged."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"((?:^|//)[^:@/?#]*:)(?!//).*@")
_SECRET = re.compile(r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&#]*", re.IGNORECASE)


def cut(text: str, limit: int) -> str:
    """The text, shortened in its middle to `limit` bytes (both ends of a traceback matter), and without
    what has no UTF-8 form."""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= limit:
        return text if text.isascii() else raw.decode()
    mark = b"\n... (cut) ...\n"
    half = (limit - len(mark)) // 2
    return (raw[:half] + mark + raw[-half:]).decode("utf-8", "ignore")


def one_line(value: object) -> str:
    """The value as text in one line: a line break in it must not look like a log line of its own, nor an
    escape sequence reach a terminal."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def masked(url: str) -> str:
    """A URL of any backend without its passwords: those of the login and of options that are named after one."""
    return _SECRET.sub(r"\1***", _LOGIN.sub(r"\1***@", url))
