"""What the trace costs: CPU seconds of draining a queue, interleaved runs, raw figures and medians.

    python -m benchmarks.tracing [--against REF] [--runs 5] [--tasks 20000] [--url memory://]
        [--variants without,off,one,all]

Variants: `without` is the build of the git revision REF, from before there was a trace; `off` is this build with no
traced task; `one` has one traced task under way the whole time; `all` traces every task. CPU time of the process that
drains is measured, not wall time: other work on the machine counts for less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def drain(mode: str, tasks: int, url: str) -> None:
    """In the child: adds tasks, drains them, prints seconds of CPU and of the clock."""
    import asyncio

    from qtasks import QueueTasks, TaskRequest

    more = {"trace": True} if mode == "all" else {}
    app = QueueTasks("bench", url, **more)
    done = asyncio.Event()

    @app.task(name="noop")
    async def noop() -> None:
        pass

    @app.task(name="hold")
    async def hold() -> None:
        await done.wait()

    async def run() -> None:
        async with app:
            for start in range(0, tasks, 1000):
                await app.add_tasks([TaskRequest(task_name="noop") for _ in range(min(1000, tasks - start))])
            if mode == "one":
                await app.add_task("hold", priority=-1, trace=True)
            serving = asyncio.ensure_future(app.serve())
            cpu, clock = time.process_time(), time.perf_counter()
            while sum(app.worker.executed.values()) < tasks:
                await asyncio.sleep(0.02)
            print(json.dumps([time.process_time() - cpu, time.perf_counter() - clock]))
            done.set()
            await app.stop()
            await serving

    asyncio.run(run())


def child(root: Path, mode: str, tasks: int, url: str) -> tuple[float, float]:
    """One run in a process of its own, with the build in this folder."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--child", mode, "--tasks", str(tasks), "--url", url],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
    cpu, clock = json.loads(done.stdout)
    return cpu, clock


def main() -> None:
    """Runs the variants in turn, and prints every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="REF", help="a git revision without a trace")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--url", default="memory://")
    parser.add_argument("--variants", default="without,off,one,all", help="which, separated by commas")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        drain(given.child, given.tasks, given.url)
        return
    with tempfile.TemporaryDirectory() as folder:
        variants = {"off": ROOT, "one": ROOT, "all": ROOT}
        if given.against:
            base = Path(folder, "without")
            subprocess.run(
                ["git", "worktree", "add", "-q", "--detach", str(base), given.against], cwd=ROOT, check=True
            )
            variants = {"without": base, **variants}
        try:
            chosen = {mode: variants[mode] for mode in given.variants.split(",") if mode in variants}
            measure(chosen, given.runs, given.tasks, given.url)
        finally:
            if given.against:
                subprocess.run(["git", "worktree", "remove", "--force", str(base)], cwd=ROOT, check=True)


def measure(variants: dict[str, Path], runs: int, tasks: int, url: str) -> None:
    """Prints a line per run, then the medians."""
    seconds: dict[str, list[float]] = {mode: [] for mode in variants}
    print(f"{tasks} tasks, {url}, {runs} interleaved runs; µs of CPU per task (and tasks/s of wall clock)")
    for run in range(runs):
        order = list(variants.items())
        for mode, root in order[run % len(order) :] + order[: run % len(order)]:
            cpu, clock = child(root, "off" if mode == "without" else mode, tasks, url)
            seconds[mode].append(cpu)
            print(
                f"  run {run + 1} {mode:8} {cpu / tasks * 1e6:8.1f} µs  ({tasks / clock:7.0f}/s)", flush=True
            )
    first = statistics.median(seconds[next(iter(variants))])
    for mode, taken in seconds.items():
        median = statistics.median(taken)
        change, least = (median / first - 1) * 100, min(taken)
        print(
            f"median {mode:8} {median / tasks * 1e6:8.1f} µs {change:+6.1f} %, least {least / tasks * 1e6:.1f} µs"
        )


if __name__ == "__main__":
    main()
