"""Crashes on SQLite, one at a time: real processes, real signals, invariants I1 to I6 and I10."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from tests.chaos.check import Observer, check, client, drained, everything
from tests.chaos.faults import FAILPOINTS
from tests.chaos.site import Site, site, wait_for

LEASE = 1.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, lease=LEASE, shutdown_timeout=1, release_delay=0.1) as made:
        yield made


def judge(
    place: Site, *, acked: int | None = None, repeats: int | None = None, observer: Observer | None = None
):
    """Drains with the workers that are there; every invariant holds."""
    assert asyncio.run(drained(place, 30)) == []
    report = asyncio.run(check(place, observer))
    assert report.failures == []
    assert acked is None or report.acked == acked
    assert repeats is None or report.repeats == repeats
    return report


def enqueue(place: Site, tasks: int, name: str, seconds: float = 0.0) -> None:
    """Adds tasks of one kind; the longest of them takes `seconds`."""
    producer = place.producer(tasks, f"{name} {tasks}", CHAOS_NAMES=name, CHAOS_SECONDS=seconds)
    assert producer.wait(30) == 0


def add(place: Site, name: str, seconds: float) -> None:
    """Adds one task that takes just so long."""

    async def adding() -> None:
        async with client(place) as app:
            task = await app.add_task(name, args=(seconds,))
            place.noted("acked", task.uuid, name)

    asyncio.run(adding())


def test_two_workers_on_one_file_run_each_task_once(place: Site) -> None:
    workers = [place.worker(), place.worker()]
    enqueue(place, 200, "work", 0.01)
    judge(place, acked=200, repeats=0)
    assert len({pid for _, _, pid, _ in place.lines("runs")}) <= len(workers)


def test_tasks_of_a_killed_worker_run_again_in_time(place: Site) -> None:
    enqueue(place, 10, "work", 3.0)
    first = place.worker()
    wait_for("the tasks run", lambda: len(place.begun(first)) >= 5)
    interrupted = place.begun(first)
    place.kill(first)
    place.worker()
    wait_for("they run again", lambda: interrupted & place.begun())
    report = judge(place, acked=10)
    assert report.repeats >= 1
    # I8, with the start of the new process on a busy machine on top.
    assert max(back.recovery + back.waited for back in report.back) <= LEASE + LEASE / 4 + 1 + 3


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_worker_killed_at_a_failpoint_loses_nothing(place: Site, point: str) -> None:
    enqueue(place, 30, "work", 0.01)
    doomed = place.worker(QTASKS_FAILPOINT=f"{point}:3")
    assert doomed.wait(30) == -signal.SIGKILL
    place.worker()
    judge(place, acked=30)


def test_a_paused_worker_comes_back_and_its_result_is_rejected(place: Site) -> None:
    add(place, "work", 1.0)
    old = place.worker()
    wait_for("the task runs", lambda: place.begun(old))
    old.send_signal(signal.SIGSTOP)
    place.worker()
    wait_for("another worker has ended it", lambda: place.lines("accepted"))
    observer = Observer(place)

    async def look() -> None:
        async with client(place) as app:
            observer.look(await everything(app))

    asyncio.run(look())
    old.send_signal(signal.SIGCONT)
    log = place.dir / "worker.log"
    wait_for("the old worker drops its result", lambda: "dropped" in log.read_text())
    judge(place, acked=1, repeats=1, observer=observer)
    assert len(place.lines("accepted")) == 1


def test_a_blocked_loop_loses_its_lease(place: Site) -> None:
    add(place, "blocking", 60.0)
    old = place.worker()
    wait_for("it blocks", lambda: place.begun(old))
    place.worker()
    log = place.dir / "worker.log"
    wait_for("the old worker drops its result", lambda: "dropped" in log.read_text())
    judge(place, acked=1, repeats=1)
    assert len(place.lines("accepted")) == 1


def test_a_producer_killed_while_it_adds_keeps_what_was_acknowledged(place: Site) -> None:
    place.worker()
    for seed in range(3):
        producer = place.producer(100_000, seed, CHAOS_NAMES="work", CHAOS_SECONDS=0)
        known = len(place.lines("acked"))
        wait_for("some are acknowledged", lambda known=known: len(place.lines("acked")) > known + 50)
        producer.kill()
        producer.wait()
    judge(place, repeats=0)


def test_sigterm_under_load_ends_in_time(place: Site) -> None:
    enqueue(place, 200, "work", 0.2)
    enqueue(place, 20, "threaded", 20.0)
    worker = place.worker()
    wait_for("tasks run", lambda: len(place.lines("runs")) > 5)
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(30) == 0
    assert time.monotonic() - began < 1 + 5  # I10: shutdown_timeout + 5 s
    assert asyncio.run(_process_or_new(place))


def test_a_task_that_swallows_its_cancellation_does_not_keep_the_worker(place: Site) -> None:
    add(place, "stubborn", 60.0)
    worker = place.worker()
    wait_for("it runs", lambda: place.begun(worker))
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(30) == 0
    assert time.monotonic() - began < 1 + 5  # I10
    assert "stubborn" in (place.dir / "worker.log").read_text()
    place.worker()
    judge(place, acked=1, repeats=1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("triggers", "code"),
    [
        ("worker_stop", 0),  # left behind: everything else is closed as it should be
        ("qtasks_stop storage_stop starter_stop", 1),  # each would take its time: the process is ended
    ],
)
def test_a_plugin_that_swallows_its_cancellation_does_not_keep_the_worker(
    place: Site, triggers: str, code: int
) -> None:
    worker = place.worker(CHAOS_HELD_UP=triggers)
    wait_for("it serves", lambda: place.lines("workers"))
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(30) == code
    assert time.monotonic() - began < 1 + 5  # I10
    assert place.lines("held")
    log = (place.dir / "worker.log").read_text()
    assert ("holds up" if code == 0 else "left to its lease") in log


@pytest.mark.thorough
def test_a_log_that_nobody_reads_any_more_does_not_keep_the_worker(place: Site) -> None:
    """The pipe is full when the shutdown is held up, so that what is said of it cannot be written either."""
    os.mkfifo(place.dir / "worker.log")
    pipe = os.open(place.dir / "worker.log", os.O_RDWR | os.O_NONBLOCK)
    try:
        worker = place.worker(CHAOS_HELD_UP="storage_stop")
        wait_for("it serves", lambda: place.lines("workers"))
        began = time.monotonic()
        worker.terminate()
        wait_for("the shutdown is held up", lambda: place.lines("held"))
        for size in (4096, 1):
            with suppress(BlockingIOError):
                while True:
                    os.write(pipe, b"x" * size)
        assert worker.wait(30) == 1
        assert time.monotonic() - began < 1 + 5  # I10
    finally:
        os.close(pipe)


async def _process_or_new(place: Site) -> bool:
    async with client(place) as app:
        tasks = await everything(app)
    return all(task.status.value in ("new", "process", "success") for task in tasks.values())


def test_a_second_signal_ends_at_once(place: Site) -> None:
    add(place, "work", 30.0)
    worker = place.worker(QTASKS_SHUTDOWN_TIMEOUT=25)
    wait_for("the task runs", lambda: place.begun(worker))
    worker.terminate()
    time.sleep(0.2)  # two signals of one kind at once are one
    assert worker.poll() is None
    worker.terminate()
    began = time.monotonic()
    assert worker.wait(10) == 130
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("junk", ["'{\"'", "'[]'"], ids=["cut", "shape"])
def test_a_corrupt_row_is_buried_alone(place: Site, junk: str) -> None:
    enqueue(place, 20, "work", 0.01)
    with sqlite3.connect(place.dir / "queue.db") as file:
        seq, raw = file.execute("SELECT seq, uuid FROM tasks ORDER BY seq LIMIT 1 OFFSET 5").fetchone()
        file.execute(f"UPDATE tasks SET payload = {junk} WHERE seq = ?", (seq,))
    file.close()
    worker = place.worker()
    wait_for("the others have ended", lambda: len(place.lines("accepted")) >= 19)
    assert asyncio.run(drained(place, 20)) == []
    assert worker.poll() is None
    corrupt = str(UUID(bytes=raw))

    async def seen() -> dict[str, str]:
        async with client(place) as app:
            return {uuid: task.status.value for uuid, task in (await everything(app)).items()}

    statuses = asyncio.run(seen())
    assert statuses.pop(corrupt) == "error"
    assert set(statuses.values()) == {"success"}
