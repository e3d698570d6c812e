"""Tracer: switches the trace on for some tasks, or for all, and stores what was recorded with the task.

Where it is stored, and why there. The record of a task will not do: a finished record never changes (R5), and the
triggers after the settle fire later than that; before the settle it would cost a write of the whole record per part.
The stream of a generator is fenced by the token of the run, so the producer cannot write to it. What is left is the
app's global config, which every backend has, which all processes read, and which forgets by itself: each part is a
value of its own, so that no two processes write to the same one, and it lives as long as the record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from qtasks.chain import PluginCall
from qtasks.trace import Redact, Trace, TraceCall, TracePart, taken

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.components.primitives import DeliveryHandle, Settle
    from qtasks.components.worker.outcome import Ended
    from qtasks.components.worker.run import Run
    from qtasks.schemas import TaskRecord

log = logging.getLogger("qtasks.trace")

FLAG: Final = "qtasks.trace"
"""The key of `extra` that says whether a task is traced. The caller sets it with `trace=…`; a plugin may, too."""
NAME: Final = "qtasks.trace:"
"""The parts of a trace are kept in the global config under this name and the uuid."""
LIMIT: Final = 1000
"""Calls that are kept of one part."""
PUT_BACK: Final = 20
"""Deliveries that were put back of which a trace keeps parts, at most: a task may wait long, for a limit or a group."""
REJECTED: Final = "rejected"
"""The outcome of a delivery whose result came from another one."""
LINGER: Final = 5.0
"""Seconds for which the observer stays after the last traced task: to compile all chains anew takes a while."""

HARMLESS: Final = (
    "priority", "queue", "task_name", "name", "status", "attempt", "created_at", "updated_at", "available_at",
    "started_at", "finished_at", "retry_in", "deliveries",
)  # fmt: skip
"""What is shown of a task even where its values are secret."""
MODELS: Final = frozenset({"model", "task", "task_broker", "task_status"})
"""The parameters in which these are fields of the task, not of a value that has fields of the same names."""

_part: ContextVar[Part | None] = ContextVar("qtasks_trace", default=None)


class Part:
    """What one process records of one task, at one time: the producer, or one delivery."""

    __slots__ = ("about", "calls", "key", "uuid")

    def __init__(self, uuid: UUID, key: str, about: dict[str, Any]) -> None:
        self.uuid = uuid
        self.key = key
        self.about = about
        self.calls: list[TraceCall] = []


class Tracer:
    """The trace of one application.

    Attributes:
        on: whether every task is traced that does not say otherwise.
        redact: (trigger, path) -> whether a value is kept out of the trace; `path` is like `model.extra['a']`, and
            `error` for what was raised. The default follows `QTASKS_TRACE_VALUES`.
        runs: the deliveries that are being recorded in this process, by epoch.
    """

    def __init__(self, app: QueueTasks, on: bool) -> None:
        self._app = app
        self.on = on
        self.redact: Redact = self._by_settings
        self.runs: dict[int, Part] = {}
        self._open = 0
        self._versions: dict[str, str | None] = {}
        self._observing = False
        self._resting: asyncio.TimerHandle | None = None

    def wanted(self, extra: Mapping[str, Any]) -> bool:
        """Whether a task with this `extra` is traced."""
        if not extra or (flag := extra.get(FLAG)) is None:
            return self.on
        return bool(flag)

    # --- The producer -----------------------------------------------------------------------

    def begin(self, uuid: UUID) -> Part:
        """Begins to record what the producer fires for a task."""
        return self._begin(uuid, "producer", {"side": "producer"})

    async def end(self, part: Part, available_at: float) -> None:
        """The task is stored and announced."""
        now = self._app.clock()
        await self._write(part, max(0.0, available_at - now) + self._open_ttl())

    # --- The worker -------------------------------------------------------------------------

    async def run(self, run: Run, handle: DeliveryHandle, record: TaskRecord) -> Ended | None:
        """Runs a delivery, and records it if it is to be; what fires after the settle follows by `after`."""
        if not self.wanted(record.extra):
            return await run()
        about = {
            "side": "worker", "worker": handle.owner, "attempt": record.attempt, "delivery": handle.deliveries,
        }  # fmt: skip
        part = self._begin(handle.uuid, f"worker.{handle.epoch}", about)
        self.runs[handle.epoch] = part
        try:
            with self.recording(part):
                ended = await run()
        except BaseException:
            self.drop(self.runs.pop(handle.epoch))
            raise
        if ended is None:
            part.about["outcome"] = "lost"
            await self._write(self.runs.pop(handle.epoch), self._open_ttl())
        return ended

    async def after(self, settle: Settle, part: Part) -> None:
        """Everything has been fired for a delivery that was recorded."""
        accepted = part.about.setdefault("outcome", str(settle.outcome)) != REJECTED
        expires_at = settle.changes.get("expires_at") if accepted else None
        if expires_at is None:
            if settle.outcome == "release":
                # Some are kept, the last one always: epochs are counted for all tasks together.
                part.key = f"put back.{settle.handle.epoch % PUT_BACK}"
            delay = settle.nack.delay if settle.nack is not None else 0.0
            await self._write(part, delay + self._open_ttl())
            return
        ttl = max(expires_at - self._app.clock(), 0.001)
        await self._write(part, ttl)
        await self._keep_others(part, ttl)

    async def _keep_others(self, part: Part, ttl: float) -> None:
        """The earlier parts live as long as the record, like the last one."""
        config, name = self._app.global_config, name_of(part.uuid)
        try:
            for key, found in (await config.fetch_all(name)).items():
                if key != part.key:
                    await config.put(name, key, found.value, ttl, if_version=found.version)
        except Exception as error:
            log.warning("the trace of task %s may be gone too early: %s", part.uuid, error)

    # --- Recording --------------------------------------------------------------------------

    @contextmanager
    def recording(self, part: Part | None) -> Iterator[None]:
        """What is fired inside for the task of this part belongs to it."""
        token = _part.set(part)
        try:
            yield
        finally:
            _part.reset(token)

    def _begin(self, uuid: UUID, key: str, about: dict[str, Any]) -> Part:
        if not self._observing:
            self._versions = {info.name: info.version for info in self._app.pm.plugins()}
            self._app.pm.add_observer(self._take, idle=True, when=_part.get)
            self._observing = True
        self._open += 1
        return Part(uuid, key, {**about, "began": self._app.clock()})

    def _take(self, call: PluginCall) -> None:
        part = _part.get()
        if part is None or call.uuid != part.uuid:
            return  # a client that reads this task meanwhile
        if len(part.calls) < LIMIT:
            part.calls.append(taken(call, self.redact, self._version(call.plugin)))
        else:
            part.about["left_out"] = part.about.get("left_out", 0) + 1

    def _version(self, plugin: str) -> str | None:
        if plugin and plugin not in self._versions:
            self._versions = {info.name: info.version for info in self._app.pm.plugins()}
        return self._versions.get(plugin)

    def _by_settings(self, trigger: str, path: str) -> bool:
        values = self._app.config.trace_values
        if values == "auto":
            values = "none" if self._secret() else "all"
        owner, _, field = path.rpartition(".")
        of_task = not owner or owner in MODELS or (trigger, owner) == ("storage_get", "result")
        return values == "none" and not (of_task and field in HARMLESS)

    def _secret(self) -> bool:
        return any(getattr(info.plugin, "qtasks_secret", False) for info in self._app.pm.plugins())

    def drop(self, _part: Part) -> None:
        """A part is over. Nothing of it is kept, unless it was written."""
        self._open -= 1
        if not self._open and not self.on and self._resting is None:
            self._resting = asyncio.get_running_loop().call_later(LINGER, self._rest)

    def _rest(self) -> None:
        self._resting = None
        if self._observing and not self._open:
            self._app.pm.remove_observer(self._take)
            self._observing = False

    # --- The store --------------------------------------------------------------------------

    def _open_ttl(self) -> float:
        """Seconds that a part of an unfinished task is kept; a later part renews it."""
        return max(self._app.config.result_ttl, self._app.config.dead_ttl)

    async def _write(self, part: Part, ttl: float) -> None:
        self.drop(part)
        value = {**part.about, "ended": self._app.clock(), "calls": [call.to_dict() for call in part.calls]}
        try:
            with self.recording(None):
                await self._app.global_config.set(name_of(part.uuid), part.key, value, ttl=ttl)
        except Exception as error:  # a trace must not cost the task anything but time
            log.warning("a part of the trace of task %s is not kept: %s", part.uuid, error)

    async def read(self, uuid: UUID) -> Trace | None:
        """The trace of a task; `None` where there is none (any more)."""
        parts = await self._app.global_config.get_all(name_of(uuid))
        if not parts:
            return None
        read = sorted((TracePart.from_dict(part) for part in parts.values()), key=lambda part: part.began)
        return Trace(uuid, tuple(read))

    async def forget(self, uuid: UUID) -> None:
        """Deletes the trace of a task."""
        for key in await self._app.global_config.fetch_all(name_of(uuid)):
            await self._app.global_config.delete(name_of(uuid), key)

    async def forget_all(self) -> None:
        """Deletes all traces of this app."""
        for name, parts in (await self._app.global_config.match(f"{NAME}*")).items():
            for key in parts:
                await self._app.global_config.delete(name, key)


def name_of(uuid: UUID) -> str:
    """The name in the global config under which the parts of a trace are kept."""
    return f"{NAME}{uuid}"
