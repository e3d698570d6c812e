"""The trace: which plugin changed which value of which task, as data and as a tree."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console

from qtasks import PluginManager, TaskStatusNewSchema, hookimpl
from qtasks.trace import Change, TraceCall, TraceRecorder, render_tree


class Marks:
    qtasks_name = "marks"

    @hookimpl
    def broker_add_before(self, model: TaskStatusNewSchema) -> TaskStatusNewSchema:
        return replace(model, priority=3, args=(*model.args, "more"), extra={**model.extra, "seen": [1, 2]})

    @hookimpl
    def broker_add_after(self) -> None:
        raise RuntimeError("no luck")


class Looks:
    qtasks_name = "looks"

    @hookimpl
    def broker_add_before(self, model: TaskStatusNewSchema) -> None:
        assert model.priority == 3


MODEL = TaskStatusNewSchema(task_name="t", args=("secret",), extra={"seen": [1]})


async def recorded(recorder: TraceRecorder, uuid: UUID) -> list[TraceCall]:
    pm = PluginManager()
    pm.register(Marks())
    pm.register(Looks())
    pm.add_observer(recorder, idle=True)
    owner: Any = object()
    model = await pm.hook.broker_add_before(broker=owner, storage=owner, uuid=uuid, model=MODEL)
    await pm.hook.storage_add(storage=owner, uuid=uuid, task_status=model)
    await pm.hook.broker_add_after(broker=owner, storage=owner, uuid=uuid, model=model)
    await pm.hook.storage_flush_all(storage=owner)  # belongs to no task
    return recorder.calls(uuid)


async def test_it_records_who_changed_what_in_order() -> None:
    marks, looks, idle, failed = await recorded(TraceRecorder(), uuid4())
    assert (marks.trigger, marks.plugin) == ("broker_add_before", "marks")
    assert marks.changes == (
        Change("model.priority", "0", "3"),
        Change("model.args", "('secret',)", "('secret', 'more')"),
        Change("model.extra['seen']", "[1]", "[1, 2]"),
    )
    assert (looks.plugin, looks.changes) == ("looks", ())
    assert (idle.trigger, idle.plugin) == ("storage_add", "")
    assert failed.signal
    assert "no luck" in str(failed.error)


async def test_it_is_json_and_comes_back() -> None:
    recorder, uuid = TraceRecorder(), uuid4()
    calls = await recorded(recorder, uuid)
    data = json.loads(json.dumps(recorder.to_dict()))
    assert [TraceCall.from_dict(call) for call in data[str(uuid)]] == calls
    newer = [{**call, "of_a_newer_version": 1} for call in data[str(uuid)]]
    assert [TraceCall.from_dict(call) for call in newer] == calls


async def test_it_records_the_tasks_it_is_told_to() -> None:
    recorder = TraceRecorder(only=[uuid4()])
    assert await recorded(recorder, uuid4()) == []


async def test_values_can_be_kept_out_and_calls_be_bounded() -> None:
    recorder = TraceRecorder(redact=lambda trigger, path: "args" in path, limit=1)
    (call,) = await recorded(recorder, uuid4())
    assert "secret" not in json.dumps(call.to_dict())
    assert call.changes[1] == Change("model.args", "(redacted)", "(redacted)")


async def test_the_tree_shows_plugins_changes_and_errors() -> None:
    calls = await recorded(TraceRecorder(), uuid4())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_tree("t", calls))
    text = console.export_text()
    for shown in (
        "marks",
        "model.priority: 0 → 3",
        "looks  changed nothing",
        "(no plugin) storage_add",
        "raised ",
    ):
        assert shown in text
