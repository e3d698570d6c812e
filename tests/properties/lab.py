"""The chain under test: the real one, or one with a fault built in, loaded beside it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_OWN = ("qtasks.chain", "qtasks.manager", "qtasks.markers", "qtasks.hookspecs")


@dataclass(frozen=True)
class Lab:
    """What a property needs of the chain it examines."""

    manager: Callable[..., Any]
    hookimpl: Callable[..., Any]
    hookspec: Callable[..., Any]
    null: object


def _lab() -> Lab:
    chain = importlib.import_module("qtasks.chain")
    manager = importlib.import_module("qtasks.manager")
    markers = importlib.import_module("qtasks.markers")
    return Lab(manager.PluginManager, markers.hookimpl, markers.hookspec, chain.NULL)


REAL = _lab()


def mutated(module: str, old: str, new: str) -> Lab:
    """The chain with one piece of its source replaced.

    The exceptions and schemas stay the same objects, so the properties can name them.
    """
    path = Path(str(importlib.import_module(module).__file__))
    source = path.read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{old!r} is {source.count(old)} times in {module}, not once: mend the mutant")
    with _aside(), _patched(module, source.replace(old, new)):
        return _lab()


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Finder:
    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self._source)
        return spec


@contextmanager
def _patched(module: str, source: str) -> Iterator[None]:
    finder = _Finder(module, source)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _aside() -> Iterator[None]:
    """Takes the modules out of `sys.modules` for a while, so that they are imported anew."""

    def ours() -> list[str]:
        return [name for name in sys.modules if name.startswith(_OWN)]

    package = sys.modules["qtasks"]
    saved = {name: sys.modules.pop(name) for name in ours()}
    attributes = {name: value for name, value in vars(package).items() if f"qtasks.{name}" in saved}
    try:
        yield
    finally:
        for name in ours():
            del sys.modules[name]
        sys.modules.update(saved)
        vars(package).update(attributes)
