"""`python -m tests.chaos.recovery`: how long running tasks of a killed worker wait, with the default settings.

20 tasks run in a worker; it is killed with kill -9 and another one is started at once. The promise (I8) is that
they run again within lease + lease/4 + 1 s, which is 38.5 s here. It takes about a minute and a half per backend.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from qtasks.config import QueueConfig
from tests.support.redis_server import RedisServer

from .faults import BACKENDS
from .recoveries import interrupted
from .site import Site, site, wait_for

TASKS = 20
SECONDS = 30.0
"""That a `steady` task takes."""


def defaults() -> dict[str, object]:
    """The settings that `Site` would make quicker."""
    names = ("lease", "shutdown_timeout", "concurrency", "reconcile_interval", "reconcile_age")
    return {name: QueueConfig.model_fields[name].default for name in names}


def recover(place: Site, after: float) -> list[float]:
    """Seconds from the kill to the next begin of each task.

    Parameters:
        after: seconds that the tasks have run when their worker is killed.
    """
    worker = place.worker()
    place.producer(TASKS, "recovery", CHAOS_NAMES="steady")
    wait_for("all run", lambda: len(place.begun(worker)) == TASKS, 60)
    time.sleep(after)
    place.kill(worker)
    place.worker()
    wait_for("all have run again", lambda: len(place.lines("accepted")) == TASKS, 120 + SECONDS)
    return [run.again - run.killed for run in interrupted(place)]


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.recovery", description=__doc__)
    parser.add_argument(
        "--backend", choices=BACKENDS, action="append", help="may be given again; the default is all"
    )
    bound = float(str(defaults()["lease"])) * 1.25 + 1
    late = 0
    for backend in parser.parse_args().backend or BACKENDS:
        after = random.uniform(1, 15)
        with tempfile.TemporaryDirectory(prefix="qtasks-recovery-") as folder, RedisServer() as server:
            url = None if backend == "sqlite" else server.url()
            storage = Path(folder) / "storage.db" if backend == "redis+sqlite" else None
            with site(Path(folder), url=url, storage=storage, **defaults()) as place:
                found = sorted(recover(place, after))
        late += sum(seconds > bound for seconds in found) + TASKS - len(found)
        sys.stdout.write(
            f"{backend}: killed after {after:.1f} s; {len(found)} of {TASKS} run again after {found[0]:.1f} to "
            f"{found[-1]:.1f} s; promised {bound} s\n"
        )
        sys.stdout.flush()
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
