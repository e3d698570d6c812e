"""`python -m tests.chaos`: runs one experiment and prints what it showed; exit code 1 where an invariant broke."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from .check import Report
from .run import BACKENDS, SIZES, Size, run


def row(backend: str, fault: str, seed: int, report: Report) -> str:
    """The figures as one row of the table in docs/reliability.md."""
    per_fault = f"{report.repeats / report.faults:.2f}" if report.faults else "-"
    recovery = f"{report.quantile(0.5):.2f} / {report.quantile(0.99):.2f}" if report.recovery else "-"
    return (
        f"| {backend} | {fault} | {report.acked} | {report.faults} | {report.kills} | {len(report.lost)} "
        f"| {len(report.twice)} | {per_fault} | {recovery} | {seed} |"
    )


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="sqlite")
    parser.add_argument("--size", choices=SIZES, default="smoke")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault", default="mixed")
    parser.add_argument("--tasks", type=int, help="instead of those of the size")
    parser.add_argument("--faults", type=int, help="instead of those of the size")
    parser.add_argument(
        "--keep", type=Path, help="an empty directory for the files of the run, which are kept"
    )
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    size = SIZES[chosen.size]
    size = Size(chosen.tasks or size.tasks, chosen.faults or size.faults, size.workers)
    sys.stdout.write(f"seed {seed}, {size}\n")
    with tempfile.TemporaryDirectory(prefix="qtasks-chaos-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(chosen.backend, size, seed, chosen.fault, folder)
    sys.stdout.write(row(chosen.backend, chosen.fault, seed, report) + "\n")
    for failure in report.failures[:50]:
        sys.stdout.write(failure + "\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
