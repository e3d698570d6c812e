"""Checks of a plugin: many tasks at once, and the whole way of a task through an application."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import itertools
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from qtasks import QueueConfig, QueueTasks, Task
from qtasks.inmemory import run_until_idle
from qtasks.testing.bench import KitFailure
from qtasks.testing.checks import FAILURES, check
from qtasks.testing.plugin import tasks as kit
from qtasks.testing.plugin.base import PluginChecks
from qtasks.testing.plugin.compared import alike, told
from qtasks.testing.plugin.stage import (
    CONTROL,
    MakePlugin,
    Outcome,
    Stage,
    examples,
    made,
    shown,
    shrink,
    without_plugins,
)

AT_ONCE = 6
"""Firings that are under way at the same time."""
ROUNDS = 3
"""How often each kind of task is added at the same time."""
SECRET = "kit-secret-"  # noqa: S105 - it is none
"""What stands in arguments and results, and must be found in no log."""


_QUICK = QueueConfig(durability="none", strict=False, release_delay=0.02, max_deliveries=2)


class Whole(PluginChecks):
    """A plugin among many tasks, and over the whole way of one."""

    @check("PLUGIN-30")
    def test_calls_at_once_do_not_mix(self, make_component: MakePlugin) -> None:
        """Fired for several tasks at once, a trigger gives for each what it gives one after another, and nothing
        of another task.

        If this fails, check for state that one call leaves for the next across an `await`: keep it by uuid.
        """
        with self.stage(make_component) as alone, self.stage(make_component) as together:
            for trigger in together.triggers():

                def look(several: list[dict[str, Any]], trigger: str = trigger) -> None:
                    tagged = [_tagged(values, i) for i, values in enumerate(several)]
                    first = [alone.fire(trigger, _at_home(alone, values)) for values in tagged]
                    again = [alone.fire(trigger, _at_home(alone, values)) for values in tagged]
                    got = together.do(_fired_together(together, trigger, tagged))
                    for i, outcome in enumerate(got):
                        _unmixed(i, outcome, first[i], again[i], shown(trigger, tagged[i]))

                drawn = examples(together, trigger)
                for start in range(0, len(drawn), AT_ONCE):
                    try:
                        look(drawn[start : start + AT_ONCE])
                    except FAILURES:
                        several = st.lists(together.values(trigger), min_size=2, max_size=AT_ONCE)
                        shrink(several, look)
                        raise

    @check("PLUGIN-31")
    def test_tasks_at_once_end_as_one_by_one(self, make_component: MakePlugin) -> None:
        """Many tasks that run at the same time end as they do one after another.

        If this fails, check what the plugin keeps for all tasks together, and that it uses no lock of threads.
        """
        with self.stage(make_component) as stage:
            one_by_one = [
                stage.do(_through(stage, [name])) for name in kit.ALL for _ in range(ROUNDS)
            ]  # fmt: skip
        with self.stage(make_component) as stage:
            at_once = stage.do(_through(stage, [name for name in kit.ALL for _ in range(ROUNDS)]))
        expected = Counter(itertools.chain.from_iterable(one_by_one))
        assert Counter(at_once) == expected, f"at once: {Counter(at_once)}, one by one: {expected}"

    @check("PLUGIN-40")
    def test_tasks_go_the_whole_way(self, make_component: MakePlugin) -> None:
        """In an application in memory tasks of each kind end, those that fail too, and none of its triggers fails.

        If this fails, check the trigger named; where tasks never end, check that a deferred task is let through
        at last.
        """
        with self.stage(make_component) as stage:
            ended = stage.do(_through(stage, kit.ALL))
            failed = {trigger: count for (_, trigger), count in stage.app.pm.errors.items()}
            assert not failed, f"it failed in {told(failed)}"
            assert len(ended) == len(kit.ALL)

    @check("PLUGIN-41")
    def test_another_process_reads_what_it_wrote(self, make_component: MakePlugin) -> None:
        """What one instance changed in a stored task another one, in another process, reads alike.

        If this fails, check that what is needed to read (a key, a codec) comes from settings, or from the task, and
        not from the memory of the instance that wrote.
        """
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'kit.db'}"
            written = asyncio.run(_written(url, self.plugin_name, make_component))
            read = asyncio.run(_read(url, self.plugin_name, make_component, [task.uuid for task in written]))
        for first, second in zip(written, read, strict=True):
            assert second is not None, f"{first.task_name}: another instance finds no task"
            for name in ("args", "kwargs", "returning", "status"):
                mine, theirs = getattr(first, name), getattr(second, name)
                assert mine == theirs, (
                    f"{first.task_name}: {name} was {told(mine)}, and is read as {told(theirs)}"
                )

    @check("PLUGIN-42")
    def test_arguments_are_not_logged(self, make_component: MakePlugin) -> None:
        """No argument and no result of a task is in a log record of level INFO or above, nor on stdout or stderr.

        If this fails, check what the plugin logs: name the task and its uuid, not its arguments.
        """
        with listened() as heard, self.stage(make_component) as stage:
            stage.do(_through(stage, kit.ALL))
        for where, text in heard:
            assert SECRET not in text, f"{where} has an argument of a task: {told(text)}"


def _at_home(stage: Stage, values: dict[str, Any]) -> dict[str, Any]:
    return {name: stage.own(value) or value for name, value in values.items()}


async def _fired_together(stage: Stage, trigger: str, examples: Sequence[dict[str, Any]]) -> list[Outcome]:
    return await asyncio.gather(*(stage.fired(trigger, values) for values in examples))


def _tag(i: int) -> str:
    return f"kit-task-{i}-"


def _tagged(values: dict[str, Any], i: int) -> dict[str, Any]:
    """The example as one of task number `i`, which is written into its values."""
    uuid = UUID(int=i + 1)
    return {
        name: uuid if name == "uuid" else _with_tag(name, value, i, uuid) for name, value in values.items()
    }


def _with_tag(name: str, value: Any, i: int, uuid: UUID) -> Any:
    changes: dict[str, Any] = {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "args"):
        changes["args"] = (*value.args, _tag(i))
        if hasattr(value, "uuid"):
            changes["uuid"] = uuid
        return dataclasses.replace(value, **changes)
    if name == "args":
        return (*value, _tag(i))
    if name in ("kw", "extra"):
        return value
    if name == "results" and not (value and isinstance(value[0], Task)):
        return [*value, _tag(i)]
    return value


def _unmixed(i: int, outcome: Outcome, first: Outcome, again: Outcome, text: str) -> None:
    said = repr(outcome)
    for other in range(AT_ONCE):
        if other != i and _tag(other) in said and _tag(other) not in repr(first):
            raise KitFailure(f"it gave one task what belongs to another: {told(outcome.values)}\n  in {text}")
    if type(outcome.raised) is not type(first.raised):
        raise KitFailure(
            f"at once it ended with {outcome.raised!r}, alone with {first.raised!r}\n  in {text}"
        )
    if not alike(first.values, again.values, outcome.values):
        raise KitFailure(f"at once it gave {told(outcome.values)}, alone {told(first.values)}\n  in {text}")


async def _through(stage: Stage, names: Sequence[str]) -> list[tuple[str, str]]:
    """Adds tasks of these names at once, lets them end, and tells how."""
    app = stage.app
    added = await asyncio.gather(*(_added(app, name, i) for i, name in enumerate(names)))
    await run_until_idle(app, stage.clock)
    ended = []
    for name, task in zip(names, added, strict=True):
        if isinstance(task, Task):
            now = await app.get(task.uuid)
            if now is None or not now.finished:
                raise KitFailure(f"task {name!r} did not end: {told(now)}")
            ended.append((name, str(now.status)))
        else:
            ended.append((name, type(task).__name__))
    return ended


async def _added(app: QueueTasks, name: str, i: int) -> Task | Exception:
    try:
        return await app.add_task(name, args=(f"{SECRET}{i}",), kwargs={"to": f"{SECRET}kw"})
    except CONTROL as control:
        return control


async def _written(url: str, name: str, make: MakePlugin) -> list[Task]:
    app = await _on_sqlite(url, name, make)
    async with app:
        added = [await _added(app, task, 1) for task in (kit.COROUTINE, kit.FUNCTION, kit.GENERATOR)]
        tasks = [task for task in added if isinstance(task, Task)]
        await app.serve(until_idle=True)
        return [task for each in tasks if (task := await app.get(each.uuid)) is not None]


async def _read(url: str, name: str, make: MakePlugin, uuids: Sequence[UUID]) -> list[Task | None]:
    app = await _on_sqlite(url, name, make)
    async with app:
        return [await app.get(uuid) for uuid in uuids]


async def _on_sqlite(url: str, name: str, make: MakePlugin) -> QueueTasks:
    app = without_plugins(QueueTasks("kit", url, config=_QUICK))
    kit.declare(app)
    app.add_plugin(await made(make()), name=name or None)
    return app


class _Handler(logging.Handler):
    def __init__(self, heard: list[tuple[str, str]]) -> None:
        super().__init__(logging.INFO)
        self._heard = heard
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append((f"a log record of {record.name!r} ({record.levelname})", self.format(record)))


@contextlib.contextmanager
def listened() -> Iterator[list[tuple[str, str]]]:
    """What is logged meanwhile from INFO on, and what is written to stdout and stderr."""
    heard: list[tuple[str, str]] = []
    root, handler = logging.getLogger(), _Handler(heard)
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) or logging.INFO)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield heard
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        heard += [("stdout", out.getvalue()), ("stderr", err.getvalue())]
