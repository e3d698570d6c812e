"""The figures of experiments: as JSON lines, as rows of a table, and as the table in docs/reliability.md.

`python -m tests.chaos.table RESULTS.jsonl …` writes the table of the page from what `python -m tests.chaos --json`
has written.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .check import Report
from .faults import BACKENDS, FAULTS
from .site import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->\n", "<!-- chaos: end -->\n"
HEADER = (
    "| Backend | Faults | Tasks acknowledged | Faults injected | Workers lost | Lost | Accepted twice | Repeats "
    "| per worker lost | Recovery p50 / p99, s | Wait p50 / p99, s | Seed |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Row:
    """One experiment, or the sum of several.

    Attributes:
        recovery, waited: seconds, of each task that a kill interrupted.
        commit: the code it ran on.
    """

    backend: str
    fault: str
    seed: int | str
    acked: int = 0
    faults: int = 0
    kills: int = 0
    lost: int = 0
    twice: int = 0
    other: int = 0
    repeats: int = 0
    recovery: Sequence[float] = ()
    waited: Sequence[float] = ()
    sabotage: str = ""
    seconds: float = 0.0
    commit: str = ""

    @classmethod
    def of(cls, backend: str, fault: str, seed: int, report: Report, seconds: float) -> Row:
        """The figures of a report."""
        return cls(
            backend, fault, seed, report.acked, report.faults, report.kills, len(report.lost), len(report.twice),
            len(report.left) + len(report.over), report.repeats, [round(back.recovery, 3) for back in report.back],
            [round(back.waited, 3) for back in report.back], report.sabotage, round(seconds), commit(),
        )  # fmt: skip

    def __str__(self) -> str:
        per_kill = f"{self.repeats / self.kills:.2f}" if self.kills else "-"
        return (
            f"| {self.backend} | {self.fault} | {self.acked:,} | {self.faults:,} | {self.kills:,} | {self.lost} "
            f"| {self.twice} | {self.repeats:,} | {per_kill} | {quantiles(self.recovery)} "
            f"| {quantiles(self.waited)} | {self.seed} |"
        )


def quantiles(values: Sequence[float]) -> str:
    """The median and the 99th percentile."""
    if not values:
        return "-"
    ordered = sorted(values)
    return " / ".join(
        f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.2f}" for share in (0.5, 0.99)
    )


def total(rows: Iterable[Row]) -> Row:
    """The sum."""
    found = Row("**all**", "", "")
    for row in rows:
        for name in ("acked", "faults", "kills", "lost", "twice", "other", "repeats", "seconds"):
            setattr(found, name, getattr(found, name) + getattr(row, name))
        found.recovery = [*found.recovery, *row.recovery]
        found.waited = [*found.waited, *row.waited]
    return found


def commit() -> str:
    """What is checked out; with a `+` where it was changed since."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    )
    return said.stdout.strip() or "unknown"


def save(path: Path, row: Row) -> None:
    """Appends a row to a file."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def load(paths: Iterable[Path]) -> list[Row]:
    """The rows of these files, in the order of the table."""
    rows = [Row(**json.loads(line)) for path in paths for line in path.read_text().splitlines()]
    order = [*FAULTS, "none", "mixed"]
    return sorted(rows, key=lambda row: (BACKENDS.index(row.backend), order.index(row.fault), row.seed))


def text(rows: Sequence[Row]) -> str:
    """The table, and what was sabotaged."""
    lines = [HEADER, *map(str, rows), str(total(rows)), ""]
    told = [f"- {row.backend}, {row.fault}, seed {row.seed}: {row.sabotage}." for row in rows if row.sabotage]
    return "\n".join([*lines, *(["What the saboteur did:", "", *told, ""] if told else [])])


def main() -> None:
    """Writes the table of the files that are named into the page."""
    page = PAGE.read_text()
    rows = load(map(Path, sys.argv[1:]))
    new = BEGIN + "\n" + text(rows) + "\n" + END
    sys.stderr.write(f"{len(rows)} rows of {', '.join(sorted({row.commit for row in rows}))}\n")
    PAGE.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: new, page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
