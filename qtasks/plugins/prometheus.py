"""prometheus: counters and histograms of tasks, gauges of queues, and an endpoint to scrape them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from threading import Thread
from typing import Final, TypeAlias
from uuid import UUID
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from qtasks import (
    PluginCall,
    QueueTasks,
    Starter,
    Task,
    TaskExecSchema,
    TaskPrioritySchema,
    TaskStatusCancelSchema,
    TaskStatusErrorSchema,
    TaskStatusSuccessSchema,
    Worker,
    current_task,
    hookimpl,
)

log = logging.getLogger("qtasks.plugins")

OTHER: Final = "(other)"
"""The label of tasks and queues that the application does not declare: names that callers made up must not each
become a time series."""
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

_Ended: TypeAlias = TaskStatusSuccessSchema | TaskStatusErrorSchema | TaskStatusCancelSchema


class PrometheusPlugin:
    """Metrics of one application. Labels are bounded by what it declares, see `OTHER`.

    Parameters:
        registry: where the metrics are registered; two applications in one process need one each.
        ports: a worker serves the registry at the first of these that is free; 0 is any free port; none opens no
            endpoint, for a process that has one already (`prometheus_client.make_asgi_app(registry)`).
        address: the address of the endpoint.
        refresh: seconds between two looks at the queues.
        buckets: of the histograms, in seconds.
        plugin_seconds: whether the calls of all plugins are measured, too.

    Attributes:
        port: where the endpoint is; `None` while there is none.
    """

    qtasks_name = "prometheus"

    def __init__(
        self, *, registry: CollectorRegistry = REGISTRY, ports: Iterable[int] = (), address: str = "127.0.0.1",
        refresh: float = 15.0, buckets: Sequence[float] = BUCKETS, plugin_seconds: bool = False,
    ) -> None:  # fmt: skip
        self.port: int | None = None
        self._app: QueueTasks | None = None
        self._registry = registry
        self._ports = tuple(ports)
        self._address = address
        self._refresh = refresh
        self._server: tuple[WSGIServer, Thread] | None = None
        self._looking: asyncio.Task[None] | None = None

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self._added = counter(
            "qtasks_tasks_added", "Tasks stored and queued by this process.", "task", "queue"
        )
        self._ended = counter("qtasks_tasks_ended", "Runs that ended.", "task", "queue", "outcome")
        self._restored = counter("qtasks_tasks_restored", "Runs taken over from lost workers.", "task")
        self._running = gauge("qtasks_tasks_running", "Tasks whose code is running.", "task")
        self._run = histogram("qtasks_task_run_seconds", "From the start of a run to its end.", "task")
        self._wait = histogram("qtasks_task_wait_seconds", "From when a run was due to its start.", "queue")
        self._queued = gauge("qtasks_queue_tasks", "Tasks in a queue, of all processes.", "queue", "state")
        self._dead = gauge("qtasks_dead_tasks", "Dead letters, of all processes.")
        self._plugins: Histogram | None = None
        if plugin_seconds:
            self._plugins = histogram("qtasks_plugin_seconds", "Calls of plugins.", "plugin", "trigger")
        registry.register(_PluginErrors(self))

    # --- Labels ---------------------------------------------------------------------------------

    def _task(self, name: str) -> str:
        return name if self._app is not None and name in self._app.tasks else OTHER

    def _queue(self, name: str) -> str:
        app = self._app
        if app is None:
            return OTHER
        known = name in app.worker.queues or any(name == task.queue for task in app.tasks.values())
        return name if known else OTHER

    # --- Tasks ----------------------------------------------------------------------------------

    @hookimpl
    def qtasks_add_task_after_broker(self, task: Task) -> None:
        """Counts a task that was added."""
        self._added.labels(self._task(task.task_name), self._queue(task.queue)).inc()

    @hookimpl
    def storage_running_older_tasks(self, uuid: UUID, task_name: str) -> None:
        """Counts a task that came back from a lost worker."""
        self._restored.labels(self._task(task_name)).inc()

    @hookimpl
    def task_executor_middlewares_execute(self, task_func: TaskExecSchema) -> None:
        """Counts a running task, until it has ended."""
        running = self._running.labels(self._task(task_func.name))
        current_task().resources.callback(running.dec)
        running.inc()

    @hookimpl
    def worker_execute_after(
        self, task_func: TaskExecSchema, task_broker: TaskPrioritySchema, model: _Ended
    ) -> None:
        """Counts and measures a run whose outcome is stored, and the follow-ups that were stored with it."""
        task, queue = self._task(task_broker.name), self._queue(task_broker.queue)
        retried = isinstance(model, TaskStatusErrorSchema) and model.retry_in is not None
        self._ended.labels(task, queue, "retry" if retried else model.status.value).inc()
        if model.started_at:
            self._run.labels(task).observe(max(0.0, model.finished_at - model.started_at))
            self._wait.labels(queue).observe(max(0.0, model.started_at - model.available_at))
        if not retried and self._app is not None:
            for follow in model.then:
                declared = self._app.tasks.get(follow.task_name)
                into = follow.queue or (declared.queue if declared is not None else "default")
                self._added.labels(self._task(follow.task_name), self._queue(into)).inc()

    # --- Start and stop -------------------------------------------------------------------------

    @hookimpl
    def starter_start(self, starter: Starter) -> None:
        """Learns of its application."""
        self._app = starter.app
        if self._plugins is not None:
            starter.pm.add_observer(self._measure)

    @hookimpl
    def starter_stop(self, starter: Starter) -> None:
        """Stops measuring."""
        if self._plugins is not None:
            starter.pm.remove_observer(self._measure)

    def _measure(self, call: PluginCall) -> None:
        if self._plugins is not None:
            self._plugins.labels(call.plugin, call.trigger).observe(call.seconds)

    @hookimpl
    def worker_start(self, worker: Worker) -> None:
        """Opens the endpoint, and begins to look at the queues. A worker that finds no free port runs without one."""
        self._looking = asyncio.create_task(self._look(worker.app), name="qtasks-prometheus")
        for port in self._ports:
            try:
                self._server = start_http_server(port, self._address, self._registry)
            except OSError as error:
                log.info("prometheus: port %d cannot be used: %s", port, error)
                continue
            self.port = self._server[0].server_port
            log.info("prometheus: metrics at http://%s:%d/metrics", self._address, self.port)
            return
        if self._ports:
            log.error("prometheus: none of the ports %s is free: no metrics from this worker", self._ports)

    @hookimpl
    async def worker_stop(self, worker: Worker) -> None:
        """Closes the endpoint. A scrape that is under way gets its answer."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        server, self._server, self.port = self._server, None, None
        if server is not None:
            await asyncio.to_thread(_close, *server)

    async def _look(self, app: QueueTasks) -> None:
        found: dict[tuple[str, str], int] = {}
        while True:
            try:
                sizes = await app.broker.size()
                dead = (await app.storage.counts())["dead"]
            except Exception as error:
                log.warning(
                    "prometheus: the queues cannot be looked at, they keep their last values: %s", error
                )
            else:
                self._dead.set(dead)
                # A queue that is empty may not be told of any more.
                found = dict.fromkeys(found, 0)
                for name, size in sizes.items():
                    for state, count in size._asdict().items():
                        key = self._queue(name), state
                        found[key] = found.get(key, 0) + count
                for key, count in found.items():
                    self._queued.labels(*key).set(count)
            await asyncio.sleep(self._refresh)


class _PluginErrors(Collector):
    """Reads how often plugins failed when it is asked, from what the plugin manager counts anyway."""

    def __init__(self, plugin: PrometheusPlugin) -> None:
        self._plugin = plugin

    def describe(self) -> Iterator[Metric]:
        """The family without values; reading it needs no application."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """The present values."""
        family, app = self._family(), self._plugin._app
        for (plugin, trigger), count in dict(app.pm.errors if app is not None else {}).items():
            family.add_metric([plugin, trigger], count)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(
            "qtasks_plugin_errors", "Calls of plugins that failed.", labels=["plugin", "trigger"]
        )


def _close(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
