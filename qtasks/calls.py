"""How a caller asks for a task: the options, and what takes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from qtasks.schemas import Task, TaskRequest


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

    def request(
        self, task_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], now: float
    ) -> TaskRequest:
        """The request that these options make.

        Raises:
            ValueError: the options contradict each other, or a time is not usable.
        """
        extra = dict(self.extra or {})
        if self.unique_key is not None:
            extra["unique_key"] = self.unique_key
        return TaskRequest(
            task_name=task_name, args=args, kwargs=dict(kwargs), queue=self.queue, priority=self.priority,
            available_at=self._available_at(now), uuid=self.uuid, extra=extra,
        )  # fmt: skip

    def _available_at(self, now: float) -> float | None:
        if self.delay is not None and self.eta is not None:
            raise ValueError("give delay or eta, not both")
        if self.eta is not None:
            if self.eta.tzinfo is None:
                raise ValueError("eta needs a time zone: datetime(..., tzinfo=UTC)")
            return self.eta.timestamp()
        if self.delay is not None:
            if not 0 <= self.delay < float("inf"):
                raise ValueError(f"delay is a finite number of seconds >= 0, not {self.delay!r}")
            return now + self.delay
        return None


class TaskAdder(Protocol):
    """What queues tasks; the application is one."""

    async def add(
        self, task_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: AddOptions
    ) -> Task:
        """Queues one task."""
