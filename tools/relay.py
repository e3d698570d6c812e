"""Writes qtasks/manager/hook.py, the typed `pm.hook`, from the hookspecs: `python -m tools.relay`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from qtasks.hookspecs import MODULES
from qtasks.markers import trigger_of

TARGET = Path(__file__).parent.parent / "qtasks" / "manager" / "hook.py"

HEAD = '''"""`pm.hook`: one async function per trigger, typed. Written by `python -m tools.relay`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qtasks.chain import Chain

if TYPE_CHECKING:
{imports}


class HookRelay:
    """Fires the triggers: `await pm.hook.broker_start(broker=…, worker=…)`.

    An attribute is the compiled chain of the trigger of its name, made when it is first asked for
    and thrown away when a plugin comes or goes. So do not keep one: write `pm.hook.x(…)` each time.
    The triggers of third parties are there too; for their types, `typing.cast` this to a Protocol
    of yours.

    Parameters:
        compiled: gives the chain of a trigger; raises `KeyError` for an unknown name.
        names: gives the names of all triggers.
    """

    def __init__(self, compiled: Callable[[str], Chain], names: Callable[[], Iterable[str]]) -> None:
        self._compiled = compiled
        self._names = names
        self._made: list[str] = []

    def forget(self) -> None:
        """Throws all compiled chains away; those that run go on with what they are (rule 13)."""
        for name in self._made:
            del self.__dict__[name]
        self._made.clear()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Chain:
            """Compiles a chain; called only while the attribute is not there."""
            if name.startswith("_"):
                raise AttributeError(name)
            try:
                chain = self._compiled(name)
            except KeyError:
                from difflib import get_close_matches  # for mistakes only; every worker would keep it

                close = get_close_matches(name, self._names(), n=1)
                hint = f"; did you mean {{close[0]!r}}?" if close else ""
                raise AttributeError(f"there is no trigger {{name!r}}{{hint}}") from None
            self.__dict__[name] = chain
            self._made.append(name)
            return chain

    else:
'''


def declared() -> Iterator[tuple[ModuleType, Callable[..., Any]]]:
    """The hookspec functions, in the order in which they are written."""
    for module in MODULES:
        for value in vars(module).values():
            if callable(value) and trigger_of(value) is not None:
                yield module, value


def source() -> str:
    """The whole file, before it is formatted."""
    methods = "".join(map(_method, (function for _, function in declared())))
    return HEAD.format(imports=_imports(methods)) + methods


def formatted(text: str) -> str:
    """The text as ruff formats it."""
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(TARGET), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


def _method(function: Callable[..., Any]) -> str:
    trigger = trigger_of(function)
    assert trigger is not None
    types = function.__annotations__
    params = "".join(f", {param}: {types[param]}" for param in trigger.params)
    results = [types[param] for param in trigger.replaces]
    result = "None" if not results else results[0] if len(results) == 1 else f"tuple[{', '.join(results)}]"
    summary = (function.__doc__ or "").splitlines()[0]
    return (
        f"\n        async def {trigger.name}(self, *{params}) -> {result}:\n"
        f'            """{summary}"""\n            raise NotImplementedError\n'
    )


def _imports(methods: str) -> str:
    """The imports of the names that the annotations use, from wherever the hookspecs take them."""
    wanted: dict[str, set[str]] = {}
    for module in MODULES:
        for line in _logical_lines(Path(str(module.__file__)).read_text(encoding="utf-8")):
            if not line.startswith("from ") or "__future__" in line:
                continue
            origin, _, names = line.removeprefix("from ").partition(" import ")
            for name in names.split(", "):
                if f"{name}" in _words(methods) and name not in ("Any", "Callable"):
                    wanted.setdefault(origin, set()).add(name)
    ordered = sorted(wanted, key=lambda origin: (origin.startswith("qtasks"), origin))
    lines = [f"    from {origin} import {', '.join(sorted(wanted[origin]))}" for origin in ordered]
    standard = sum(not origin.startswith("qtasks") for origin in ordered)
    return "\n".join([*lines[:standard], "", *lines[standard:]])


def _logical_lines(text: str) -> Iterator[str]:
    joined = ""
    for line in text.splitlines():
        joined += line.strip() + (" " if line.rstrip().endswith(",") else "")
        if joined.count("(") > joined.count(")"):
            continue
        yield joined.replace("import (", "import ").replace(", )", "").rstrip(")")
        joined = ""


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


if __name__ == "__main__":
    TARGET.write_text(formatted(source()), encoding="utf-8")
