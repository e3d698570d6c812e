"""The faults: what each does to a running experiment. To add one, write a function and name it in `FAULTS`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from . import links, others, processes, stores
from .processes import FAILPOINTS, SPLIT_FAILPOINTS

if TYPE_CHECKING:
    from ..run import Experiment

BACKENDS = ("sqlite", "redis", "redis+sqlite")
REDIS = ("redis", "redis+sqlite")
ON_SQLITE = ("sqlite", "redis+sqlite")


class Fault(NamedTuple):
    """One fault.

    Attributes:
        act: does it, drawing what is left open.
        backends: those to which it applies.
        mixed: whether it is one of those that are mixed.
        away: whether the store cannot be reached, or refuses, while it lasts: nobody can restore anything then.
    """

    act: Callable[[Experiment, random.Random], None]
    backends: tuple[str, ...] = BACKENDS
    mixed: bool = True
    away: bool = False


FAULTS = {
    "kill": Fault(processes.kill_worker),
    "killall": Fault(processes.kill_all),
    "failpoint": Fault(processes.failpoint),
    "pause": Fault(processes.pause),
    "block": Fault(processes.block),
    "terminate": Fault(processes.terminate),
    "producer": Fault(processes.kill_producer),
    "clock": Fault(processes.clock_jumps),
    # What is due by a clock that is ahead waits until that time: it would hide what else takes long.
    "machine": Fault(processes.machine_clock, ON_SQLITE, mixed=False),
    # A task that kills its worker each time needs few deliveries, the other faults need many.
    "poison": Fault(processes.poison, mixed=False),
    "sabotage": Fault(others.sabotage),
    "hostile": Fault(others.hostile_names),
    "corrupt": Fault(stores.corrupt),
    "disk": Fault(stores.disk_full, ON_SQLITE, away=True),
    "wipe": Fault(stores.wipe, ("redis+sqlite",), away=True),
    "server": Fault(stores.kill_server, REDIS, away=True),
    "stall": Fault(stores.pause_server, REDIS, away=True),
    "promote": Fault(stores.promote, REDIS, away=True),
    "scripts": Fault(stores.forget_scripts, REDIS),
    "readonly": Fault(stores.read_only, REDIS, away=True),
    "memory": Fault(stores.memory_full, REDIS, away=True),
    "delay": Fault(links.delay, REDIS, away=True),
    "halfopen": Fault(links.half_open, REDIS, away=True),
    "reset": Fault(links.reset, REDIS, away=True),
    "blackhole": Fault(links.black_hole, REDIS, away=True),
}


def faults_for(backend: str, name: str) -> dict[str, Fault]:
    """The faults of a run: one by its name; `all` that apply; `mixed`, of those, which are mixed; or `none`."""
    possible = {name: fault for name, fault in FAULTS.items() if backend in fault.backends}
    if name == "all":
        return possible
    if name == "mixed":
        return {name: fault for name, fault in possible.items() if fault.mixed}
    if name == "none":
        return {}
    if name not in possible:
        raise SystemExit(f"fault {name!r} does not apply to {backend}: use one of {', '.join(possible)}")
    return {name: possible[name]}


__all__ = ["BACKENDS", "FAILPOINTS", "FAULTS", "REDIS", "SPLIT_FAILPOINTS", "Fault", "faults_for"]
