"""Which files the demo is about, and the identity that each one's task has."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from qtasks.demo.tasks import STATE_FILE

NAMESPACE = UUID("6f0bb7c0-6a0e-5b0b-9d7e-1d6a3f0f5a11")
SKIPPED = {"__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class DemoFile:
    """A file, by its path relative to the folder, and the uuid of its task."""

    path: str
    uuid: UUID


def queue_of(root: Path) -> str:
    """The queue of a folder: each folder has its own, so that several runs may share a state file."""
    return f"files-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def find(root: Path, limit: int) -> tuple[list[DemoFile], bool, int]:
    """The regular files below a folder, in a stable order; hidden ones and links are left out.

    A task's uuid comes from path, size and time of change: the same file is the same task in every run,
    a changed file is a new one.

    Parameters:
        limit: files at most.

    Returns:
        The files, whether there are more than that, and how many have names that are not valid text.
    """
    queue = queue_of(root)
    found: list[DemoFile] = []
    unnameable = 0
    for path, status in _walk(root):
        try:
            path.encode()
        except UnicodeEncodeError:
            unnameable += 1
            continue
        if len(found) == limit:
            return found, True, unnameable
        identity = f"{queue}\0{path}\0{status.st_size}\0{status.st_mtime_ns}"
        found.append(DemoFile(path, uuid5(NAMESPACE, identity)))
    return found, False, unnameable


def summary_uuid(files: list[DemoFile], failed: int) -> UUID:
    """The uuid of the summary of just these files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.uuid.bytes)
    return uuid5(NAMESPACE, f"summary {digest.hexdigest()} {failed}")


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
        for name in sorted(names):
            if name.startswith((".", STATE_FILE)) or name.endswith((".pyc", ".pyo")):
                continue
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue  # it is gone already
            if stat.S_ISREG(status.st_mode):
                yield os.path.relpath(path, root), status
