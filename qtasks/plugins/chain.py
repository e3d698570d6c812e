"""chain: a step runs with the result of the step before it; groups run side by side, and a step joins them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4, uuid5

from qtasks import (
    EncodeError,
    QueueTasks,
    Task,
    TaskCancelError,
    TaskDefer,
    TaskFunction,
    TaskNotFoundError,
    TaskPrioritySchema,
    TaskRequest,
    TaskStatusCancelSchema,
    TaskStatusErrorSchema,
    TaskStatusSuccessSchema,
    current_task,
    encode,
    hookimpl,
)
from qtasks.errors import TransientError

if TYPE_CHECKING:
    from qtasks import Worker

KEY: Final = "qtasks_chain"
"""The keyword argument in which a task carries the rest of its chain. It lies among the arguments so that what
happens to them (encryption, say) happens to it; the function never sees it."""
SOONEST, LATEST = 0.05, 10.0
"""Seconds after which a join looks again at its group at the earliest and at the latest."""
SHARE = 0.1
"""It looks again after this share of the time that it has waited."""
GRACE = 60.0
"""Seconds for which a member that is not there may still be on its way into the store."""
MANY = 64
"""Members that are asked for at the same time at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One task of a chain; made by `step(...)`.

    Attributes:
        task: its name.
        args, kwargs: its arguments (JSON).
        takes: whether the result of the step before it comes first among its arguments.
        queue, priority: `None` takes what the task declares.
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    takes: bool = True
    queue: str | None = None
    priority: int | None = None

    def options(self, *, takes: bool = True, queue: str | None = None, priority: int | None = None) -> Step:
        """The step with options; they are those of the class."""
        return replace(self, takes=takes, queue=queue, priority=priority)


@dataclass(frozen=True, slots=True)
class Group:
    """Steps that run side by side; made by `group(...)`."""

    members: tuple[Step, ...]
    keep_going: bool


def step(task: str | TaskFunction[..., Any], /, *args: Any, **kwargs: Any) -> Step:
    """A step: a task, by its name or its function, with its arguments."""
    return Step(task=task if isinstance(task, str) else task.name, args=args, kwargs=kwargs)


def group(*steps: Step, keep_going: bool = False) -> Group:
    """Steps that run side by side. The step after the group joins them: it runs when all have ended, with the list of
    their results, in their order.

    Parameters:
        keep_going: whether the join runs although members failed, with `None` in their places.

    Raises:
        ValueError: there is none.
    """
    if not steps:
        raise ValueError("a group needs at least one step")
    return Group(steps, keep_going)


class Chain:
    """Steps and groups that run one after the other; made by `chain(...)`."""

    def __init__(self, stages: Sequence[Step | Group], on_error: Step | None) -> None:
        self._stages = [_plain(stage) for stage in stages]
        self._on_error = None if on_error is None else _plain(on_error)
        self._ends = [at for at, stage in enumerate(stages) if isinstance(stage, Step)]

    async def start(self, app: QueueTasks, *, uuid: UUID | None = None) -> Started:
        """Adds the tasks of its first stage.

        Parameters:
            uuid: the identity of this run of the chain; starting it again with the same one changes nothing.

        Raises:
            BulkAddError and others, as `QueueTasks.add_tasks`. Start it again with the same uuid.
        """
        run = uuid or uuid4()
        await app.add_tasks(self.requests(run))
        return Started(app, run, self.steps(run))

    def requests(self, uuid: UUID) -> list[TaskRequest]:
        """The tasks of its first stage, for an `add_tasks` of one's own: of a blocking application, or with others.

        Parameters:
            uuid: the identity of this run of the chain.
        """
        return _requests(uuid, 0, self._stages, self._on_error, ())

    def steps(self, uuid: UUID) -> list[UUID]:
        """The uuids of its steps, joins included, for the run of this identity."""
        return [identity(uuid, at) for at in self._ends]


def chain(*stages: Step | Group, on_error: Step | None = None) -> Chain:
    """A chain of steps and groups.

    Parameters:
        on_error: a step that runs once if the chain ends early, with `{"task", "uuid", "error"}` of what failed.
            Without one the chain just ends.

    Raises:
        ValueError: there is no stage, or a group is not followed by a step that joins it.
    """
    if not stages:
        raise ValueError("a chain needs at least one stage")
    for this, following in zip(stages, (*stages[1:], None), strict=True):
        if isinstance(this, Group) and not isinstance(following, Step):
            raise ValueError("a group is followed by the step that joins it")
    return Chain(stages, on_error)


class Started:
    """A run of a chain.

    Attributes:
        uuid: its identity.
        steps: the uuids of the tasks of its steps, joins included; those that are not reached are never stored.
    """

    def __init__(self, app: QueueTasks, uuid: UUID, steps: list[UUID]) -> None:
        self._app = app
        self.uuid = uuid
        self.steps = steps

    async def wait_result(self, timeout: float | None = None) -> Task:
        """Waits for the end of the chain: its last task, or the one that ended it early.

        Raises:
            ResultTimeoutError: it did not end in time (seconds); it goes on.
            TaskNotFoundError: what ended it is not there any more.
        """
        end = None if timeout is None else time.monotonic() + timeout
        ended: Task | None = None
        for uuid in self.steps:
            # A step is stored with the result of the one before it, so there is something to wait for.
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                ended = await self._app.wait_result(uuid, left)
            except TaskNotFoundError:
                ended = None  # kept for less long than the chain took: the steps after it know more
                continue
            if ended.status != "success":
                break
        if ended is None:
            raise TaskNotFoundError(
                f"the task that ended the run {self.uuid} of a chain is not there any more"
            )
        return ended


def identity(run: UUID, at: int | str, member: int = 0) -> UUID:
    """The uuid of a task of a chain. It follows from the place, so that no place is ever taken twice."""
    return uuid5(run, f"{at}.{member}")


def _plain(stage: Step | Group) -> Any:
    if isinstance(stage, Group):
        return {"members": [asdict(member) for member in stage.members], "keep_going": stage.keep_going}
    return asdict(stage)


def _requests(
    run: UUID, at: int, stages: list[Any], on_error: Any, given: tuple[Any, ...]
) -> list[TaskRequest]:
    """The tasks of the first of these stages; to a group belongs the step that joins it, which waits for the others."""
    if not stages:
        return []
    first, *rest = stages
    plan = {"run": str(run), "at": at, "rest": rest, "on_error": on_error}
    if "members" not in first:
        return [_request(first, identity(run, at), given, plan)]
    join, *rest = rest
    member = {**plan, "rest": [], "on_error": None if first["keep_going"] else on_error}
    joins = {"count": len(first["members"]), "keep_going": first["keep_going"]}
    return [
        *(_request(each, identity(run, at, n), given, member) for n, each in enumerate(first["members"])),
        _request(join, identity(run, at + 1), (), {**plan, "at": at + 1, "rest": rest, "joins": joins}),
    ]


def _request(each: Mapping[str, Any], uuid: UUID, given: tuple[Any, ...], plan: Any) -> TaskRequest:
    return TaskRequest(
        task_name=each["task"],
        args=(*(given if each["takes"] else ()), *each["args"]),
        kwargs={**each["kwargs"], **({} if plan is None else {KEY: plan})},
        queue=each["queue"],
        priority=each["priority"],
        uuid=uuid,
        # A key of its own: a step that were dropped because an equal task is open would end the chain in silence.
        extra={"unique_key": f"chain:{uuid}"},
    )


class ChainPlugin:
    """Adds the next tasks of a chain in the step that writes the result, and lets a join wait for its group."""

    qtasks_name = "chain"

    @hookimpl(tryfirst=True, before=("validation", "limits", "depends"))
    async def task_executor_args_replace(
        self, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Takes the plan out of the arguments, and gives a join the results of its group."""
        plan = kw.get(KEY)
        if plan is None:
            return None
        kw = {name: value for name, value in kw.items() if name != KEY}
        if "joins" in plan:
            try:
                args = (await _results(plan), *args)
            except TransientError as error:
                raise TaskDefer(1.0) from error
        return {"args": args, "kw": kw}

    @hookimpl
    def worker_remove_finished_task(
        self,
        worker: Worker,
        task_broker: TaskPrioritySchema,
        model: TaskStatusSuccessSchema | TaskStatusErrorSchema | TaskStatusCancelSchema,
    ) -> dict[str, Any] | None:
        """Adds what comes next, or what the chain has for the case that a step fails."""
        plan = task_broker.kwargs.get(KEY)
        if plan is None:
            return None
        if isinstance(model, TaskStatusSuccessSchema):
            run, at = UUID(plan["run"]), plan["at"] + 1
            following = _requests(run, at, plan["rest"], plan["on_error"], (model.returning,))
            problem = _problem(model.returning, following, worker.config.max_payload)
            if problem is None:
                return {"model": replace(model, then=(*model.then, *following))} if following else None
            model = _failed(model, problem)
        return {"model": replace(model, then=(*model.then, *_on_error(plan, task_broker, model)))}


def _on_error(
    plan: Mapping[str, Any],
    task: TaskPrioritySchema,
    model: TaskStatusErrorSchema | TaskStatusCancelSchema,
) -> tuple[TaskRequest, ...]:
    """One task for one chain, whichever of its tasks comes first."""
    if plan["on_error"] is None:
        return ()
    error = (
        model.traceback if isinstance(model, TaskStatusErrorSchema) else f"cancelled: {model.cancel_reason}"
    )
    told = {"task": task.name, "uuid": str(task.uuid), "error": error}
    return (_request(plan["on_error"], identity(UUID(plan["run"]), "error"), (told,), None),)


def _problem(result: Any, following: Sequence[TaskRequest], limit: int) -> str | None:
    """Why a result, or a step that begins with it, cannot be stored. The worker would find out too, but too late for
    the step that runs on an error."""
    try:
        sizes = [
            len(encode(result)),
            *(len(encode([each.args, each.kwargs, each.extra])) for each in following),
        ]
    except EncodeError as error:
        return str(error)
    if max(sizes) > limit:
        return f"the result, or the step with it, takes {max(sizes)} bytes, more than max_payload ({limit})"
    return None


def _failed(model: TaskStatusSuccessSchema, problem: str) -> TaskStatusErrorSchema:
    return TaskStatusErrorSchema(
        task_name=model.task_name, queue=model.queue, priority=model.priority, args=model.args, kwargs=model.kwargs,
        created_at=model.created_at, updated_at=model.updated_at, available_at=model.available_at,
        attempt=model.attempt, extra=model.extra, started_at=model.started_at, finished_at=model.finished_at,
        traceback=f"the chain ends here: {problem}", then=model.then,
    )  # fmt: skip


async def _results(plan: Mapping[str, Any]) -> list[Any]:
    """The results of a group; raises `TaskDefer` while members are open.

    Nobody has to tell the join, so nothing can be lost on the way: a member that is cancelled while it waits, or dies
    with its worker, has ended too.
    """
    context, joins = current_task(), plan["joins"]
    app, age = context.app, context.app.clock() - context.task_broker.created_at
    members = [identity(UUID(plan["run"]), plan["at"] - 1, n) for n in range(joins["count"])]
    if not await _all_ended(app, members, age):
        raise TaskDefer(min(max(SHARE * age, SOONEST), LATEST))
    results: list[Any] = []
    for begin in range(0, len(members), MANY):
        batch = members[begin : begin + MANY]
        for uuid, task in zip(batch, await asyncio.gather(*map(app.get, batch)), strict=True):
            ok = task is not None and task.status == "success"
            if not ok and not joins["keep_going"]:
                state = "is not there any more" if task is None else f"ended in {task.status.value}"
                raise TaskCancelError(f"task {uuid} of the group {state}")
            results.append(task.returning if task is not None and ok else None)
    return results


async def _all_ended(app: QueueTasks, members: Sequence[UUID], age: float) -> bool:
    """Asks for few at first, in any order: while many are open, one of them is soon found."""

    async def has_ended(uuid: UUID) -> bool:
        try:
            return await app.ended(uuid)
        except TaskNotFoundError:
            return age > GRACE

    left, count = random.sample(members, len(members)), 1
    while left:
        batch, left = left[:count], left[count:]
        if not all(await asyncio.gather(*map(has_ended, batch))):
            return False
        count = min(4 * count, MANY)
    return True
