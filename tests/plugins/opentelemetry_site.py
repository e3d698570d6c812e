"""The application that the worker processes of the tests of `opentelemetry` run: each span is a line of JSON."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from qtasks import QueueTasks, Router, current_task
from qtasks.plugins.opentelemetry import OpenTelemetryPlugin

router = Router()


class Down(SpanExporter):
    """An exporter whose collector is away."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ConnectionError("the collector is down")


@router.task(name="first")
async def first(fatal: bool = False) -> int:
    """Adds another task. A fatal one waits for ever, the first time."""
    print("first began", flush=True)
    if fatal and not os.path.exists("killed"):
        open("killed", "w").close()
        await asyncio.Event().wait()
    await current_task().add_task("second")
    return os.getpid()


@router.task(name="second")
def second() -> None:
    """Does nothing."""


def make(provider: TracerProvider, url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[OpenTelemetryPlugin(tracer_provider=provider)])
    application.include_router(router)
    return application


if "QTASKS_URL" in os.environ:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Down()))
    to_stdout = ConsoleSpanExporter(out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(to_stdout))
    app = make(provider)
