"""Quick constructors make what the constructors of the dataclasses make."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from uuid import UUID

import pytest

from qtasks.making import maker
from qtasks.schemas import (
    Task,
    TaskPrioritySchema,
    TaskRecord,
    TaskStatusEnum,
    TaskStatusNewSchema,
    TaskStatusProcessSchema,
    TaskStatusSuccessSchema,
    task_from_record,
)

UUID_ = UUID(int=1)
REQUIRED = {
    TaskRecord: {"uuid": UUID_, "task_name": "t"},
    TaskStatusNewSchema: {"task_name": "t"},
    TaskStatusProcessSchema: {"task_name": "t"},
    TaskStatusSuccessSchema: {"task_name": "t"},
    TaskPrioritySchema: {"priority": 3, "uuid": UUID_, "name": "t"},
}


@pytest.mark.parametrize("cls", REQUIRED, ids=lambda cls: cls.__name__)
def test_what_is_not_given_is_at_its_default(cls):
    made = maker(cls)(**REQUIRED[cls])
    assert type(made) is cls
    assert made == cls(**REQUIRED[cls])


@pytest.mark.parametrize("cls", REQUIRED, ids=lambda cls: cls.__name__)
def test_every_field_is_taken_by_its_name(cls):
    given = {each.name: object() for each in fields(cls)}
    made = maker(cls)(**given)
    assert {name: getattr(made, name) for name in given} == given


@pytest.mark.parametrize("cls", REQUIRED, ids=lambda cls: cls.__name__)
def test_nothing_mutable_is_shared(cls):
    one, other = maker(cls)(**REQUIRED[cls]), maker(cls)(**REQUIRED[cls])
    assert one.kwargs == {}
    assert one.kwargs is not other.kwargs


def test_fields_that_are_not_given_are_at_their_default_too():
    @dataclass(slots=True, kw_only=True)
    class Cup:
        size: int = 1
        name: str
        inside: list[int] = field(default_factory=list)
        cold: bool = field(default=True, init=False)

    assert maker(Cup)(name="mine", inside=[2]) == Cup(name="mine", inside=[2])
    with pytest.raises(TypeError, match="name"):
        maker(Cup)()
    with pytest.raises(TypeError, match="cold"):
        maker(Cup)(name="mine", cold=False)  # type: ignore[call-arg]


def test_a_class_that_does_more_than_to_take_its_fields_is_refused():
    @dataclass
    class Checked:
        size: int

        def __post_init__(self) -> None:
            assert self.size

    with pytest.raises(TypeError, match="__post_init__"):
        maker(Checked)


def test_a_task_shows_every_field_that_it_has_in_common_with_the_record():
    times = {"created_at": 1.0, "updated_at": 2.0, "available_at": 3.0, "started_at": 4.0, "finished_at": 5.0}
    others = {each.name: object() for each in fields(TaskRecord) if each.name not in times}
    task = task_from_record(TaskRecord(**{**others, **times}))
    for each in fields(Task):
        if each.name in times:
            assert getattr(task, each.name).timestamp() == times[each.name]
        elif each.name != "_app":
            assert getattr(task, each.name) is others[each.name]
    assert task._app is None


def test_a_task_without_times_has_none():
    task = task_from_record(TaskRecord(uuid=UUID_, task_name="t"))
    assert (task.started_at, task.finished_at, task.status) == (None, None, TaskStatusEnum.NEW)
