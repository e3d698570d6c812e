"""Finds the application that a command is about."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from qtasks.app import QueueTasks
from qtasks.cli.exits import Code, CommandError, leaving_at_once
from qtasks.manager.discovery import BLOCK

VARIABLE = "QTASKS_APP"
WAYS = (
    "name it in one of three ways:\n"
    "  qtasks -A module:app …\n"
    "  QTASKS_APP=module:app in the environment\n"
    '  [tool.qtasks] app = "module:app" in pyproject.toml in the current folder'
)


def spec_of(given: str | None) -> str:
    """What names the application: `-A`, else `QTASKS_APP`, else pyproject.toml of the current folder.

    Raises:
        CommandError: nothing does.
    """
    spec = given or os.environ.get(VARIABLE) or _from_pyproject()
    if not spec:
        raise CommandError(f"no application is named; {WAYS}", Code.USAGE)
    return spec


def import_here(module_name: str, wanted: str = "") -> ModuleType:
    """Imports a module, with the current folder first on the path.

    Parameters:
        wanted: what it is for, said in the error.

    Raises:
        CommandError: it cannot be imported.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with leaving_at_once():
            return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise CommandError(f"cannot import {module_name!r}{wanted}: {_where(error)}", Code.USAGE) from error


def load(spec: str) -> QueueTasks:
    """Imports the application, with the current folder first on the path.

    Parameters:
        spec: `module:attribute`; the attribute may be dotted, and `module` alone means `module:app`.

    Raises:
        CommandError: it cannot be imported, or is none.
    """
    module_name, _, attribute = spec.partition(":")
    found: object = import_here(module_name, f" for -A {spec}")
    for part in (attribute or "app").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CommandError(f"{module_name!r} has no {attribute or 'app'!r}; {WAYS}", Code.USAGE) from None
    if not isinstance(found, QueueTasks):
        from qtasks import sync

        if isinstance(found, sync.QueueTasks):
            found = found.app
    if not isinstance(found, QueueTasks):
        raise CommandError(f"{spec} is a {type(found).__name__}, not a QueueTasks; {WAYS}", Code.USAGE)
    return found


def application(spec: str, plugins: Sequence[str]) -> QueueTasks:
    """The application, with the plugins that `-p` asked for, and without those that it keeps out.

    Parameters:
        spec: as for `load`.
        plugins: names of installed plugins to be loaded, and `no:name` for those kept out.

    Raises:
        CommandError: it cannot be imported, or is none; or a plugin is asked for and kept out.
    """
    kept_out = [name.removeprefix("no:") for name in plugins if name.startswith("no:")]
    asked = [name for name in plugins if not name.startswith("no:")]
    if both := sorted({*kept_out} & {*asked}):
        raise CommandError(f"-p {both[0]} and -p no:{both[0]}: choose one", Code.USAGE)
    if kept_out:
        # Before the application is imported: a plugin that is kept out is not imported either.
        before = os.environ.get(BLOCK)
        os.environ[BLOCK] = ",".join([*([before] if before else []), *kept_out])
    app = load(spec)
    for name in kept_out:
        app.pm.block(name)  # where the application was imported before
    for name in asked:
        if not app.pm.has(name):
            app.pm.load_installed([name], strict=True, asked=True)
    return app


def _from_pyproject() -> str | None:
    try:
        text = Path("pyproject.toml").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    import tomllib

    try:
        settings = tomllib.loads(text).get("tool", {}).get("qtasks", {})
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"pyproject.toml cannot be read: {error}", Code.USAGE) from error
    app = settings.get("app")
    if app is not None and not isinstance(app, str):
        raise CommandError('pyproject.toml: [tool.qtasks] app must be text like "module:app"', Code.USAGE)
    return app


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, ModuleNotFoundError) and frames and "importlib" in frames[-1].filename:
        place = ""
    return f"{type(error).__name__}: {error}{place}"
