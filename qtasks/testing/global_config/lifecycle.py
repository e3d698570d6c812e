"""Checks of a global config's life and of its triggers."""

from __future__ import annotations

from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Versioned
from qtasks.manager import PluginManager
from qtasks.recorder import Fired, Recorder, recorder
from qtasks.testing import lifecycle
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.global_config.values import put


async def use(config: GlobalConfig) -> None:
    """A harmless use."""
    assert await config.fetch("nobody", "nothing") is None


async def watched(bench: Bench[GlobalConfig], opened: bool = True) -> tuple[GlobalConfig, Recorder]:
    """A global config with a recorder as its only plugin."""
    pm, heard = PluginManager(), recorder("global_config")
    pm.register(heard, name="recorder")
    config = await (bench.open(pm=pm) if opened else bench.make(pm=pm))
    return config, heard


class Lifecycle(Suite):
    """`open`, `close`."""

    @check("CONFIG-30")
    async def test_close_and_open_again(self, bench: Bench[GlobalConfig]) -> None:
        """`close` is safe before `open` and twice; a closed one works or says why not, and opens again.

        If this fails, check that `close` forgets its connections, and `open` makes new ones.
        """
        await lifecycle.check_closing(bench, use)

    @check("CONFIG-31")
    async def test_open_twice(self, bench: Bench[GlobalConfig]) -> None:
        """A second `open` is harmless and leaks nothing.

        If this fails, check that `open` looks whether it is open already.
        """
        await lifecycle.check_opening_twice(bench, use)

    @check("CONFIG-32")
    async def test_never_opened(self, bench: Bench[GlobalConfig]) -> None:
        """One that was never opened works, or raises an error of qtasks (`NotStartedError`).

        If this fails, check that the primitives ask for the connection in one place that raises it.
        """
        await lifecycle.check_never_opened(bench, use)

    @check("CONFIG-33")
    async def test_another_loop(self, bench: Bench[GlobalConfig]) -> None:
        """One that is used from another event loop works, or raises an error of qtasks; it never hangs.

        If this fails, check that futures are not resolved across loops (`WrongLoopError` is the clear
        answer).
        """
        await lifecycle.check_another_loop(bench, use)

    @check("CONFIG-34", needs=("durable",))
    async def test_values_outlive_the_connection(self, bench: Bench[GlobalConfig]) -> None:
        """What was written is there, with its version and its time to live, when the store is opened again.

        If this fails, check that a version is given only after the store has committed.
        """
        config = await bench.open()
        version = await put(config, "n", "k", {"a": 1})
        await put(config, "n", "short", 1, ttl=bench.short)
        await config.close()
        again = await bench.open(like=config)
        assert await again.fetch("n", "k") == Versioned({"a": 1}, version)
        await bench.elapse(bench.short)

        async def gone() -> bool:
            return await again.fetch("n", "short") is None

        await bench.eventually(gone, "the value expires")

    @check("CONFIG-35")
    async def test_fresh_components_are_empty(self, bench: Bench[GlobalConfig]) -> None:
        """Each component that `make_component()` gives has an empty store of its own; with `like` it is
        shared.

        If this fails, check the fixture `make_component` of the test class.
        """
        first = await bench.open()
        second, like = await bench.open(), await bench.open(like=first)
        version = await put(first, "n", "k", 1)
        assert await second.match("*") == {}
        assert await like.fetch("n", "k") == Versioned(1, version)


class Triggers(Suite):
    """The public methods, which fire the triggers."""

    @check("CONFIG-50")
    async def test_start_and_stop(self, bench: Bench[GlobalConfig]) -> None:
        """`start` opens it and fires `global_config_start` once; `stop` fires `global_config_stop` once and
        leaves the connection open, which `close` ends.

        If this fails, check that `start` and `stop` are those of the base class, or fire what they fire.
        """
        config, heard = await watched(bench, opened=False)
        await config.start()
        assert heard.fired == [Fired("global_config_start", {"global_config": config})]
        heard.clear()
        await config.stop()
        assert heard.fired == [Fired("global_config_stop", {"global_config": config})]
        await put(config, "n", "k", 1)

    @check("CONFIG-51")
    async def test_set(self, bench: Bench[GlobalConfig]) -> None:
        """`set` fires `global_config_set` once and writes what plugins made of name, key and value; ttl and
        version are passed on.

        If this fails, check that `set` writes what the trigger gave back.
        """
        config, heard = await watched(bench)
        heard.returns["global_config_set"] = {"key": "k2", "value": 9}
        version = await config.set("n", "k", 1)
        values = {"global_config": config, "name": "n", "key": "k", "value": 1}
        assert heard.fired == [Fired("global_config_set", values)]
        assert version is not None
        assert await config.fetch_all("n") == {"k2": Versioned(9, version)}
        heard.clear()
        assert await config.set("n", "k2", 1, if_version=version + 5) is None
        assert await config.set("n", "k2", 1, ttl=bench.short, if_version=version) is not None
        await bench.elapse(bench.short)

        async def gone() -> bool:
            return await config.fetch("n", "k2") is None

        await bench.eventually(gone, "the value expires")

    @check("CONFIG-52")
    async def test_get(self, bench: Bench[GlobalConfig]) -> None:
        """`get` and `get_versioned` fire `global_config_get` once, also for what is not there, and give
        the value as plugins left it.

        If this fails, check that `get` gives back what the trigger gave.
        """
        config, heard = await watched(bench)
        version = await put(config, "n", "k", 1)
        assert await config.get("n", "k") == 1
        values = {"global_config": config, "name": "n", "key": "k", "result": 1}
        assert heard.fired == [Fired("global_config_get", values)]
        heard.returns["global_config_get"] = 5
        assert await config.get("n", "k") == 5
        assert await config.get_versioned("n", "k") == Versioned(5, version)
        heard.clear()
        assert await config.get_versioned("n", "none") == Versioned(None, 0)
        assert heard.fired == [Fired("global_config_get", {**values, "key": "none", "result": None})]

    @check("CONFIG-53")
    async def test_get_all(self, bench: Bench[GlobalConfig]) -> None:
        """`get_all` fires `global_config_get_all` once and gives the values as plugins left them.

        If this fails, check that `get_all` gives back what the trigger gave.
        """
        config, heard = await watched(bench)
        await put(config, "n", "k", 1)
        assert await config.get_all("n") == {"k": 1}
        values = {"global_config": config, "name": "n", "result": {"k": 1}}
        assert heard.fired == [Fired("global_config_get_all", values)]
        heard.returns["global_config_get_all"] = {"k": 2}
        assert await config.get_all("n") == {"k": 2}

    @check("CONFIG-54")
    async def test_get_match(self, bench: Bench[GlobalConfig]) -> None:
        """`get_match` fires `global_config_get_match` once and gives the values as plugins left them.

        If this fails, check that `get_match` gives back what the trigger gave.
        """
        config, heard = await watched(bench)
        await put(config, "n", "k", 1)
        await put(config, "m", "k", 2)
        assert await config.get_match("n:*") == {"n": {"k": 1}}
        values = {"global_config": config, "match": "n:*", "result": {"n": {"k": 1}}}
        assert heard.fired == [Fired("global_config_get_match", values)]
        heard.returns["global_config_get_match"] = {"x": {"y": 3}}
        assert await config.get_match("n:*") == {"x": {"y": 3}}

    @check("CONFIG-55")
    async def test_status(self, bench: Bench[GlobalConfig]) -> None:
        """`set_status` fires `global_config_set_status` once and keeps the sign of life until its ttl is
        over; `servers` gives those that live, each under its owner.

        If this fails, check that the status is written with its ttl.
        """
        config, heard = await watched(bench)
        await config.set_status("A", {"pid": 1}, bench.short)
        assert heard.fired == [Fired("global_config_set_status", {"global_config": config})]
        await config.set_status("B", {"pid": 2}, bench.long)
        assert await config.servers() == {"A": {"pid": 1}, "B": {"pid": 2}}
        await bench.elapse(bench.short)

        async def gone() -> bool:
            return await config.servers() == {"B": {"pid": 2}}

        await bench.eventually(gone, "a server that died is gone")

    @check("CONFIG-56")
    async def test_primitives_fire_nothing(self, bench: Bench[GlobalConfig]) -> None:
        """No primitive fires a trigger.

        If this fails, check that the backend calls primitives, not public methods, from within primitives.
        """
        config, heard = await watched(bench)
        await put(config, "n", "k", 1)
        await config.fetch("n", "k")
        await config.fetch_all("n")
        await config.match("*")
        await config.delete("n", "k")
        await config.flush()
        assert heard.names() == []
