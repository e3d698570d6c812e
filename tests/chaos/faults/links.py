"""Faults of the network between the processes and the Redis server."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..run import Experiment


def delay(experiment: Experiment, drawn: random.Random) -> None:
    """Everything takes longer for a while, some of it longer than a command waits."""
    seconds = drawn.uniform(0.02, 0.6)
    experiment.network.do(lambda proxy: setattr(proxy, "delay", seconds))
    time.sleep(drawn.uniform(1, 3))
    experiment.network.do(lambda proxy: setattr(proxy, "delay", 0.0))


def half_open(experiment: Experiment, drawn: random.Random) -> None:
    """The server sees all connections end, the processes are told nothing."""
    experiment.network.do(lambda proxy: proxy.orphan())


def reset(experiment: Experiment, drawn: random.Random) -> None:
    """A command is carried out, and the connection is reset before its reply: a few times."""
    for _ in range(drawn.randint(1, 4)):
        experiment.network.do(lambda proxy: setattr(proxy, "swallowing", True))
        experiment.network.swallowed(2.0)
        time.sleep(drawn.uniform(0, 0.05))
        experiment.network.do(lambda proxy: (proxy.cut(), setattr(proxy, "swallowing", False)))
        time.sleep(drawn.uniform(0, 0.2))


def black_hole(experiment: Experiment, drawn: random.Random) -> None:
    """Nothing passes, and nothing is refused, up to beyond the lease; what was sent arrives late, or never."""
    experiment.network.do(lambda proxy: proxy.hold())
    time.sleep(experiment.lease * drawn.uniform(0.2, 1.5))
    if drawn.random() < 0.5:
        experiment.network.do(lambda proxy: proxy.cut())
    experiment.network.do(lambda proxy: proxy.let_go())
