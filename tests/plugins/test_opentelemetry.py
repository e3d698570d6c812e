"""opentelemetry: spans for adding and running, in one trace across processes; watching never harms a task."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from qtasks import (
    QueueTasks,
    TaskContext,
    TaskDefer,
    TaskRejected,
    TaskRequest,
    TaskStatusEnum,
    hookimpl,
)
from qtasks.plugins.opentelemetry import OpenTelemetryPlugin
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins import opentelemetry_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, said, until, workers_up


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def make(provider: TracerProvider, *plugins: object, **options: Any) -> QueueTasks:
    return QueueTasks(
        url="memory://", plugins=[OpenTelemetryPlugin(tracer_provider=provider, **options), *plugins]
    )


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), [span.name for span in spans]
    return found


def context(span: ReadableSpan) -> trace.SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def events(span: ReadableSpan) -> list[tuple[Any, Any]]:
    return [
        ((event.attributes or {})["qtasks.plugin.name"], (event.attributes or {})["qtasks.trigger"])
        for event in span.events
        if event.name == "qtasks.plugin"
    ]


async def test_the_spans_of_a_task_are_one_trace(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    app = make(provider)
    tracer = provider.get_tracer("test")

    @app.task(name="ship", queue="parcels")
    def ship(order: int) -> None:  # in a thread
        with tracer.start_as_current_span("inside"):
            pass

    async with app:
        with tracer.start_as_current_span("request"):
            task = await ship.add_task(7)
        async with asyncio.timeout(10):
            app.worker.config = app.config.model_copy(update={"queues": ("parcels",)})
            await app.serve(until_idle=True)
        assert not trace.get_current_span().get_span_context().is_valid
    spans = by_name(exporter)
    assert spans.keys() == {"request", "send ship", "process ship", "inside"}
    send, process = spans["send ship"], spans["process ship"]
    assert {context(span).trace_id for span in spans.values()} == {context(spans["request"]).trace_id}
    assert parent_id(send) == context(spans["request"]).span_id
    assert parent_id(process) == context(send).span_id
    assert [link.context.span_id for link in process.links] == [context(send).span_id]
    assert parent_id(spans["inside"]) == context(process).span_id
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    common = {
        "messaging.system": "qtasks", "messaging.destination.name": "parcels", "messaging.message.id": str(task.uuid),
        "qtasks.app": "qtasks", "qtasks.task.name": "ship",
    }  # fmt: skip
    for span, operation in ((send, "send"), (process, "process")):
        expected = {**common, "messaging.operation.name": operation, "messaging.operation.type": operation}
        if operation == "process":
            expected["qtasks.task.attempt"] = 0
        assert dict(span.attributes or {}) == expected
        assert span.status.status_code is StatusCode.UNSET


async def test_a_run_may_begin_a_trace_of_its_own(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    app = make(provider, child_of_send=False)

    @app.task(name="ship")
    async def ship() -> None: ...

    async with working(app):
        await (await ship.add_task()).wait_result(10)
    spans = by_name(exporter)
    send, process = spans["send ship"], spans["process ship"]
    assert process.parent is None
    assert context(process).trace_id != context(send).trace_id
    assert [link.context.span_id for link in process.links] == [context(send).span_id]


async def test_each_way_to_end(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    class After:
        """What fires when the code has ended is in no span of it."""

        @hookimpl
        def worker_remove_finished_task(self, task_func: Any) -> None:
            after.append((task_func.name, trace.get_current_span().get_span_context().is_valid))

    after: list[tuple[str, bool]] = []
    app = make(provider, After())
    tries: list[int] = []

    @app.task(name="fails", retry=1, retry_delay=0)
    async def fails() -> None:
        raise KeyError("no such order")

    @app.task(name="cancels", echo=True)
    async def cancels(task: TaskContext) -> None:
        task.cancel("no")

    @app.task(name="defers")
    async def defers() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise TaskDefer(0.01)

    @app.task(name="rejects")
    async def rejects(number: int) -> None: ...

    async with working(app):
        for name in ("fails", "cancels", "defers", "rejects"):
            await (await app.add_task(name)).wait_result(10)
            assert not trace.get_current_span().get_span_context().is_valid
    spans = [span for span in exporter.get_finished_spans() if span.name.startswith("process")]
    seen = [
        (span.name.split()[1], (span.attributes or {})["qtasks.task.attempt"], span.status.status_code.name,
         (span.attributes or {}).get("error.type") or (span.attributes or {}).get("qtasks.task.ended_by"))
        for span in spans
    ]  # fmt: skip
    assert seen == [
        ("fails", 0, "ERROR", "KeyError"), ("fails", 1, "ERROR", "KeyError"), ("cancels", 0, "UNSET", "cancel"),
        ("defers", 0, "UNSET", "defer"), ("defers", 0, "UNSET", None), ("rejects", 0, "ERROR", "TypeError"),
    ]  # fmt: skip
    assert after == [(name, False) for name in ("fails", "cancels", "defers", "rejects")]
    assert len({parent_id(span) for span in spans[:2]}) == 1
    assert [event.name for event in spans[0].events if event.name == "exception"] == ["exception"]


class Shout:
    """Changes something at each step, and fails in a signal, and once in the end."""

    failed = False

    @hookimpl
    def broker_add_before(self, model: Any) -> Any:
        return replace(model, queue="second")

    @hookimpl
    async def worker_add(self, args: Any) -> Any:
        return {"args": tuple(each.upper() for each in args)}

    @hookimpl
    def task_executor_run_task(self, result: Any) -> Any:
        if not self.failed:
            self.failed = True
            raise ConnectionError("secret")
        return f"{result}!"

    @hookimpl
    def worker_execute_after(self) -> None:
        """Fires after the run: it is in no span, that of the next attempt neither."""

    @hookimpl
    def task_executor_middlewares_execute(self) -> None:
        raise ValueError("the word is secret")


async def test_calls_of_plugins_are_events_without_values(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    app = make(provider)
    app.add_plugin(Shout(), name="shout")

    @app.task(name="say", retry=1, retry_delay=0)
    async def say(word: str) -> str:
        return word

    app.worker.config = app.config.model_copy(update={"queues": ("second",)})
    async with working(app):
        assert (await (await say.add_task("secret")).wait_result(10)).returning == "SECRET!"
    send, first, second = exporter.get_finished_spans()
    assert (send.name, first.name, second.name) == ("send say", "process say", "process say")
    assert (send.attributes or {})["messaging.destination.name"] == "second"
    assert events(send) == [("shout", "broker_add_before")]
    assert events(first) == events(second) == [
        ("shout", "worker_add"), ("shout", "task_executor_middlewares_execute"),
        ("validation", "task_executor_args_replace"), ("shout", "task_executor_run_task"),
    ]  # fmt: skip
    added, failed, _, ran = (event.attributes or {} for event in second.events)
    assert (added["qtasks.plugin.changed"], ran["qtasks.plugin.changed"]) == (("args",), ("result",))
    assert failed["error.type"] == "ValueError"
    (told,) = (event.attributes or {} for event in first.events if event.name == "qtasks.plugin"
               and (event.attributes or {})["qtasks.trigger"] == "task_executor_run_task")  # fmt: skip
    assert told["error.type"] == "ConnectionError"
    for span in (send, first, second):
        times = [event.timestamp for event in span.events]
        assert times == sorted(times)
    for span in (send, second):  # the first one has the exception, with what it says
        assert "secret" not in span.to_json().lower()


async def test_without_events_nobody_listens(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    app = make(provider, Shout(), plugin_events=False)

    @app.task(name="say")
    async def say(word: str) -> str:
        return word

    app.worker.config = app.config.model_copy(update={"queues": ("second",)})
    async with working(app):
        await (await say.add_task("secret")).wait_result(10)
    assert [events(span) for span in by_name(exporter).values()] == [[], []]


async def test_follow_ups_and_replays_are_linked(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    class Follow:
        @hookimpl
        def worker_remove_finished_task(self, task_func: Any, model: Any) -> Any:
            if task_func.name == "first":
                return {"model": replace(model, then=(TaskRequest(task_name="second"),))}
            return None

    app = make(provider, Follow())

    @app.task(name="first")
    async def first() -> None: ...

    @app.task(name="second")
    async def second() -> None:
        raise ValueError

    async with app:
        await first.add_task()
        async with asyncio.timeout(10):
            await app.serve(until_idle=True)
        spans = by_name(exporter)
        assert spans.keys() == {"send first", "process first", "send second", "process second"}
        assert parent_id(spans["send second"]) == context(spans["process first"]).span_id
        assert parent_id(spans["process second"]) == context(spans["send second"]).span_id
        exporter.clear()
        dead = [task async for task in app.dead()]
        await app.replay(dead[0].uuid)
        (again,) = exporter.get_finished_spans()
        assert [link.context.span_id for link in again.links] == [context(spans["send second"]).span_id]


async def test_what_is_never_stored_leaves_nothing_behind(provider: TracerProvider) -> None:
    class Refuse:
        @hookimpl
        def storage_add(self) -> None:
            raise TaskRejected("no")

    plugin = OpenTelemetryPlugin(tracer_provider=provider)
    app = QueueTasks(url="memory://", plugins=[plugin, Refuse()])
    async with app:
        for _ in range(10):
            with pytest.raises(TaskRejected):
                await app.add_task("t")
    gc.collect()
    assert len(plugin._sending) == len(plugin._early) == 0


class Broken(SpanProcessor):
    """Raises at every turn."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("broken on start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("broken on end")


class BrokenLater(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("broken on end")


@pytest.mark.parametrize("processor", [Broken(), BrokenLater()])
async def test_a_broken_processor_harms_no_task(
    processor: SpanProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(processor)
    app = make(provider)

    @app.task(name="ship")
    async def ship() -> str:
        return "shipped"

    with caplog.at_level(logging.ERROR):
        async with working(app):
            done = await (await ship.add_task()).wait_result(10)
    assert (done.status, done.returning, done.attempt) == (TaskStatusEnum.SUCCESS, "shipped", 0)
    assert "a span is incomplete" in caplog.text


async def test_a_context_that_is_none_is_no_link(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    class Garbage:
        @hookimpl
        def storage_add(self, task_status: Any) -> Any:
            return {"task_status": replace(task_status, extra={"opentelemetry": garbage.pop()})}

    garbage: list[Any] = [{"traceparent": "00-nonsense"}, ["no", "mapping"], None, {"traceparent": 7}]
    app = make(provider, Garbage())

    @app.task(name="ship")
    async def ship() -> None: ...

    async with working(app):
        while garbage:
            done = await (await ship.add_task()).wait_result(10)
            assert done.status is TaskStatusEnum.SUCCESS
    processed = [span for span in exporter.get_finished_spans() if span.name == "process ship"]
    assert [(span.parent, list(span.links)) for span in processed] == [(None, [])] * 4


def test_the_plugin_holds_what_a_plugin_has_to(provider: TracerProvider) -> None:
    check_plugin(lambda: OpenTelemetryPlugin(tracer_provider=provider))


async def test_one_trace_over_three_processes_with_the_collector_down(
    redis_url: str, start_workers: StartWorkers, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Added here; run by a worker that is killed; run again by the other, which adds a task. The exporter of the
    workers raises each time."""
    app = opentelemetry_site.make(provider, redis_url)
    async with app:
        workers = start_workers(opentelemetry_site)
        await workers_up(app, 2)
        task = await app.add_task("first", kwargs={"fatal": True})
        killed = await said(workers, "first began")
        await kill(killed)
        done = await task.wait_result(20)
        assert done.status is TaskStatusEnum.SUCCESS
        (other,) = (worker for worker in workers if worker is not killed)
        assert done.returning == other.process.pid

        async def spans() -> dict[str, Any] | None:
            found = [json.loads(line) for line in list(other.lines) if line.startswith('{"name"')]
            return {span["name"]: span for span in found} if len(found) >= 3 else None

        seen = await until(spans)
    send = context(by_name(exporter)["send first"])
    assert seen.keys() == {"process first", "send second", "process second"}
    assert {int(span["context"]["trace_id"], 16) for span in seen.values()} == {send.trace_id}
    assert int(seen["process first"]["parent_id"], 16) == send.span_id
    assert seen["send second"]["parent_id"] == seen["process first"]["context"]["span_id"]
    assert seen["process second"]["parent_id"] == seen["send second"]["context"]["span_id"]
    assert "the collector is down" in other.output
