"""How a caller asks for a task: the options, and what takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from qtasks.schemas import DELAY_MAX, Task, TaskRequest, make_request


def positional(args: Sequence[Any]) -> tuple[Any, ...]:
    """Positional arguments as a tuple.

    Raises:
        TypeError: a text was given, whose characters would be the arguments.
    """
    if isinstance(args, str | bytes):
        raise TypeError(f"args is a sequence of arguments, not {args!r}: args=({args!r},)")
    return tuple(args)


class AddOptions(NamedTuple):
    """What a caller may say beside name and arguments; see `QueueTasks.add_task`."""

    queue: str | None = None
    priority: int | None = None
    delay: float | None = None
    eta: datetime | None = None
    uuid: UUID | None = None
    timeout: float | None = None
    extra: Mapping[str, Any] | None = None
    unique_key: str | None = None
    trace: bool | None = None

    def request(
        self, task_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], now: float
    ) -> TaskRequest:
        """The request that these options make.

        Raises:
            TypeError, ValueError: an option is of a wrong type, they contradict each other, or a time is not usable.
        """
        if self.uuid is not None and not isinstance(self.uuid, UUID):
            raise TypeError(f"uuid is a uuid.UUID, not {self.uuid!r}")
        extra = dict(self.extra or {})
        if self.unique_key is not None:
            extra["unique_key"] = self.unique_key
        if self.trace is not None:
            extra["qtasks.trace"] = self.trace
        return make_request(
            task_name=task_name, args=args, kwargs=dict(kwargs), queue=self.queue, priority=self.priority,
            available_at=self._available_at(now), uuid=self.uuid, extra=extra,
        )  # fmt: skip

    def _available_at(self, now: float) -> float | None:
        if self.delay is not None and self.eta is not None:
            raise ValueError("give delay or eta, not both")
        if self.eta is not None:
            if not isinstance(self.eta, datetime):
                raise TypeError(
                    f"eta is a datetime with a time zone, not {self.eta!r}; seconds from now are delay"
                )
            if self.eta.tzinfo is None:
                raise ValueError("eta needs a time zone: datetime(..., tzinfo=UTC)")
            return self.eta.timestamp()
        if self.delay is not None:
            if not 0 <= self.delay <= DELAY_MAX:
                raise ValueError(f"delay is 0 to {DELAY_MAX:.0f} seconds, not {self.delay!r}")
            return now + self.delay
        return None


class TaskAdder(Protocol):
    """What queues tasks; the application is one."""

    async def add(
        self, task_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: AddOptions
    ) -> Task:
        """Queues one task."""
