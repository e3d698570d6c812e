"""Checks of the values of a global config: versions, compare-and-set, time to live, globs, hostile names."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Any

from qtasks.components.global_config import GlobalConfig
from qtasks.components.primitives import Versioned
from qtasks.testing.bench import Bench
from qtasks.testing.checks import Suite, check
from qtasks.testing.samples import HOSTILE, RELATED_APPS


async def put(config: GlobalConfig, name: str, key: str, value: Any, ttl: float | None = None) -> int:
    """Writes a value unconditionally."""
    version = await config.put(name, key, value, ttl)
    assert version is not None, "an unconditional write gives a version"
    assert version >= 1
    return version


class Values(Suite):
    """`put`, `fetch`, `fetch_all`, `match`, `delete`, `flush`."""

    @check("CONFIG-01")
    async def test_a_value_is_read_as_it_was_written(self, bench: Bench[GlobalConfig]) -> None:
        """A value comes back with its type and its version; what is not there is None.

        If this fails, check that values are encoded as JSON once, and compared with None, not by their
        truth.
        """
        config = await bench.open()
        values: list[Any] = [
            None,
            False,
            0,
            0.0,
            "",
            [],
            {},
            1,
            1.5,
            2**53 + 1,
            "x",
            [1, {"a": None}],
            {"k": [0.1]},
        ]
        for i, value in enumerate(values):
            version = await put(config, "n", str(i), value)
            found = await config.fetch("n", str(i))
            assert found is not None
            assert repr(found.value) == repr(value)
            assert found.version == version
        assert await config.fetch("n", "none") is None
        assert await config.fetch("none", "1") is None

    @check("CONFIG-02")
    async def test_versions_rise(self, bench: Bench[GlobalConfig]) -> None:
        """Each write of a key gives a version above all before, also after it was deleted or has expired.

        If this fails, check that the version does not begin again with a new row.
        """
        config = await bench.open()
        seen = [await put(config, "n", "k", i) for i in range(3)]
        assert await config.delete("n", "k") is True
        seen.append(await put(config, "n", "k", 3, ttl=bench.short))
        await bench.elapse(bench.short)

        async def gone() -> bool:
            return await config.fetch("n", "k") is None

        await bench.eventually(gone, "the value expires")
        seen.append(await put(config, "n", "k", 4))
        assert seen == sorted(set(seen)), f"versions must rise: {seen}"

    @check("CONFIG-03")
    async def test_compare_and_set(self, bench: Bench[GlobalConfig]) -> None:
        """With `if_version` a value is written only at that version; otherwise the answer is None and
        nothing changes.

        If this fails, check that comparing and writing are one atomic step.
        """
        config = await bench.open()
        first = await put(config, "n", "k", "a")
        assert await config.put("n", "k", "x", if_version=first + 1) is None
        assert await config.put("n", "k", "x", if_version=0) is None
        assert await config.fetch("n", "k") == Versioned("a", first)
        second = await config.put("n", "k", "b", if_version=first)
        assert second is not None
        assert await config.put("n", "k", "x", if_version=first) is None
        assert await config.fetch("n", "k") == Versioned("b", second)

    @check("CONFIG-04")
    async def test_only_if_there_is_none(self, bench: Bench[GlobalConfig]) -> None:
        """`if_version=0` writes only where there is no value: never written, deleted, or expired.

        If this fails, check that a deleted or expired value counts as none.
        """
        config = await bench.open()
        assert await config.put("n", "k", 1, if_version=7) is None, "there is no version 7"
        assert await config.put("n", "k", 1, if_version=0) is not None
        assert await config.put("n", "k", 2, if_version=0) is None
        await config.delete("n", "k")
        assert await config.put("n", "k", 3, bench.short, if_version=0) is not None
        await bench.elapse(bench.short)

        async def written() -> bool:
            return await config.put("n", "k", 4, if_version=0) is not None

        await bench.eventually(written, "an expired value counts as none")

    @check("CONFIG-05")
    async def test_time_to_live(self, bench: Bench[GlobalConfig]) -> None:
        """A value with a `ttl` is there until it is over and nowhere after it; a write without one keeps
        it.

        If this fails, check that every reading primitive compares the time, and every write sets it anew.
        """
        config = await bench.open()
        await put(config, "n", "short", 1, ttl=bench.short)
        await put(config, "n", "long", 2, ttl=bench.long)
        await put(config, "n", "kept", 3, ttl=bench.short)
        await put(config, "n", "kept", 4)
        assert set(await config.fetch_all("n")) == {"short", "long", "kept"}
        await bench.elapse(bench.short)

        async def gone() -> bool:
            return await config.fetch("n", "short") is None

        await bench.eventually(gone, "the value expires")
        assert set(await config.fetch_all("n")) == {"long", "kept"}
        assert set((await config.match("n:*"))["n"]) == {"long", "kept"}
        assert await config.delete("n", "short") is False

    @check("CONFIG-06")
    async def test_fetch_all(self, bench: Bench[GlobalConfig]) -> None:
        """`fetch_all` gives the values of one name, and of that one only.

        If this fails, check that a name is compared as a whole, not as a prefix or a pattern.
        """
        config = await bench.open()
        versions = {key: await put(config, "n", key, key) for key in ("a", "b")}
        for other in ("n2", "N", "n:a", "*", "", "m"):
            await put(config, other, "c", "other")
        assert await config.fetch_all("n") == {key: Versioned(key, v) for key, v in versions.items()}
        assert await config.fetch_all("nobody") == {}

    @check("CONFIG-07")
    async def test_hostile_names_and_keys(self, bench: Bench[GlobalConfig]) -> None:
        """Names and keys are any text, compared exactly; a name and a key are never run together (I7).

        If this fails, check how name and key become one key of the store: the parting must be unambiguous.
        """
        config = await bench.open()
        pairs = [(text, "k") for text in HOSTILE] + [("n", text) for text in HOSTILE]
        pairs += [("a", "b:c"), ("a:b", "c"), ("a:b:c", ""), ("", "a:b:c"), ("ab", "c"), ("a", "bc")]
        for i, (name, key) in enumerate(pairs):
            await put(config, name, key, i)
        for i, (name, key) in enumerate(pairs):
            found = await config.fetch(name, key)
            assert found is not None
            assert found.value == i, f"name {name!r} and key {key!r} met another pair"
        assert set(await config.fetch_all("n")) == set(HOSTILE)
        for i, (name, key) in enumerate(pairs):
            assert await config.delete(name, key) is True, f"{name!r}, {key!r} (number {i})"
            assert await config.delete(name, key) is False
        assert await config.match("*") == {}

    @check("CONFIG-08")
    async def test_globs(self, bench: Bench[GlobalConfig]) -> None:
        """`match` gives the values whose `name:key` fits the glob as `fnmatch.fnmatchcase` has it: `*`,
        `?`, `[…]`, `[!…]`, upper and lower case apart, a backslash being a backslash.

        If this fails, check that the store's own glob (SQLite's GLOB, Redis' MATCH) is not taken as it
        is.
        """
        config = await bench.open()
        names = ["", "a", "ab", "A", "a:b", "[x]", "*", "a\\", "ä", "a\nb", "^", "x" * 300]
        keys = ["", "k", "K", "k1", "k:2", "?", "]", "\\", "k\nl", "🦀", "-", "!", "0"]
        for name in names:
            for key in keys:
                await put(config, name, key, f"{name}|{key}")
        patterns = [
            "*", "a:*", "a:k", "?:k", "??:k*", "*:k?", "[ab]:*", "[!a]*", "[a-b]?:k", "*[[]x]*", "[*]:*", "a\\:*",
            "*\\", "*:[]]", "*:[?]", "a*b*", "*\n*", "*🦀", "A:*", "", ":", "nobody:*", "*:[!k]", "[^a]:k",
            "*:[-]", "*:[!-]", "*:[!!]", "[", "[a", "*:[]", "*:[z-a]", "x*x:k", "*:[0-9]", "*:k[:]2", "[]-a]:*",
        ]  # fmt: skip
        for pattern in patterns:
            expected = {(n, k) for n in names for k in keys if fnmatchcase(f"{n}:{k}", pattern)}
            found = await config.match(pattern)
            assert {(n, k) for n, items in found.items() for k in items} == expected, f"pattern {pattern!r}"
            assert all(item.value == f"{n}|{k}" for n, items in found.items() for k, item in items.items())

    @check("CONFIG-09")
    async def test_delete(self, bench: Bench[GlobalConfig]) -> None:
        """A delete says whether it deleted; with `if_version` it does at that version only.

        If this fails, check that comparing and deleting are one atomic step.
        """
        config = await bench.open()
        first = await put(config, "n", "k", 1)
        second = await put(config, "n", "k", 2)
        assert await config.delete("n", "k", if_version=first) is False
        assert await config.fetch("n", "k") == Versioned(2, second)
        assert await config.delete("n", "k", if_version=second) is True
        assert await config.delete("n", "k", if_version=second) is False
        assert await config.delete("n", "k") is False
        assert await config.fetch_all("n") == {}

    @check("CONFIG-10")
    async def test_many_compare_and_set_at_once(self, bench: Bench[GlobalConfig]) -> None:
        """When many clients count with compare-and-set at the same time, no count is lost.

        If this fails, check that comparing and writing are one atomic step.
        """
        config = await bench.open()
        clients = [config, await bench.open(like=config)]

        async def count(client: GlobalConfig) -> None:
            for _ in range(3):
                while True:
                    found = await client.fetch("n", "count") or Versioned(0, 0)
                    if await client.put("n", "count", found.value + 1, if_version=found.version) is not None:
                        break
                    await asyncio.sleep(0)

        await bench.within(asyncio.gather(*(count(clients[i % 2]) for i in range(8))), "counting by many")
        found = await config.fetch("n", "count")
        assert found is not None
        assert found.value == 24

    @check("CONFIG-11")
    async def test_one_of_many_is_first(self, bench: Bench[GlobalConfig]) -> None:
        """When many write the same key with `if_version=0` at the same time, one succeeds.

        If this fails, check that the look-up and the insert are one atomic step.
        """
        config = await bench.open()
        clients = [config, await bench.open(like=config)]
        versions = await bench.within(
            asyncio.gather(*(clients[i % 2].put("n", "lock", i, if_version=0) for i in range(10))),
            "first writes by many",
        )
        winners = [i for i, version in enumerate(versions) if version is not None]
        assert len(winners) == 1
        found = await config.fetch("n", "lock")
        assert found is not None
        assert found.value == winners[0]

    @check("CONFIG-12")
    async def test_what_is_read_is_a_copy(self, bench: Bench[GlobalConfig]) -> None:
        """Changing what was written or read changes nothing in the global config.

        If this fails, check that nothing mutable is shared with the caller.
        """
        config = await bench.open()
        given: dict[str, list[int]] = {"a": [1]}
        await put(config, "n", "k", given)
        given["a"].append(2)
        first = await config.fetch("n", "k")
        assert first is not None
        first.value["a"].append(3)
        second = await config.fetch("n", "k")
        assert second is not None
        assert second.value == {"a": [1]}

    @check("CONFIG-13")
    async def test_flush(self, bench: Bench[GlobalConfig]) -> None:
        """A flush deletes all values of the app.

        If this fails, check that `flush` reaches every key and index of the app.
        """
        config = await bench.open()
        for name, key in (("n", "k"), ("*", ":"), ("m", "k")):
            await put(config, name, key, 1, ttl=bench.long)
        await config.flush()
        assert await config.match("*") == {}
        assert await config.fetch("n", "k") is None
        assert await config.put("n", "k", 2, if_version=0) is not None

    @check("CONFIG-14")
    async def test_apps_do_not_see_each_other(self, bench: Bench[GlobalConfig]) -> None:
        """Applications in one store are disjoint, also where one name is the beginning of another, or
        differs in case only (I7).

        If this fails, check how the app's name goes into keys or WHERE clauses, and how `flush` finds its
        own.
        """
        first = await bench.open(app=RELATED_APPS[0])
        apps = [first, *[await bench.open(like=first, app=app) for app in RELATED_APPS[1:]]]
        for i, config in enumerate(apps):
            await put(config, "n", "k", i)
        await apps[0].flush()
        assert await apps[1].delete("n", "k") is True
        assert await apps[0].match("*") == {}
        for i, config in enumerate(apps[2:], 2):
            found = await config.match("*")
            assert {n: {k: v.value for k, v in items.items()} for n, items in found.items()} == {
                "n": {"k": i}
            }
