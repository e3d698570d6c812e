"""prometheus: what is counted, by real scrapes; labels that nobody can blow up; an endpoint that ends in time."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.parser import text_string_to_metric_families

from qtasks import QueueTasks, TaskContext, TaskRequest, TaskStatusEnum, hookimpl
from qtasks.plugins.prometheus import OTHER, PrometheusPlugin
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins import prometheus_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.support import kill, said, until, workers_up
from tests.support.commands import WAIT, Running

Samples = dict[tuple[str, ...], float]
LABELS = ("plugin", "trigger", "task", "queue", "state", "outcome")


def parsed(text: str) -> Samples:
    """The samples by name and values of labels, without the buckets and the times of creation."""
    return {
        (sample.name, *(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


async def scrape(port: int) -> Samples:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.status == 200
            text: str = answer.read().decode()
            return text

    return parsed(await asyncio.to_thread(read))


async def scraped_until(plugin: PrometheusPlugin, wanted: Callable[[Samples], bool]) -> Samples:
    port = await said_port(plugin)

    async def look() -> Samples | None:
        samples = await scrape(port)
        return samples if wanted(samples) else None

    return await until(look)


def make(**options: Any) -> tuple[PrometheusPlugin, QueueTasks]:
    plugin = PrometheusPlugin(**{"registry": CollectorRegistry(), "ports": [0], "refresh": 0.01, **options})
    return plugin, QueueTasks(url="memory://", plugins=[plugin])


async def test_what_is_counted() -> None:
    plugin, app = make()
    running, go_on = asyncio.Event(), asyncio.Event()

    @app.task(name="good")
    async def good() -> None: ...

    @app.task(name="bad", retry=1, retry_delay=0)
    async def bad() -> None:
        raise ValueError

    @app.task(name="vetoed", echo=True)
    async def vetoed(context: TaskContext) -> None:
        context.cancel()

    @app.task(name="long")
    async def long() -> None:
        running.set()
        await go_on.wait()

    class Follow:
        @hookimpl
        def worker_remove_finished_task(self, task_func: Any, model: Any) -> Any:
            then = TaskRequest(task_name="later", available_at=4e9)
            return {"model": replace(model, then=(then,))} if task_func.name == "good" else None

        @hookimpl
        def task_executor_middlewares_execute(self, task_func: Any) -> None:
            if task_func.name == "vetoed":
                raise RuntimeError

    app.add_plugin(Follow(), name="follow")
    async with working(app):
        for name in ("good", "bad", "vetoed"):
            await (await app.add_task(name)).wait_result(10)
        await app.add_task("good", delay=600)
        task = await long.add_task()
        await running.wait()
        # The queues are looked at now and then, so these three come when they come.
        looked = {("qtasks_dead_tasks",): 1, ("qtasks_queue_tasks", "default", "leased"): 1,
                  ("qtasks_queue_tasks", "default", "delayed"): 2}  # fmt: skip
        samples = await scraped_until(plugin, lambda samples: looked.items() <= samples.items())
        assert samples["qtasks_tasks_running", "long"] == 1
        go_on.set()
        await task.wait_result(10)
        ended = ("qtasks_tasks_ended_total", "long", "default", "success")
        samples = await scraped_until(plugin, lambda samples: ended in samples)
    counted = {key[1:]: value for key, value in samples.items() if key[0] == "qtasks_tasks_ended_total"}
    assert counted == {
        ("good", "default", "success"): 1, ("bad", "default", "retry"): 1, ("bad", "default", "error"): 1,
        ("vetoed", "default", "cancel"): 1, ("long", "default", "success"): 1,
    }  # fmt: skip
    added = {key[1]: value for key, value in samples.items() if key[0] == "qtasks_tasks_added_total"}
    assert added == {"good": 2, OTHER: 1, "bad": 1, "vetoed": 1, "long": 1}
    assert samples["qtasks_task_run_seconds_count", "bad"] == 2
    assert samples["qtasks_task_run_seconds_sum", "bad"] >= 0
    assert samples["qtasks_task_wait_seconds_count", "default"] == 5
    assert {key: value for key, value in samples.items() if key[0] == "qtasks_tasks_running"} == {
        ("qtasks_tasks_running", name): 0 for name in ("good", "bad", "vetoed", "long")
    }
    assert samples["qtasks_plugin_errors_total", "follow", "task_executor_middlewares_execute"] == 1


async def test_names_that_callers_make_up_are_one_series() -> None:
    plugin, app = make()

    @app.task(name="known")
    async def known() -> None: ...

    async with working(app):
        await known.add_task()
        for number in range(300):
            await app.add_task(f"made-up-{number}", queue=f"queue-{number}")
        wanted = ("qtasks_queue_tasks", OTHER, "ready")
        samples = await scraped_until(plugin, lambda samples: samples.get(wanted) == 300)
    assert samples["qtasks_tasks_added_total", OTHER, OTHER] == 300
    assert len(samples) < 30
    assert not any("made-up" in label or "queue-" in label for key in samples for label in key)


async def test_calls_of_plugins_are_measured_if_asked() -> None:
    plugin, app = make(plugin_seconds=True)

    @app.task(name="good")
    async def good() -> None: ...

    async with working(app):
        await (await good.add_task()).wait_result(10)
        samples = await scrape(await said_port(plugin))
    assert samples["qtasks_plugin_seconds_count", "validation", "task_executor_args_replace"] == 1


async def test_the_endpoint_ends_with_its_worker_and_a_scrape_meanwhile_is_answered() -> None:
    plugin, app = make()
    async with working(app):
        port = await said_port(plugin)
        answers = [asyncio.create_task(scrape(port)) for _ in range(20)]
        await asyncio.sleep(0)
    for answer in await asyncio.gather(*answers, return_exceptions=True):
        assert isinstance(answer, dict | urllib.error.URLError | ConnectionError), answer
    assert plugin.port is None
    with pytest.raises(urllib.error.URLError):
        await scrape(port)


async def said_port(plugin: PrometheusPlugin) -> int:
    async def port() -> int | None:
        return plugin.port

    return await until(port)


async def test_a_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        plugin, app = make(ports=[number, 0])
        async with working(app):
            assert await said_port(plugin) != number
        plugin, app = make(ports=[number])

        @app.task(name="good")
        async def good() -> str:
            return "good"

        with caplog.at_level(logging.ERROR):
            async with working(app):
                assert (await (await good.add_task()).wait_result(10)).returning == "good"
        assert plugin.port is None
        assert f"none of the ports ({number},) is free" in caplog.text


async def test_a_store_that_is_away_does_not_end_the_metrics(caplog: pytest.LogCaptureFixture) -> None:
    plugin, app = make()
    size, away = app.broker.size, True

    async def sometimes() -> Any:
        if away:
            raise ConnectionError("away")
        return await size()

    app.broker.size = sometimes  # type: ignore[method-assign]
    async with working(app):
        async with asyncio.timeout(10):
            while "they keep their last values: away" not in caplog.text:
                await asyncio.sleep(0.01)
        away = False
        await app.add_task("later", delay=600)
        wanted = ("qtasks_queue_tasks", "default", "delayed")
        assert await scraped_until(plugin, lambda samples: samples.get(wanted) == 1)


async def test_an_application_with_an_endpoint_of_its_own() -> None:
    registry = CollectorRegistry()
    plugin, app = make(registry=registry, ports=())
    async with working(app):
        await app.add_task("later", delay=600)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
    await make_asgi_app(registry)(scope, receive, send)
    samples = parsed(b"".join(message.get("body", b"") for message in sent).decode())
    assert samples["qtasks_tasks_added_total", OTHER, "default"] == 1
    assert plugin.port is None


def test_the_plugin_holds_what_a_plugin_has_to() -> None:
    check_plugin(lambda: PrometheusPlugin(registry=CollectorRegistry()))


async def port_of(worker: Running) -> int:
    async def port() -> int | None:
        found = re.search(r"metrics at http://127.0.0.1:(\d+)/metrics", worker.output)
        return int(found[1]) if found else None

    return await until(port)


async def test_two_workers_a_kill_and_a_scrape_during_the_stop(
    redis_url: str, start_workers: StartWorkers, tmp_path: Path
) -> None:
    """What one worker lost the other one counts as restored; it answers until it has stopped."""
    app = prometheus_site.make(redis_url)
    async with app:
        workers = start_workers(prometheus_site)
        ports = {worker.process.pid: await port_of(worker) for worker in workers}
        await workers_up(app, 2)
        task = await app.add_task("work", kwargs={"fatal": True})
        killed = await said(workers, "work began")
        samples = await scrape(ports[killed.process.pid])
        assert samples["qtasks_tasks_running", "work"] == 1
        await kill(killed)
        done = await task.wait_result(20)
        assert done.status is TaskStatusEnum.SUCCESS
        (other,) = (worker for worker in workers if worker is not killed)
        port = ports[other.process.pid]

        async def counted() -> Samples | None:
            samples = await scrape(port)
            return samples if ("qtasks_tasks_ended_total", "work", "default", "success") in samples else None

        samples = await until(counted)
        assert samples["qtasks_tasks_restored_total", "work"] == 1
        await app.add_task("wait")
        await said([other], "wait began")
        other.signal(signal.SIGTERM)
        await said([other], "shutting down")
        assert (await scrape(port))["qtasks_tasks_running", "wait"] == 1
        (tmp_path / "go-on").touch()
        assert await asyncio.to_thread(other.process.wait, WAIT) == 0
        assert "Traceback" not in other.output
        with pytest.raises(urllib.error.URLError):
            await scrape(port)
