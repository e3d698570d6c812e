"""Errors travel between processes as they are: a process pool breaks over one that cannot be read back."""

from __future__ import annotations

import copy
import pickle
from uuid import uuid4

import pytest

from qtasks import errors

FIRST, SECOND = uuid4(), uuid4()


@pytest.mark.parametrize(
    "error",
    [
        errors.QueueFullError("full"),
        errors.UuidConflictError(),
        errors.EnqueueUnknownError(FIRST, SECOND),
        errors.BulkAddError({}, {3: errors.QueueFullError("full")}),
        errors.ResultTimeoutError("late"),
        errors.TaskPluginTriggerError("asked", key=1),
        errors.TaskDefer(2.5),
        errors.TaskCancelError("vetoed"),
        errors.PluginError("raised", plugin="mail", trigger="broker_add_before"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_read_back_as_it_was(error: errors.QTasksError):
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert repr(vars(again)) == repr(vars(error))
