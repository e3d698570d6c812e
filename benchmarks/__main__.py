"""qtasks against its peers and against the ceiling, in one run: `python -m benchmarks`.

Install what it needs first: `pip install -r benchmarks/requirements.txt`. It starts a Redis server of its own, makes
an environment for each contender in a cache folder (`BENCH_CACHE`, else `~/.cache/qtasks-benchmarks`), and measures all
of them in turns. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import OURS, PEERS, Entry
from benchmarks.figures import medians
from benchmarks.goals import goals
from benchmarks.session import JEMALLOC
from benchmarks.suite import FULL, QUICK, Run, default_path, only_turns
from benchmarks.turns import KINDS

QUIET = 0.7
"""Load average above which something else runs."""
PAGE = Path("docs/performance.md")
PLOT = Path("docs/backlog.svg")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [peer.name for peer in PEERS]
    parser.add_argument(
        "--quick", action="store_true", help="five minutes: one repetition, the basic workload"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions of each session")
    parser.add_argument("--tasks", type=int, metavar="N", help="waiting tasks of a drain")
    parser.add_argument("--backlogs", metavar="N,N", help="sizes of the growing backlog; 0 is none")
    parser.add_argument("--peers", metavar="A,B", help=f"only these of {', '.join(known)}; - is none")
    parser.add_argument(
        "--workloads",
        metavar="A,B",
        help="those that the peers take part in, of base,payload,sync,two; or nothing but comparisons in turns, "
        f"--repeat of them: turns, or some of {','.join(f'turns:{kind}' for kind in KINDS)}",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the raw figures go (JSON)")
    parser.add_argument(
        "--install", action="store_true", help="make all environments anew, and measure nothing"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help=f"measure nothing: put the figures of FILE into {PAGE}"
    )
    return parser.parse_args()


def chosen(words: str | None) -> tuple[Entry, ...]:
    """The peers that take part."""
    if words is None:
        return PEERS
    names = [] if words == "-" else words.split(",")
    if unknown := set(names) - {peer.name for peer in PEERS}:
        raise SystemExit(
            f"unknown: {', '.join(sorted(unknown))}; the peers are {', '.join(p.name for p in PEERS)}"
        )
    return tuple(peer for peer in PEERS if peer.name in names)


def turns_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """What is compared in turns, if these workloads are turns; nothing if they are others."""
    known = {"turns": KINDS, **{f"turns:{kind}": (kind,) for kind in KINDS}}
    turns = [word for word in words if word.startswith("turns")]
    if turns and not known.keys() >= set(words):
        raise SystemExit(f"turns are measured alone, and they are {', '.join(known)}, not {', '.join(words)}")
    return tuple(kind for word in turns for kind in known[word])


def write_report(path: Path) -> None:
    """Puts the figures of an earlier run into the documentation."""
    found: dict[str, Any] = json.loads(path.read_text())
    if found.get("backlog"):
        report.draw(found["backlog"], PLOT)
    report.write_into(PAGE, report.markdown(found, PLOT.name if found.get("backlog") else None))
    print(f"{PAGE} has the figures of {path}")


def warn() -> None:
    """Says what about this machine would spoil the figures."""
    if (load := os.getloadavg()[0]) > QUIET:
        print(
            f"the load of this machine is {load:.1f}: figures of a busy machine are worth little",
            file=sys.stderr,
        )
    if JEMALLOC is None:
        print(
            "libjemalloc is not installed (Debian: libjemalloc2): the server allocates as the C library does, and "
            "gets slower as a backlog grows",
            file=sys.stderr,
        )


def main() -> None:
    """The command."""
    options = arguments()
    if options.report:
        write_report(options.report)
        return
    peers = chosen(options.peers)
    if options.install:
        for peer in (OURS, *peers):
            print(peer.name, peer.python(renew=True))
        return
    size = QUICK if options.quick else FULL
    if options.repeat:
        size = replace(size, repeat=options.repeat)
    if options.tasks:
        few = options.tasks // 10
        size = replace(
            size, plan=replace(size.plan, tasks=options.tasks, one=few, crowd=2 * few, first=few // 10)
        )
    if options.backlogs:
        sizes = tuple(int(word) for word in options.backlogs.split(",") if int(word))
        compared = tuple(kind for kind in size.compared if kind != "backlog")
        size = replace(size, backlogs=sizes, peer_backlogs=(), compared=compared)
    if options.workloads:
        words = tuple(options.workloads.split(","))
        kinds = turns_of(words)
        size = only_turns(kinds, options.repeat or FULL.turns) if kinds else replace(size, workloads=words)
    path = options.output or default_path()
    # Workers are in sessions of their own: a run that is ended would leave them behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    warn()
    found = Run(size, peers, path)()
    found |= {"medians": medians(found), "goals": [{**g._asdict(), "passed": g.passed} for g in goals(found)]}
    path.write_text(json.dumps(found, indent=1))
    print(f"\n{report.markdown(found)}\n\nraw figures: {path}")
    if any(session["error"] for session in found["sessions"]):
        sys.exit("some sessions gave no figure; see above")


if __name__ == "__main__":
    main()
