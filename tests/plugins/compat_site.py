"""The application that the worker processes of the tests of `compat` run, with a plugin in the style of QTasks 1.x."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from qtasks import QueueTasks, Router
from qtasks.plugins.compat import BasePlugin, CompatPlugin

router = Router()


@router.task(name="greet")
async def greet(name: str, fatal: bool = False) -> dict[str, Any]:
    """Greets. A fatal one waits for ever, the first time."""
    print("greet began", flush=True)
    if fatal and not os.path.exists("killed"):
        open("killed", "w").close()
        await asyncio.Event().wait()
    return {"text": f"hello {name}", "pid": os.getpid()}


class ShoutPlugin(BasePlugin):
    """As it would be written for QTasks 1.x."""

    def __init__(self, name: str = "shout") -> None:
        super().__init__(name=name)
        self.handlers = {
            "broker_add_before": self.mark,
            "task_executor_args_replace": self.shout,
            "task_executor_run_task": self.sign,
        }

    async def start(self, *args: Any, **kwargs: Any) -> None:
        print("shout started", flush=True)

    async def stop(self, *args: Any, **kwargs: Any) -> None:
        print("shout stopped", flush=True)

    async def trigger(self, name: str, **kwargs: Any) -> dict[str, Any] | None:
        handler = self.handlers.get(name)
        return await handler(**kwargs) if handler else None

    async def mark(self, broker: Any, storage: Any, model: Any) -> dict[str, Any]:
        model.shouted = True
        return {"model": model}

    async def shout(
        self, task_executor: Any, args: list[Any], kw: dict[str, Any], args_info: Any
    ) -> dict[str, Any]:
        return {"args": [arg.upper() for arg in args]}

    async def sign(self, task_executor: Any, result: Any) -> dict[str, Any]:
        return {"result": {**result, "by": self.name}}


def make(url: str | None = None) -> QueueTasks:
    """The application; `None` takes QTASKS_URL."""
    application = QueueTasks(url=url, plugins=[CompatPlugin(ShoutPlugin())])
    application.include_router(router)
    return application


app = make()
