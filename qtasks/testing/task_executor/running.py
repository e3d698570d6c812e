"""Checks of how an executor runs code: kinds of functions, middlewares, context, threads, its life."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from qtasks.context import TaskContext, current_task
from qtasks.schemas import TaskStatusEnum
from qtasks.testing.bench import EVENT_TIMEOUT, Factory
from qtasks.testing.checks import check
from qtasks.testing.stage import AppBench, AppSuite, Stage

SUCCESS, ERROR = TaskStatusEnum.SUCCESS, TaskStatusEnum.ERROR


class Running(AppSuite):
    """`execute`, `run`, `in_thread`, `close`."""

    @check("EXECUTOR-20")
    async def test_kinds(self, bench: AppBench) -> None:
        """Coroutine functions and asynchronous generators run on the event loop; plain functions and generators run
        in a thread, never on the loop.

        If this fails, check what `run` does for each `kind`.
        """
        stage = await bench.stage()
        here = threading.get_ident()

        async def coroutine() -> bool:
            return threading.get_ident() == here

        async def waiting() -> AsyncIterator[bool]:
            yield threading.get_ident() == here

        def plain() -> bool:
            return threading.get_ident() == here

        def generator() -> Iterator[bool]:
            yield threading.get_ident() == here

        stage.declare(coroutine=coroutine, waiting=waiting, plain=plain, generator=generator)
        async with stage.app:
            results = [
                (await stage.run(name)).returning for name in ("coroutine", "waiting", "plain", "generator")
            ]
        assert results == [True, [True], False, [False]]

    @check("EXECUTOR-21")
    async def test_an_awaitable(self, bench: AppBench) -> None:
        """What a plain function returns is awaited where it is awaitable.

        If this fails, check what `in_thread` does with the result.
        """
        stage = await bench.stage()

        async def later() -> int:
            return 7

        stage.declare(plain=lambda: later())
        async with stage.app:
            assert (await stage.run("plain")).returning == 7

    @check("EXECUTOR-22")
    async def test_context(self, bench: AppBench) -> None:
        """With `echo=True` the code gets the context of its own task first; `current_task()` gives it in coroutines
        and threads. Many tasks at once do not see each other's.

        If this fails, check that a thread is given a copy of the context of its task.
        """
        stage = await bench.stage(concurrency=8, threads=8)

        async def coroutine(context: TaskContext, number: int) -> list[Any]:
            await asyncio.sleep(0)
            return [str(context.uuid), str(current_task().uuid), number, context.task_broker.args[0]]

        def plain(context: TaskContext, number: int) -> list[Any]:
            return [str(context.uuid), str(current_task().uuid), number, context.task_broker.args[0]]

        stage.declare({"echo": True}, coroutine=coroutine, plain=plain)
        async with stage.app as app:
            tasks = {
                (await app.add_task(name, args=(number,))).uuid: number
                for number in range(40)
                for name in ("coroutine", "plain")
            }
            await stage.bounded(app.serve(until_idle=True), "serving until idle")
            for uuid, number in tasks.items():
                assert (await stage.stored(uuid)).returning == [str(uuid), str(uuid), number, number]

    @check("EXECUTOR-23")
    async def test_middlewares(self, bench: AppBench) -> None:
        """Middlewares run in their order, those before with the arguments, those after with the result; each may
        replace them, and may be `async def`.

        If this fails, check `execute`.
        """
        stage = await bench.stage()

        def first(_context: TaskContext, args: Any, kw: Any) -> Any:
            return ((*args, "first"), kw)

        async def second(_context: TaskContext, args: Any, kw: Any) -> Any:
            return ((*args, "second"), {**kw, "x": 1})

        def unchanged(_context: TaskContext, *_given: Any) -> None: ...

        async def after(_context: TaskContext, result: Any) -> Any:
            return [*result, "after"]

        options = {"middlewares_before": [first, unchanged, second], "middlewares_after": [after, unchanged]}
        stage.declare(options, watched=stage.app.tasks["work"].func)
        async with stage.app:
            record = await stage.run("watched", 0)
        assert record.returning == ["work", [0, "first", "second"], {"x": 1}, "after"]

    @check("EXECUTOR-24")
    async def test_errors_pass(self, bench: AppBench) -> None:
        """What the code raises comes out as it is, of every kind of function.

        If this fails, check that no exception of the code is wrapped or swallowed.
        """
        stage, error = await bench.stage(), ValueError("the code's own")

        async def coroutine() -> None:
            raise error

        def plain() -> None:
            raise error

        async def waiting() -> AsyncIterator[int]:
            yield 1
            raise error

        def generator() -> Iterator[int]:
            yield 1
            raise error

        stage.declare(coroutine=coroutine, waiting=waiting, plain=plain, generator=generator)
        async with stage.app:
            for name in ("coroutine", "waiting", "plain", "generator"):
                assert (await stage.run(name)).status is ERROR
                (values,) = stage.heard.of("worker_task_error_retry")
                assert values["e"] is error, name

    @check("EXECUTOR-25")
    async def test_a_cancel_reaches_the_code(self, bench: AppBench) -> None:
        """A task that is stopped sees `CancelledError` where it waits, in a coroutine and in a generator, and may
        clean up.

        If this fails, check that the code is awaited in the task that the worker interrupts.
        """
        stage = await bench.stage()
        running, cleaned = asyncio.Event(), []

        async def coroutine() -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append("coroutine")

        async def waiting() -> AsyncIterator[int]:
            running.set()
            try:
                await asyncio.Event().wait()
                yield 1
            finally:
                cleaned.append("waiting")

        stage.declare(coroutine=coroutine, waiting=waiting)
        async with stage.app as app:
            for name in ("coroutine", "waiting"):
                running.clear()
                task = await app.add_task(name)
                async with stage.serving():
                    await stage.bounded(running.wait(), "the start of the task")
                    await app.cancel(task.uuid)
                    assert (await stage.ended(task)).status is TaskStatusEnum.CANCEL
        assert cleaned == ["coroutine", "waiting"]

    @check("EXECUTOR-26")
    async def test_a_thread_cannot_be_stopped(self, bench: AppBench) -> None:
        """A thread past `max_time` runs on: its task ends in ERROR, is not run again beside it although it has
        retries left, and its slot is free only when the thread has returned.

        If this fails, check that `in_thread` raises `ThreadStillRunning` with the thread's future.
        """
        stage = await bench.stage(concurrency=1)
        go, entered = threading.Event(), []

        def stuck() -> None:
            entered.append(1)
            go.wait(EVENT_TIMEOUT)

        stage.declare({"max_time": 0.02, "retry": 3, "retry_delay": 0.001}, stuck=stuck)
        async with stage.app as app:
            late = await app.add_task("stuck")
            try:
                async with stage.serving():
                    assert (await stage.ended(late)).status is ERROR
                    waiting = await app.add_task("work")
                    await stage.heard.until("worker_execute_after")
                    assert (await stage.stored(waiting.uuid)).status is TaskStatusEnum.NEW
                    go.set()
                    assert (await stage.ended(waiting)).status is SUCCESS
            finally:
                go.set()
        assert entered == [1]

    @check("EXECUTOR-27")
    async def test_items_come_while_it_runs(self, bench: AppBench) -> None:
        """What a generator with `stream=True` has yielded can be read while it runs.

        If this fails, check that a batch that is not full is stored soon.
        """
        stage = await bench.stage()
        go = asyncio.Event()

        async def slow() -> AsyncIterator[int]:
            yield 1
            async with asyncio.timeout(EVENT_TIMEOUT):
                await go.wait()
            yield 2

        stage.declare({"stream": True}, slow=slow)
        async with stage.app as app:
            task = await app.add_task("slow")
            async with stage.serving():
                items = []
                async for item in app.stream(task.uuid):
                    items.append(item)
                    go.set()
                assert items == [1, 2]
                assert (await stage.ended(task)).returning == [1, 2]

    @check("EXECUTOR-40")
    async def test_closed(self, bench: AppBench) -> None:
        """`close` is harmless before any use and twice; a closed executor runs code again.

        If this fails, check that threads are made when they are needed.
        """
        stage = await bench.stage()
        executor = stage.app.task_executor
        executor.close()
        executor.close()
        stage.declare(plain=lambda: 7)
        for _ in range(2):
            async with stage.app:
                assert (await stage.run("plain")).returning == 7
            executor.close()

    @check("EXECUTOR-41")
    def test_another_loop(self, make_component: Factory) -> None:
        """An executor can be used in another event loop after the first one has ended.

        If this fails, check that nothing of the first loop is kept over `close`.
        """
        stages: list[Stage] = []

        async def run() -> None:
            async with self.workbench(make_component) as bench:
                if not stages:
                    stages.append(await bench.stage())
                    stages[0].declare(plain=lambda: 7)
                async with stages[0].app:
                    assert (await stages[0].run("plain")).returning == 7

        asyncio.run(run())
        asyncio.run(run())
