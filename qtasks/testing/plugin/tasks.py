"""The tasks that examples are about, one of each kind; run for real where a check goes the whole way.

They take any arguments, and give them back where they give something back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from qtasks import QueueTasks, Router

COROUTINE, FUNCTION, GENERATOR, ASYNC_GENERATOR = "kit.echo", "kit.thread", "kit.items", "kit.stream"
FAILS, RETRIED, ASKS = "kit.fails", "kit.retried", "kit.asks"
ALL = (COROUTINE, FUNCTION, GENERATOR, ASYNC_GENERATOR, FAILS, RETRIED, ASKS)

_router = Router()


def declare(app: QueueTasks) -> None:
    """Declares them in an application."""
    app.include_router(_router)


@_router.task(name=COROUTINE)
async def _echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [*args, *kwargs.values()]


@_router.task(name=FUNCTION)
def _thread(*args: Any, **kwargs: Any) -> list[Any]:
    return [*args, *kwargs.values()]


@_router.task(name=GENERATOR)
def _items(*args: Any, **kwargs: Any) -> Iterator[Any]:
    yield from (*args, *kwargs.values())


@_router.task(name=ASYNC_GENERATOR)
async def _stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    for item in (*args, *kwargs.values()):
        yield item


@_router.task(name=FAILS)
async def _fails(*_args: Any, **_kwargs: Any) -> None:
    raise ValueError("this task always fails")


@_router.task(name=RETRIED, retry=2, retry_delay=1.0)
async def _retried(*_args: Any, **_kwargs: Any) -> None:
    raise ConnectionError("this task always fails, and may be tried again")


@_router.task(name=ASKS, echo=True)
async def _asks(context: Any, *_args: Any, **_kwargs: Any) -> None:
    context.plugin_error("this task asks the plugins for its result")
