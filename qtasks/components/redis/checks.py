"""What the server says about itself at the start, and what of it could lose tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qtasks.errors import FatalError

OLDEST = (6, 2)


@dataclass(frozen=True, slots=True)
class Server:
    """The part of INFO that matters here.

    Attributes:
        version: of the commands that it understands.
        name: the product and its own version, for people.
        policy: what it does when `maxmemory` is reached.
        maxmemory: bytes; 0 is no limit.
        aof: whether every write is logged.
        role: `master` or `slave`.
        replicas: how many follow it now.
    """

    version: tuple[int, ...]
    name: str
    policy: str
    maxmemory: int
    aof: bool
    role: str
    replicas: int = 0

    @classmethod
    def read(cls, info: bytes) -> Server:
        """From the reply to INFO."""
        fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        redis_version = fields.get("redis_version", "0")
        valkey = fields.get("valkey_version")
        name = f"Valkey {valkey}" if valkey else f"Redis {redis_version}"
        version = tuple(int(part) for part in redis_version.split(".") if part.isdecimal())
        return cls(
            version=version,
            name=name,
            policy=fields.get("maxmemory_policy", ""),
            maxmemory=int(fields.get("maxmemory", "0")),
            aof=fields.get("aof_enabled") == "1",
            role=fields.get("role", ""),
            replicas=int(fields.get("connected_slaves", "0")),
        )

    def judge(
        self, durability: Literal["none", "fsync", "replica"], where: str, *, strict: bool
    ) -> list[str]:
        """What could lose tasks, in plain words.

        Raises:
            FatalError: the server cannot be used; or `strict`, and something could lose tasks.
        """
        if self.version < OLDEST:
            raise FatalError(f"{where} is {self.name}; qtasks needs Redis 6.2 or Valkey. Upgrade the server.")
        if self.role == "slave":
            raise FatalError(
                f"{where} is a replica and takes no writes. Name the master, or use redis+sentinel://."
            )
        if durability == "fsync" and not self.aof:
            raise FatalError(
                f'durability="fsync" needs `appendonly yes`, which is off at {where}. Turn it on.'
            )
        if durability == "fsync" and self.version < (7, 2):
            raise FatalError(
                f'durability="fsync" needs WAITAOF (Redis 7.2 or Valkey); {where} is {self.name}.'
            )
        found = []
        if self.policy not in ("", "noeviction"):
            when = "" if self.maxmemory else " as soon as maxmemory is set"
            found.append(
                f"{where} may evict tasks{when}: maxmemory-policy is {self.policy!r}. Set it to noeviction."
            )
        if not self.aof:
            found.append(
                f"{where} writes no append-only file: tasks since the last snapshot are lost when the server "
                "dies. Set appendonly yes."
            )
        if durability == "replica" and not self.replicas:
            found.append(
                f'no replica follows {where} now: with durability="replica" nothing is acknowledged until one does.'
            )
        if strict and found:
            raise FatalError("strict: " + " ".join(found))
        return found
