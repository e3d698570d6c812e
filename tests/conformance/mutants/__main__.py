"""`python -m tests.conformance.mutants`: the table of mutants, and which check must see each; `--run` lets them."""

from __future__ import annotations

import asyncio
import sys

from hypothesis import Phase, settings

from qtasks.testing import Bench, run_check
from tests.conformance.mutants import MUTANTS, Mutant


def killed(mutant: Mutant) -> str:
    """What the check said of it; empty where it saw nothing."""
    try:
        asyncio.run(run_check(mutant.suite, mutant.check, mutant.factory))
    except AssertionError as seen:
        return str(seen).partition("\n")[0]
    return ""


def main() -> int:
    """Prints the table; exit code 1 where a mutant that was run survived."""
    run = "--run" in sys.argv[1:]
    Bench.patience = 0.5
    settings.register_profile(
        "unshrunk", derandomize=True, database=None, deadline=None, phases=[Phase.generate]
    )
    settings.load_profile("unshrunk")
    survived = 0
    print("| Check | Fault |" + (" What it said |" if run else ""))
    print("|---|---|" + ("---|" if run else ""))
    for mutant in sorted(MUTANTS, key=lambda mutant: mutant.check):
        row = f"| {mutant.check} | {mutant.fault} |"
        if run:
            said = killed(mutant)
            survived += not said
            row += f" {(said or 'NOTHING').replace('|', '/')[:160]} |"
        print(row, flush=True)
    checks = len({mutant.check for mutant in MUTANTS})
    print(f"\n{len(MUTANTS)} mutants for {checks} checks" + (f", {survived} survived" if run else ""))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
