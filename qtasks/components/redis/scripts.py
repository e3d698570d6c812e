"""The Lua scripts: read from their files, completed by what they include, and packed for the wire.

A script names what it needs in its first lines: `--@include` other files (which may include others, too), and
`--@queues` three keys more for each queue that is named in ARGV[1]. Of an included file it gets only the definitions
that it uses, and of the fixed keys only those that are named then: the server makes every function anew for every
call, and for a call with one task these cost more than all that the call does. They stand before the script, or where
it says `--@definitions`: what comes before that line does without them. `K.name` is a fixed key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

KEYS = {
    "ent": "ent", "epoch": "epoch", "seq": "seq", "queues": "queues", "wake": "wake", "buried": "buried",
    "rec": "rec", "res": "res", "run": "run", "done": "done", "dead": "dead", "ord": "ord", "uniq": "uniq",
    "cancel": "cancel", "wait": "wait", "count": "count", "items": "items", "itemn": "itemn",
    "config": "config", "versions": "versions", "hold": "hold",
}  # fmt: skip
"""The fixed keys of an app by their name in the scripts; docs/redis.md says what each one holds."""

QUEUE_KEYS = ("ready", "delayed", "lease")
"""The keys of a queue; its name follows after a colon."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script as the server gets it."""

    name: str
    body: bytes
    sha: bytes
    keys: tuple[str, ...]
    with_queues: bool


@cache
def script(name: str) -> Script:
    """The script of this name."""
    source = _read(name)
    linked = _linked([_read(part) for part in dict.fromkeys(_included(source))], source)
    keys = tuple(sorted(set(_KEY.findall(linked))))
    # Keys by their numbers: a table of them by their names would be made for every call.
    numbered = _KEY.sub(lambda found: f"KEYS[{keys.index(found[1]) + 1}]", linked)
    body = f"local KEYS, FIXED = KEYS, {len(keys)}\n{numbered}".encode()
    return Script(name, body, sha1(body).hexdigest().encode(), keys, "--@queues\n" in source)  # noqa: S324


def _included(source: str) -> Iterator[str]:
    """The files that a source includes, each behind what it includes itself."""
    directive, *names = source.partition("\n")[0].split()
    if directive == "--@include":
        for name in names:
            yield from _included(_read(name))
            yield name


_KEY = re.compile(r"\bK\.(\w+)")
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
_WORD = re.compile(r"\w+")
_BEGIN = re.compile(r"^(?=local |function |do$)", re.MULTILINE)
_DEFINES = re.compile(r"local function (\w+)|function \w+:(\w+)|local ([\w, ]+)")


def _linked(parts: Sequence[str], source: str) -> str:
    """The source with those definitions of its parts that it needs. In Lua what is used stands before its use,
    so one look from the end to the beginning finds them. What defines nothing is always needed."""
    units = [unit for part in parts for unit in _BEGIN.split(_COMMENT.sub("", part))[1:]]
    first, marked, rest = source.partition("--@definitions\n")
    if not marked:
        first, rest = "", source
    kept = [_COMMENT.sub("", rest)]
    used = set(_WORD.findall(kept[0]))
    for unit in reversed(units):
        defines = _DEFINES.match(unit)
        names = set(_WORD.findall(" ".join(filter(None, defines.groups())))) if defines else None
        if names is None or names & used:
            used.update(_WORD.findall(unit))
            kept.append(unit)
    return _COMMENT.sub("", first) + "".join(reversed(kept))


@cache
def _read(name: str) -> str:
    return (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


_SIZES = [b"$%d\r\n" % size for size in range(1024)]
"""Formatting a number takes longer than all else that is done with a short argument."""


def pack(args: Sequence[bytes], head: bytes = b"", more: int = 0) -> bytes:
    """A command as RESP has it: `head` is so many arguments of it, packed already."""
    parts = [b"*%d\r\n" % (len(args) + more), head]
    for arg in args:
        size = len(arg)
        parts += (_SIZES[size] if size < 1024 else b"$%d\r\n" % size, arg, b"\r\n")
    return b"".join(parts)


class Calls:
    """Packs calls of scripts on the keys of one app. The part that repeats is packed once."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._heads: dict[tuple[str, tuple[str, ...]], tuple[int, bytes]] = {}

    def key(self, name: str) -> bytes:
        """A fixed key of the app."""
        return f"{self.prefix}{KEYS[name]}".encode()

    def __call__(self, name: str, args: Sequence[bytes], queues: tuple[str, ...] = ()) -> bytes:
        """A call of a script, ready to be sent."""
        head = self._heads.get((name, queues))
        if head is None:
            head = self._head(name, queues)
        count, packed = head
        return pack(args, packed, count)

    def _head(self, name: str, queues: tuple[str, ...]) -> tuple[int, bytes]:
        found = script(name)
        keys = [self.key(key) for key in found.keys]
        names: list[bytes] = []
        if found.with_queues:
            keys += [f"{self.prefix}{kind}:{queue}".encode() for queue in queues for kind in QUEUE_KEYS]
            names = [" ".join(queues).encode()]
        words = [b"EVALSHA", found.sha, b"%d" % len(keys), *keys, *names]
        if len(self._heads) > 1000:  # an app with very many queues: do not keep every combination
            self._heads.clear()
        head = self._heads[name, queues] = len(words), pack(words).partition(b"\r\n")[2]
        return head
