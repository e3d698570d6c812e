"""Who takes part, and what is known of each that a figure does not say."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.environments import python_of

AT_LEAST, AT_MOST = "at least once", "at most once"


class Entry(NamedTuple):
    """One contender.

    Attributes:
        name: in tables.
        module: in `benchmarks.peers`.
        store: `redis` or `sqlite`.
        delivery: what becomes of a task whose worker dies, in the settings measured here.
        record: whether a waiting task can be looked up by its id.
        asynchronous: whether its client and its tasks are coroutines; a plain function is then another workload.
        requirements: the file in `requirements/` of its environment; `None` is that of its module's name.
        for_trips: options for round trips only.
        options: of every session.
    """

    name: str
    module: str
    store: str = "redis"
    delivery: str = AT_LEAST
    record: bool = False
    asynchronous: bool = False
    requirements: str | None = None
    for_trips: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})

    def python(self, *, renew: bool = False) -> str:
        """Its interpreter."""
        return python_of(self.requirements or self.module, renew=renew)


OURS = Entry("qtasks", "qtasks", record=True, asynchronous=True)
OURS_SQLITE = Entry("qtasks, SQLite", "qtasks", store="sqlite", record=True, asynchronous=True)
CEILING = Entry("ceiling", "ceiling", record=True, requirements="qtasks")
PEERS = (
    Entry("saq", "saq", record=True, asynchronous=True, for_trips={"concurrency": 10}),
    Entry("arq", "arq", record=True, asynchronous=True),
    Entry("taskiq", "taskiq", asynchronous=True),
    Entry("streaq", "streaq", record=True, asynchronous=True),
    Entry("dramatiq", "dramatiq", record=True),
    Entry("celery", "celery", delivery=AT_MOST),
    Entry("huey", "huey", delivery=AT_MOST, for_trips={"notify": True}),
)
HUEY_SQLITE = Entry(
    "huey, SQLite, OFF", "huey", store="sqlite", delivery=AT_MOST, options=MappingProxyType({"fsync": False})
)
OURS_ON_DISK = OURS_SQLITE._replace(
    name="qtasks, SQLite, fsync", options=MappingProxyType({"config": {"durability": "fsync"}})
)
HUEY_ON_DISK = HUEY_SQLITE._replace(name="huey, SQLite, default", options=MappingProxyType({}))
ON_DISK = (OURS_ON_DISK, HUEY_ON_DISK)
"""Both with `synchronous=FULL`: what is acknowledged is on the disk. In the basic workload only. That of huey is as it
is by default, where the library has its own default."""
ALL = (OURS, CEILING, *PEERS, OURS_SQLITE, HUEY_SQLITE)
LOGGING: tuple[Entry, dict[str, Any]] = (OURS._replace(name="qtasks, --log-level info"), {"log": "info"})
"""qtasks with a line in the log per task, as the command line has it by default, and its options."""


def with_plugins(number: int, *, replace: bool = False) -> tuple[Entry, dict[str, Any]]:
    """qtasks with this many async plugins on a trigger that every task fires, and its options."""
    word = "replacing" if replace else "reading"
    return OURS._replace(name=f"qtasks, {number} {word}"), {"plugins": number, "replace": replace}
