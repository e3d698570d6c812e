"""`python -m tests.chaos`: runs experiments and prints what they showed; exit code 1 where an invariant broke."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .check import Report
from .faults import FAULTS
from .run import BACKENDS, SIZES, Size, applicable, run
from .table import HEADER, Row, save, total


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--backend", choices=BACKENDS, action="append", help="may be given again; the default is all"
    )
    parser.add_argument("--size", choices=SIZES, help="the default is smoke")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault", default="mixed", help=f"mixed, none, or one of {', '.join(FAULTS)}")
    parser.add_argument(
        "--each", action="store_true", help="each fault alone (size alone), then mixed (size long)"
    )
    parser.add_argument("--tasks", type=int, help="instead of those of the size")
    parser.add_argument("--faults", type=int, help="instead of those of the size")
    parser.add_argument(
        "--keep", type=Path, help="an empty directory for the files of the run, which are kept"
    )
    parser.add_argument("--minutes", type=float, help="after which no more faults and tasks come")
    parser.add_argument("--json", type=Path, help="a file to which the figures of each row are added")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    say(f"seed {seed}\n{HEADER}")
    rows, failed = [], 0
    for backend, fault, size in experiments(chosen):
        row, report = one(backend, fault, size, seed, chosen.keep, chosen.minutes)
        rows.append(row)
        if chosen.json is not None:
            save(chosen.json, row)
        for failure in report.failures[:50]:
            say(failure)
        failed += len(report.failures)
    if len(rows) > 1:
        say(str(total(rows)))
    return 1 if failed else 0


def experiments(chosen: argparse.Namespace) -> Iterator[tuple[str, str, Size]]:
    """What the command line asks for."""
    for backend in chosen.backend or BACKENDS:
        if chosen.each:
            for fault in applicable(backend, "all"):
                yield backend, fault, sized(chosen, "alone")
        yield backend, chosen.fault, sized(chosen, "long" if chosen.each else "smoke")


def sized(chosen: argparse.Namespace, default: str) -> Size:
    """The size that was asked for."""
    size = SIZES[chosen.size or default]
    return Size(chosen.tasks or size.tasks, chosen.faults or size.faults, size.workers)


def one(
    backend: str, fault: str, size: Size, seed: int, keep: Path | None, minutes: float | None
) -> tuple[Row, Report]:
    """Runs one experiment and prints its row."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qtasks-chaos-") as temporary:
        folder = (keep or Path(temporary)) / f"{backend}-{fault}"
        folder.mkdir(parents=True)
        report = run(backend, size, seed, fault, folder, minutes)
    row = Row.of(backend, fault, seed, report, time.monotonic() - began)
    say(str(row))
    sys.stderr.write(f"{backend} {fault}: {row.seconds:.0f} s{'; ' * bool(row.sabotage)}{row.sabotage}\n")
    return row, report


def say(text: str) -> None:
    """Prints at once, also into a file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
