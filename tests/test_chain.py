"""What the chain does with time, cancellation and nesting (the rules themselves: tests/properties)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from qtasks.chain import Trigger
from qtasks.chain.runtime import running
from qtasks.errors import PluginError, PluginTimeoutError
from qtasks.manager import PluginManager
from qtasks.markers import hookimpl

CONFIG: dict[str, Any] = {"global_config": None, "name": "n", "key": "k", "result": 0}


class Waits:
    """Waits until it is let go."""

    def __init__(self) -> None:
        self.started, self.go = asyncio.Event(), asyncio.Event()

    @hookimpl
    async def global_config_get(self, result: int) -> int:
        self.started.set()
        await self.go.wait()
        return result + 1


async def test_nothing_is_armed_for_what_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[float] = []
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def counting(when: float, *args: Any, **kwargs: Any) -> Any:
        armed.append(when)
        return call_at(when, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", counting)

    class Quick:
        @hookimpl
        async def global_config_get(self, result: int) -> int:
            return result + 1

    pm = PluginManager()
    pm.register(Quick())
    for _ in range(100):
        assert await pm.hook.global_config_get(**CONFIG) == 1
    assert armed == []
    waits = [Waits() for _ in range(3)]
    for i, plugin in enumerate(waits):
        plugin.go.set()
        pm.register(plugin, name=f"w{i}")

    class Yields:
        @hookimpl
        async def global_config_get(self, result: int) -> int:
            await asyncio.sleep(0)
            return result + 1

    pm.register(Yields())
    for _ in range(100):
        assert await pm.hook.global_config_get(**CONFIG) == 5
    assert len(armed) == 1


async def test_each_of_many_that_wait_has_its_own_deadline() -> None:
    class Sleeps:
        @hookimpl
        async def global_config_get(self, result: float) -> None:
            await asyncio.sleep(result)

    pm = PluginManager(plugin_timeout=0.1)
    pm.register(Sleeps())
    calls = [pm.hook.global_config_get(**{**CONFIG, "result": i % 2 * 60.0}) for i in range(200)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(item) for item in done] == [float, PluginTimeoutError] * 100


async def test_a_cancellation_from_outside_wins() -> None:
    pm = PluginManager(plugin_timeout=60)
    waits = Waits()
    pm.register(waits)
    task = asyncio.ensure_future(pm.hook.global_config_get(**CONFIG))
    await waits.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not pm.errors


async def test_a_cancellation_from_outside_wins_over_a_deadline_of_the_same_moment() -> None:
    pm = PluginManager(plugin_timeout=0.02)
    waits = Waits()
    pm.register(waits)
    task = asyncio.ensure_future(pm.hook.global_config_get(**CONFIG))
    await waits.started.wait()
    asyncio.get_running_loop().call_later(0.02, task.cancel)
    time.sleep(0.04)  # both are due in the same turn of the loop
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_timeouts_of_the_caller_work_as_ever() -> None:
    pm = PluginManager(plugin_timeout=60)
    pm.register(Waits())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pm.hook.global_config_get(**CONFIG)
    pm = PluginManager(plugin_timeout=0.01)
    pm.register(Waits())
    async with asyncio.timeout(60):
        with pytest.raises(PluginTimeoutError):
            await pm.hook.global_config_get(**CONFIG)
        await asyncio.sleep(0)


async def test_a_plugin_that_ignores_its_cancellation_is_given_up() -> None:
    class Stubborn:
        @hookimpl
        async def global_config_get(self) -> None:
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    continue

    pm = PluginManager(plugin_timeout=0.02)
    pm.register(Stubborn())
    with pytest.raises(PluginTimeoutError, match="cancelled twice"):
        await pm.hook.global_config_get(**CONFIG)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_plugin_may_clean_up_after_its_cancellation() -> None:
    cleaned: list[bool] = []

    class Cleans:
        @hookimpl
        async def global_config_get(self) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                cleaned.append(True)

    pm = PluginManager(plugin_timeout=0.05)
    pm.register(Cleans())
    with pytest.raises(PluginTimeoutError, match=r"was cancelled$"):
        await pm.hook.global_config_get(**CONFIG)
    assert cleaned == [True]


async def test_a_plain_function_that_blocks_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Blocks:
        @hookimpl
        def global_config_get(self, result: int) -> int:
            time.sleep(0.03)
            return result + 1

    class Quick:
        @hookimpl
        def global_config_get(self, result: int) -> int:
            return result + 1

    pm = PluginManager(plugin_timeout=0.02)
    pm.register(Blocks())
    pm.register(Quick())
    assert await pm.hook.global_config_get(**CONFIG) == 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'Blocks' blocked the event loop" in record.getMessage()
    assert not pm.errors


async def test_what_a_plugin_starts_in_the_background_is_not_nested_for_ever() -> None:
    """A plugin that starts its own successor runs for as long as it likes: only live runs nest."""
    pm = PluginManager()
    done = asyncio.Event()
    count = 0

    class Breeds:
        @hookimpl
        async def global_config_get(self) -> None:
            nonlocal count
            count += 1
            if count == 40:
                done.set()
            elif count < 40:
                tasks.add(asyncio.ensure_future(pm.hook.global_config_get(**CONFIG)))

    tasks: set[asyncio.Future[Any]] = set()
    pm.register(Breeds())
    await pm.hook.global_config_get(**CONFIG)
    await asyncio.wait_for(done.wait(), 5)
    await asyncio.gather(*tasks)
    assert running.get() is None


async def test_a_chain_that_fails_leaves_no_context() -> None:
    class Broken:
        @hookimpl
        async def global_config_get(self) -> None:
            raise ValueError("broken")

    pm = PluginManager()
    pm.register(Broken())
    for _ in range(3):
        with pytest.raises(PluginError):
            await pm.hook.global_config_get(**CONFIG)
    assert running.get() is None


async def test_a_chain_that_is_closed_while_it_waits_closes_its_plugins() -> None:
    closed: list[bool] = []

    class Waiting:
        @hookimpl
        async def global_config_get(self) -> None:
            try:
                await asyncio.sleep(60)
            except GeneratorExit:
                closed.append(True)
                raise

    pm = PluginManager()
    pm.register(Waiting())
    fired = pm.hook.global_config_get(**CONFIG)
    fired.send(None)
    fired.close()
    assert closed == [True]


async def test_a_traceback_shows_the_lines_of_the_chain() -> None:
    class Broken:
        @hookimpl
        def global_config_get(self) -> None:
            raise ValueError("broken")

    pm = PluginManager()
    pm.register(Broken())
    with pytest.raises(PluginError) as caught:
        await pm.hook.global_config_get(**CONFIG)
    import traceback

    text = "".join(traceback.format_exception(caught.value))
    assert "_got = _call0()" in text
    assert "ValueError: broken" in text


def test_a_trigger_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match=r"replaces \['b'\], which are not its parameters"):
        Trigger(name="acme", params=("a",), replaces=("b",), shape="value")
