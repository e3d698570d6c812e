"""compression: large values are small in the store, and a damaged or hostile one cannot fill the memory."""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtasks import PluginError, QueueTasks, TaskStatusEnum, encode
from qtasks.components.primitives import Update
from qtasks.plugins.at_rest import AtRestError, Place
from qtasks.plugins.compression import CompressionPlugin
from qtasks.schemas import TaskRecord
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins import compression_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.stores import raw_store
from tests.plugins.support import kill, said, workers_up

LONG = "all work and no play makes Jack a dull boy " * 1000
PLACE = Place("qtasks", uuid4(), "args")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


async def record(app: QueueTasks, uuid: UUID) -> TaskRecord:
    found = (await app.storage.get_many([uuid]))[0]
    assert found is not None
    return found


async def test_large_values_are_stored_small_and_small_ones_as_they_are(url: str) -> None:
    app = QueueTasks(url=url, plugins=[CompressionPlugin()])

    @app.task(name="echo")
    async def echo(text: str, **kw: str) -> list[Any]:
        return [text, kw]

    @app.task(name="stream", stream=True)
    def stream() -> Iterator[str]:
        yield from (LONG, "short")

    async with working(app):
        for text, small in ((LONG, False), ("short", True)):
            done = await app.add_task("echo", args=(text,), kwargs={"key": text}, timeout=10)
            assert (done.args, done.kwargs, done.returning) == ((text,), {"key": text}, [text, {"key": text}])
            kept = await record(app, done.uuid)
            if small:
                assert (kept.args, kept.kwargs, kept.returning) == (
                    (text,),
                    {"key": text},
                    [text, {"key": text}],
                )
            else:
                assert len(encode([kept.args, kept.kwargs, kept.returning])) < len(LONG) / 20
        task = await app.add_task("stream")
        assert [item async for item in task.stream()] == [LONG, "short"]
        stored, short = await app.storage.read_items(task.uuid, 0, 10)
        assert len(stored) < len(LONG) / 50
        assert short == "short"
        assert (await task.wait_result(10)).returning == [LONG, "short"]


async def test_max_payload_bounds_the_compressed_size() -> None:
    app = QueueTasks(url="memory://", plugins=[CompressionPlugin(limit=10_000_000)])
    async with app:
        text = "x" * 5_000_000
        task = await app.add_task("t", args=(text,))
        assert ((await app.get(task.uuid)) or task).args == (text,)
        with pytest.raises(PluginError, match="more than the limit of compression"):
            await app.add_task("t", args=("x" * 10_000_001,))


def bomb(size: int) -> str:
    return CompressionPlugin.mark + urlsafe_b64encode(zlib.compress(b'"' + b"x" * size + b'"', 9)).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(50_000_000), "larger than 1000000 bytes"),
        ("deflate:1:AAAA", "is damaged"),
        (bomb(2000)[:-9], "is damaged"),
        ("deflate:1:" + urlsafe_b64encode(zlib.compress(b"no json")).decode(), "is damaged"),
    ],
)
async def test_a_hostile_record_ends_as_a_dead_letter(text: str, words: str) -> None:
    plugin = CompressionPlugin(limit=1_000_000)
    app = QueueTasks(url="memory://", plugins=[plugin])
    with pytest.raises(AtRestError, match=words):
        plugin.open(PLACE, text)
    async with app:
        task = await app.add_task("t", args=(1,))
        await app.storage.update_many([Update(task.uuid, {"args": (text,)})])
        with pytest.raises(PluginError, match=words):
            await app.get(task.uuid)
        listed, _ = await app.get_all()
        assert [task.args for task in listed] == [(text,)]


@given(value=json_values, minimum=st.integers(0, 200))
def test_whatever_is_shut_is_opened(value: Any, minimum: int) -> None:
    plugin = CompressionPlugin(minimum=minimum)
    text = plugin.shut(PLACE, value)
    assert value == (value if text is None else plugin.open(PLACE, text))
    if text is not None:
        assert len(text) < len(encode(value))


@given(value=st.text().map(lambda text: CompressionPlugin.mark + text))
def test_what_looks_compressed_is_compressed(value: str) -> None:
    plugin = CompressionPlugin()
    text = plugin.shut(PLACE, value)
    assert text is not None
    assert plugin.open(PLACE, text) == value


def test_the_plugin_holds_what_a_plugin_has_to() -> None:
    check_plugin(lambda: CompressionPlugin(minimum=0))


def test_a_level_that_is_none() -> None:
    with pytest.raises(ValueError, match="1 to 9"):
        CompressionPlugin(level=10)


async def test_a_killed_worker(redis_url: str, start_workers: StartWorkers) -> None:
    """Two workers; the one that holds the compressed task is killed, the other one ends it."""
    app = compression_site.make(redis_url)
    async with app:
        workers = start_workers(compression_site)
        await workers_up(app, 2)
        task = await app.add_task("repeat", args=(LONG, 3), kwargs={"fatal": True})
        await kill(await said(workers, "repeat began"))
        done = await task.wait_result(20)
        assert (done.status, done.returning) == (TaskStatusEnum.SUCCESS, [LONG] * 3)
        assert len(raw_store(redis_url)) < len(LONG)
