"""encryption and its keys: one is changed for another, one is missing; without the key nothing is lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from qtasks import PluginError, TaskStatusEnum
from qtasks.plugins.encryption import EncryptionPlugin, KeyMissingError
from tests.app.conftest import working
from tests.plugins import encryption_site
from tests.plugins.conftest import StartWorkers
from tests.plugins.encryption.conftest import LONG, NEW, OLD, SECRET, make, record
from tests.plugins.stores import raw_store
from tests.plugins.support import kill, said, workers_up


async def test_a_key_is_rotated_between_add_and_run(url: str) -> None:
    before, worker, after = (make(url, EncryptionPlugin(keys)) for keys in ([OLD], [NEW, OLD], [NEW]))

    @worker.task(name="echo")
    async def echo(text: str) -> str:
        return text

    async with before:
        task = await before.add_task("echo", args=(SECRET,))
        async with worker:
            async with asyncio.timeout(10):
                await worker.serve(until_idle=True)
            assert (await worker.wait_result(task.uuid, 10)).returning == SECRET
            new = (await worker.add_task("echo", args=(SECRET,))).uuid
        with pytest.raises(PluginError, match="is encrypted with the key") as caught:
            await before.get(task.uuid)
        assert isinstance(caught.value.__cause__, KeyMissingError)
        async with after:
            assert ((await after.get(new)) or task).args == (SECRET,)
            # What cannot be opened does not hide the rest of a list.
            listed = {task.uuid: task for task in (await after.get_all())[0]}
            assert listed[new].args == (SECRET,)
            assert str(listed[task.uuid].args[0]).startswith("sealed:1:")


async def test_a_worker_without_the_key_puts_tasks_back_for_as_long_as_it_takes(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, blind, seeing = (
        make(url, EncryptionPlugin(keys, missing_key_delay=0.01)) for keys in ([OLD], [NEW], [NEW, OLD])
    )
    ran: list[str] = []
    for app in (blind, seeing):

        @app.task(name="echo")
        async def echo(text: str) -> None:
            ran.append(text)

    def told() -> int:
        return sum("add the key to `keys`" in line for line in caplog.messages)

    async with client:
        task = await client.add_task("echo", args=(SECRET,))
        stored = await record(client, task.uuid)
        with caplog.at_level(logging.WARNING):
            async with working(blind), asyncio.timeout(10):
                while told() < 5:  # more often than deliveries would allow, if they were counted
                    await asyncio.sleep(0.01)
        assert ran == []
        kept = await record(client, task.uuid)
        assert (kept.status, kept.args, kept.dead) == (TaskStatusEnum.NEW, stored.args, False)
        async with working(seeing):
            assert (await seeing.wait_result(task.uuid, 10)).status is TaskStatusEnum.SUCCESS
    assert ran == [SECRET]


async def test_plaintext_is_refused_unless_an_application_goes_over(url: str) -> None:
    plain = make(url)
    async with plain:
        task = await plain.add_task("echo", args=(SECRET,))
    strict, lenient = (
        make(url, EncryptionPlugin([NEW])),
        make(url, EncryptionPlugin([NEW], accept_plaintext=True)),
    )

    @lenient.task(name="echo")
    async def echo(text: str) -> str:
        return text

    async with strict:
        with pytest.raises(PluginError, match=r"args of task .* is not encrypted: .* accept_plaintext=True"):
            await strict.get(task.uuid)
    async with lenient:
        async with asyncio.timeout(10):
            await lenient.serve(until_idle=True)
        assert ((await lenient.get(task.uuid)) or task).returning == SECRET
        assert str((await record(lenient, task.uuid)).args[0]).startswith("sealed:1:")
    async with strict:
        assert ((await strict.get(task.uuid)) or task).returning == SECRET


def test_a_key_that_is_none_is_an_error_that_does_not_show_it() -> None:
    for keys in ([], ["x" * 43], [b"short"], ["ünfug"]):
        with pytest.raises(ValueError, match=r"key.*new_key\(\)") as caught:
            EncryptionPlugin(keys)
        assert "x" * 43 not in str(caught.value)
    assert EncryptionPlugin([NEW]).key_ids != EncryptionPlugin([OLD]).key_ids


async def test_a_killed_worker_and_a_key_that_is_rotated_meanwhile(
    redis_url: str, start_workers: StartWorkers
) -> None:
    """Added with the old key; a worker with the old key is killed while it runs; one with the new key ends it."""
    app = encryption_site.make([NEW, OLD], redis_url)
    client = encryption_site.make([OLD], redis_url)
    async with client:
        task = await client.add_task("pay", args=(SECRET,), kwargs={"note": LONG}, priority=7)
    (first,) = start_workers(encryption_site, 1, SITE_KEYS=OLD)
    await said([first], "pay began")
    async with app:
        (second,) = start_workers(encryption_site, 1, SITE_KEYS=f"{NEW},{OLD}")
        await workers_up(app, 2)
        await kill(first)
        done = await app.wait_result(task.uuid, 20)
        assert (done.returning["card"], done.returning["note"]) == (SECRET, LONG)
        assert done.returning["pid"] == str(second.process.pid)
        assert done.progress == {"paying with": SECRET}
        assert SECRET.encode() not in raw_store(redis_url)
        kept = await record(app, task.uuid)
        (old_id,), new_id = EncryptionPlugin([OLD]).key_ids, EncryptionPlugin([NEW]).key_ids[0]
        assert old_id in str(kept.args[0])
        assert new_id in kept.returning
