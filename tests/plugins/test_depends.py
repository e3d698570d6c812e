"""depends: what is provided, how often it is made, and that all of it is closed once, in order, however a run ends."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtasks import QueueConfig, QueueTasks, Task, TaskCancelError, TaskContext, TaskDefer, TaskRejected
from qtasks.plugins.depends import Depends, DependsPlugin
from qtasks.plugins.limits import Limit, LimitsPlugin
from tests.app.conftest import working
from tests.plugins.support import until

log: list[str] = []


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()


def resource(name: str, kind: str, *, scope: str = "task", needs: Any = None) -> Any:
    """The annotation of a resource that tells the log when it is opened and closed, and with which error."""

    def told(error: BaseException | None = None) -> None:
        log.append(f"close {name}" + (f" {type(error).__name__}" if error else ""))

    def plain(inner: needs or int = 0) -> Iterator[str]:  # type: ignore[valid-type]
        log.append(f"open {name}")
        try:
            yield name
        except BaseException as error:
            told(error)
            raise
        told()

    async def coroutine(inner: needs or int = 0) -> AsyncIterator[str]:  # type: ignore[valid-type]
        log.append(f"open {name}")
        try:
            yield name
        except BaseException as error:
            told(error)
            raise
        told()

    found: Any = {"plain": plain, "async": coroutine}[kind]
    found.__annotations__["inner"] = needs or int
    return Annotated[str, Depends(found, scope=scope)]  # type: ignore[arg-type]


@pytest.fixture
def app() -> QueueTasks:
    return QueueTasks(url="memory://", plugins=[DependsPlugin()])


async def run(app: QueueTasks, function: Callable[..., Any], *args: Any, **options: Any) -> Task:
    app.task(name="task", **options)(function)
    async with working(app):
        return await (await app.add_task("task", args=args)).wait_result(10)


# --- What is provided -----------------------------------------------------------------------


def settings_of_the_app() -> dict[str, int]:
    log.append(f"thread {threading.current_thread() is not threading.main_thread()}")
    return {"size": 7}


async def size(values: Annotated[dict[str, int], Depends(settings_of_the_app)], factor: int = 2) -> int:
    return values["size"] * factor


class Client:
    def __init__(self, size: Annotated[int, Depends(size)]) -> None:
        self.size = size


async def name_of(context: TaskContext) -> str:
    return context.name


@pytest.mark.parametrize("kind", ["coroutine", "function", "generator", "async generator", "stream"])
async def test_every_kind_of_task_and_factory(app: QueueTasks, kind: str) -> None:
    async def coroutine(
        number: int,
        client: Annotated[Client, Depends(Client)],
        size: Annotated[int, Depends(size)],
        name: Annotated[str, Depends(name_of)],
    ) -> Any:
        return [number, client.size, size, name]

    def function(number: int, client: Annotated[Client, Depends(Client)], **more: Any) -> Any:
        return [number, client.size]

    def generator(number: int, client: Annotated[Client, Depends(Client)]) -> Any:
        yield from [number, client.size]

    async def agenerator(number: int, client: Annotated[Client, Depends(Client)]) -> Any:
        for each in [number, client.size]:
            yield each

    functions = {"coroutine": coroutine, "function": function, "generator": generator}
    options: dict[str, Any] = {"stream": True} if kind == "stream" else {}
    done = await run(app, functions.get(kind, agenerator), "5", **options)
    assert done.returning == ([5, 14, 14, "task"] if kind == "coroutine" else [5, 14])
    assert log == ["thread True"]  # made once for the run


async def test_what_the_caller_gives_is_taken(app: QueueTasks) -> None:
    async def task(
        size: Annotated[int, Depends(size)], values: Annotated[int, Depends(settings_of_the_app)]
    ) -> Any:
        return [size, values]

    app.task(name="task")(task)
    async with working(app):
        done = await app.add_task("task", args=(1,), kwargs={"values": "2"}, timeout=10)
    assert (done.returning, log) == ([1, 2], [])


async def test_without_cache_each_has_its_own(app: QueueTasks) -> None:
    made: list[int] = []

    def number() -> int:
        made.append(1)
        return len(made)

    Fresh, Shared = Annotated[int, Depends(number, cache=False)], Annotated[int, Depends(number)]

    async def task(a: Fresh, b: Fresh, c: Shared, d: Shared) -> Any:  # type: ignore[valid-type]
        return [a, b, c, d]

    task.__annotations__.update(a=Fresh, b=Fresh, c=Shared, d=Shared)
    assert (await run(app, task)).returning == [1, 2, 3, 3]


async def test_overrides(app: QueueTasks) -> None:
    plugin = DependsPlugin()
    app = QueueTasks(url="memory://", plugins=[plugin])

    async def task(client: Annotated[Client, Depends(Client)]) -> int:
        return client.size

    app.task(name="task")(task)
    async with working(app):
        with plugin.override(settings_of_the_app, lambda: {"size": 1}):
            assert (await app.add_task("task", timeout=10)).returning == 2
        assert (await app.add_task("task", timeout=10)).returning == 14


# --- Mistakes -------------------------------------------------------------------------------


async def circle_a(b: Annotated[int, Depends(lambda: 0)]) -> int:
    return b


async def circle_b(a: Annotated[int, Depends(circle_a)]) -> int:
    return a


async def for_a_task() -> int:
    return 1


async def for_a_worker(inner: Annotated[int, Depends(for_a_task)]) -> int:
    return inner


async def incomplete(number: int) -> int:
    return number


@pytest.mark.parametrize(
    ("depends", "message"),
    [
        (Depends(circle_b), "dependencies go in a circle: circle_b -> circle_a -> circle_b"),
        (
            Depends(for_a_worker, scope="worker"),
            "for_a_worker is opened for the worker and outlives for_a_task",
        ),
        (
            Depends(name_of, scope="worker"),
            "name_of is opened for the worker: there is no TaskContext for it",
        ),
        (Depends(incomplete), "incomplete needs 'number', which has neither Depends nor a default"),
    ],
)
async def test_a_mistake_is_told_and_not_repeated(app: QueueTasks, depends: Depends, message: str) -> None:
    circle_a.__annotations__["b"] = Annotated[int, Depends(circle_b)]

    async def task(value: Any) -> None: ...

    task.__annotations__["value"] = Annotated[int, depends]
    done = await run(app, task, retry=3)
    assert (done.status, done.deliveries) == ("error", 1)
    assert message in (done.traceback or "")


def test_a_mistake_in_the_declaration_is_told_at_once() -> None:
    scope: Any = "wroker"
    with pytest.raises(ValueError, match="not 'wroker'"):
        Depends(for_a_task, scope=scope)
    value: Any = {"rows": 7}
    with pytest.raises(TypeError, match="takes a function"):
        Depends(value)


async def test_what_cannot_be_opened_puts_the_task_back(app: QueueTasks) -> None:
    failures = [OSError("the database is away")]

    async def session() -> AsyncIterator[int]:
        if failures:
            raise failures.pop()
        yield 1

    async def task(session: Any) -> int:
        return int(session)

    task.__annotations__["session"] = Annotated[int, Depends(session)]
    app = QueueTasks(url="memory://", plugins=[DependsPlugin()], config=QueueConfig(release_delay=0.01))
    done = await run(app, task)
    assert (done.returning, done.deliveries, done.attempt) == (1, 2, 0)


# --- Closing --------------------------------------------------------------------------------


def nested(kind: str) -> Any:
    other = "async" if kind == "plain" else "plain"
    return resource("c", kind, needs=resource("b", other, needs=resource("a", kind)))


def story(error: str = "") -> list[str]:
    end = f" {error}" if error else ""
    return ["open a", "open b", "open c", f"close c{end}", f"close b{end}", f"close a{end}"]


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, ""), (ValueError(), "ValueError"), (TaskCancelError(), "TaskCancelError"),
        (TaskRejected(), "TaskRejected"), ("hang", "CancelledError"),
    ],
)  # fmt: skip
async def test_closed_in_reverse_order(app: QueueTasks, kind: str, error: Any, told: str) -> None:
    async def task(c: Any) -> None:
        assert log == ["open a", "open b", "open c"]
        if error == "hang":
            await asyncio.Event().wait()
        elif error is not None:
            raise error

    task.__annotations__["c"] = nested(kind)
    await run(app, task, max_time=0.5 if error == "hang" else None)
    assert log == story(told)


async def test_each_attempt_and_each_defer_has_its_own(app: QueueTasks) -> None:
    ends = [ValueError(), TaskDefer(0), None]

    def task(c: Any) -> None:
        if (end := ends.pop(0)) is not None:
            raise end

    task.__annotations__["c"] = nested("plain")
    assert (await run(app, task, retry=1, retry_delay=0)).status == "success"
    assert log == story("ValueError") + story("TaskDefer") + story()


async def test_a_commit_that_fails_fails_the_task(app: QueueTasks) -> None:
    async def session() -> AsyncIterator[int]:
        yield 1
        raise OSError("cannot commit")

    async def task(session: Any) -> None: ...

    task.__annotations__["session"] = Annotated[int, Depends(session)]
    done = await run(app, task)
    assert (done.status, done.attempt) == ("error", 1)
    assert "cannot commit" in (done.traceback or "")


async def test_nothing_is_opened_for_a_task_that_is_over_its_limit() -> None:
    app = QueueTasks(url="memory://", plugins=[DependsPlugin(), LimitsPlugin()])
    go_on = asyncio.Event()

    async def task(c: Any) -> None:
        await go_on.wait()

    task.__annotations__["c"] = nested("async")
    app.task(name="task", extra={"limits": Limit(concurrency=1)})(task)
    async with working(app):
        tasks = [await app.add_task("task") for _ in range(2)]

        async def deferred() -> bool:
            seen = [await app.get(each.uuid) for each in tasks]
            waits = any(each is not None and each.available_at > each.created_at for each in seen)
            return waits and "open c" in log

        await until(deferred)
        assert log == ["open a", "open b", "open c"]
        go_on.set()
        for each in tasks:
            await each.wait_result(10)
    assert log == 2 * story()


async def test_one_that_is_cancelled_while_it_is_opened_is_closed(app: QueueTasks) -> None:
    """Opening it cannot be stopped in its thread: so it is waited for, and closed."""
    opening, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        opening.set()
        go_on.wait(10)
        log.append("open")
        yield 1
        log.append("never: the task did not run")

    def slow_closed() -> Iterator[int]:
        inner = slow()
        try:
            yield next(inner)
        finally:
            log.append("close")

    async def task(value: Any) -> None:
        log.append("never")

    task.__annotations__["value"] = Annotated[int, Depends(slow_closed)]
    app.task(name="task")(task)
    async with working(app):
        added = await app.add_task("task")
        assert await asyncio.to_thread(opening.wait, 10)
        await added.cancel()
        go_on.set()
        assert (await added.wait_result(10)).status == "cancel"
    assert log == ["open", "close"]


# --- For the worker -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_opened_once_for_a_worker_and_closed_when_it_stops(app: QueueTasks, kind: str) -> None:
    Pool = resource("pool", kind, scope="worker", needs=resource("settings", "async", scope="worker"))
    Other = resource("other", kind, scope="worker")

    async def task(pool: Any, other: Any) -> Any:
        return [pool, other]

    task.__annotations__.update(pool=Pool, other=Other)
    app.task(name="task")(task)
    opened = ["open settings", "open pool", "open other"]
    for _ in range(2):  # and once more for the next worker
        log.clear()
        async with working(app):
            tasks = [await app.add_task("task") for _ in range(20)]
            assert {tuple((await each.wait_result(10)).returning) for each in tasks} == {("pool", "other")}
            assert log == opened
        assert log == [*opened, "close other", "close pool", "close settings"]


async def test_one_that_could_not_be_opened_is_tried_again() -> None:
    app = QueueTasks(url="memory://", plugins=[DependsPlugin()], config=QueueConfig(release_delay=0.01))
    failures = [OSError("away")]

    async def pool() -> AsyncIterator[int]:
        if failures:
            raise failures.pop()
        log.append("open")
        yield 1
        log.append("close")

    async def task(pool: Any) -> int:
        return int(pool)

    task.__annotations__["pool"] = Annotated[int, Depends(pool, scope="worker")]
    assert (await run(app, task)).returning == 1
    assert log == ["open", "close"]


async def test_one_that_cannot_be_closed_does_not_keep_the_others_open(app: QueueTasks) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise OSError("cannot be closed")

    async def task(pool: Any, broken: Any) -> None: ...

    pool = resource("pool", "async", scope="worker")
    task.__annotations__.update(pool=pool, broken=Annotated[int, Depends(broken, scope="worker")])
    assert (await run(app, task)).status == "success"
    assert log == ["open pool", "close pool"]


# --- A law ----------------------------------------------------------------------------------

NODES = st.tuples(st.sampled_from(["plain", "async"]), st.sets(st.integers(0, 7), max_size=3))
GRAPHS = st.lists(NODES, min_size=1, max_size=7)


@settings(max_examples=12)
@given(GRAPHS, st.booleans())
def test_what_is_needed_is_open_before_and_closed_after_what_needs_it(
    graph: list[tuple[str, set[int]]], fails: bool
) -> None:
    """For any graph: each resource is opened and closed exactly once, and inside of those that it needs."""
    log.clear()
    factories: list[Any] = []
    edges: list[tuple[int, int]] = []
    for number, (kind, wanted) in enumerate(graph):
        needed = sorted(each for each in wanted if each < number)
        edges += [(each, number) for each in needed]

        def make(number: int, kind: str, needed: list[int]) -> Any:
            def plain(**values: Any) -> Iterator[int]:
                log.append(f"open {number}")
                try:
                    yield number
                finally:
                    log.append(f"close {number}")

            async def coroutine(**values: Any) -> AsyncIterator[int]:
                for each in plain(**values):
                    yield each

            factory: Any = plain if kind == "plain" else coroutine
            keyword = inspect.Parameter.KEYWORD_ONLY
            factory.__signature__ = inspect.Signature(
                [
                    inspect.Parameter(
                        f"n{each}", keyword, annotation=Annotated[int, Depends(factories[each])]
                    )
                    for each in needed
                ]
            )
            return factory

        factories.append(make(number, kind, needed))

    async def task(value: Any, first: Any) -> None:
        if fails:
            raise ValueError

    task.__annotations__["value"] = Annotated[int, Depends(factories[-1])]
    task.__annotations__["first"] = Annotated[int, Depends(factories[0])]
    asyncio.run(run(QueueTasks(url="memory://", plugins=[DependsPlugin()]), task))
    opened = [line.split()[1] for line in log if line.startswith("open")]
    closed = [line.split()[1] for line in log if line.startswith("close")]
    assert closed == opened[::-1]
    assert len(set(opened)) == len(opened)
    place = {int(each): n for n, each in enumerate(opened)}
    assert all(place[inner] < place[outer] for inner, outer in edges if outer in place)
