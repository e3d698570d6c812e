"""Plain functions in processes of their own, for CPU work: unlike a thread, a process can be killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, reduce
from importlib import import_module
from typing import Any

from qtasks.schemas import TaskExecSchema


async def in_process(task_func: TaskExecSchema, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    """Calls the function in a worker process of anyio's pool; a cancelled call kills its process.

    Raises:
        BrokenWorkerProcess: the process died.
    """
    # Imported when it is needed: few workers have such tasks, and all would keep it in memory.
    from anyio import to_process

    func = task_func.func
    call = partial(_call, func.__module__, func.__qualname__, args, kw)
    return await to_process.run_sync(call, cancellable=True)


def _call(module: str, qualname: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    """Runs in the process: finds the function by its name, under the handle that `@task` put in its place."""
    loaded = sys.modules.get(module) or import_module(module)
    found: Any = reduce(getattr, qualname.split("."), loaded)
    function: Callable[..., Any] = getattr(found, "func", found)
    function = getattr(getattr(found, "function", None), "func", function)
    return function(*args, **kw)
