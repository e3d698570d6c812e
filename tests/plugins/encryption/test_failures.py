"""encryption: failures leak nothing, and odd values are values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qtasks import PluginError, TaskRejected, TaskStatusEnum, hookimpl
from qtasks.plugins.at_rest import AtRest
from qtasks.plugins.encryption import EncryptionPlugin
from qtasks.testing import check_plugin
from tests.app.conftest import working
from tests.plugins.encryption.conftest import NEW, ORDERS, SECRET, make, record
from tests.plugins.stores import raw_store


class Talkative:
    """A plugin whose errors show what it was given."""

    def __init__(self, trigger: str) -> None:
        self.trigger = trigger

    @hookimpl
    def worker_remove_finished_task(self, model: Any) -> None:
        if self.trigger == "worker_remove_finished_task":
            raise ValueError(f"cannot take {model}")

    @hookimpl
    def broker_remove_finished_task(self, model: Any) -> str | None:
        return f"{model}" if self.trigger == "broker_remove_finished_task" else None

    @hookimpl
    def task_executor_decode(self, result: Any) -> None:
        if self.trigger == "task_executor_decode":
            raise ValueError(f"cannot take {result}")

    @hookimpl
    def worker_add(self, args: Any) -> None:
        if self.trigger == "worker_add":
            raise ValueError(f"cannot take {args}")

    @hookimpl
    def worker_execute_before(self, model: Any) -> None:
        if self.trigger == "worker_execute_before":
            raise TaskRejected(f"cannot take {model}")


@pytest.mark.parametrize(
    "trigger", [*(name for name in vars(Talkative) if "_" in name and name[0] != "_"), "none"]
)
async def test_a_failure_leaks_nothing(url: str, trigger: str) -> None:
    app = make(url, EncryptionPlugin([NEW]), Talkative(trigger))

    @app.task(name="job")
    async def job(text: str) -> Any:
        return {text: object()} if trigger == "none" else text

    async with working(app):
        done = await (await job.add_task(SECRET)).wait_result(10)
    assert done.status is TaskStatusEnum.ERROR
    assert done.traceback
    assert SECRET.encode() not in raw_store(url)


async def test_arguments_that_cannot_be_encrypted_are_not_added(url: str) -> None:
    class Objects:
        @hookimpl
        def broker_add_before(self, model: Any) -> Any:
            return replace(model, args=(object(),))

    app = make(url, Objects(), EncryptionPlugin([NEW]))
    async with app:
        with pytest.raises(PluginError, match="cannot be written as JSON, so it cannot be encrypted"):
            await app.add_task("t", args=(SECRET,))
        assert (await app.get_all())[0] == []


async def test_a_long_traceback_is_shortened_before_it_is_encrypted() -> None:
    app = make("memory://", EncryptionPlugin([NEW]), max_traceback=1024)

    @app.task(name="job")
    async def job() -> None:
        raise ValueError("x" * 10_000 + "the end")

    async with working(app):
        done = await (await job.add_task()).wait_result(10)
        assert len((await record(app, done.uuid)).traceback or "") <= 1024
    assert "(cut)" in (done.traceback or "")
    assert (done.traceback or "").rstrip().endswith("the end")


@pytest.mark.parametrize("plugins", ORDERS.values(), ids=ORDERS)
async def test_a_text_that_looks_encrypted_or_compressed_is_a_text(
    plugins: Callable[[], list[AtRest]],
) -> None:
    app = make("memory://", *plugins())

    @app.task(name="echo")
    async def echo(*args: str, **kw: str) -> list[Any]:
        return [*args, kw]

    async with working(app):
        for text in (
            "sealed:1:abc",
            "deflate:1:abc",
            "sealed:1:" + EncryptionPlugin([NEW]).key_ids[0] + ":AAAA",
        ):
            for args, kw in (((text,), {}), ((), {text[:9]: text}), ((), {text[:10]: text})):
                done = await app.add_task("echo", args=args, kwargs=kw, timeout=10)
                assert done.returning == [*args, kw]
                assert done.args == args


async def test_the_warning_about_digests(caplog: pytest.LogCaptureFixture) -> None:
    for key, warned in ((None, True), ("secret", False)):
        caplog.clear()
        async with make("memory://", EncryptionPlugin([NEW]), digest_key=key):
            assert any("QTASKS_DIGEST_KEY" in line for line in caplog.messages) is warned


def test_the_plugin_holds_what_a_plugin_has_to() -> None:
    check_plugin(lambda: EncryptionPlugin([NEW]))
