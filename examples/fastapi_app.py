"""FastAPI: the application opens with the server; a request adds a task and may wait for its result.

Run the server with `uvicorn fastapi_app:api`, and the worker with `qtasks -A fastapi_app:queue run`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException

from qtasks import QueueTasks
from qtasks.errors import ResultTimeoutError

queue = QueueTasks()  # the store is QTASKS_URL, or qtasks.db in the current folder


@queue.task(name="thumbnail", retry=3)
async def thumbnail(image: str, width: int) -> dict[str, Any]:
    """Stands for slow work."""
    return {"image": image, "width": width}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Connects with the server and disconnects with it."""
    async with queue:
        yield


api = FastAPI(lifespan=lifespan)


@api.post("/thumbnails", status_code=202)
async def create(image: str, width: int = 100) -> dict[str, str]:
    """Adds a task and answers at once."""
    task = await thumbnail.add_task(image, width)
    return {"uuid": str(task.uuid)}


@api.get("/thumbnails/{uuid}")
async def read(uuid: UUID, wait: float = 0.0) -> dict[str, Any]:
    """The state of a task; `wait` seconds for its result."""
    task = await queue.get(uuid)
    if task is None:
        raise HTTPException(404)
    if wait and not task.finished:
        with suppress(ResultTimeoutError):
            task = await task.wait_result(wait)
    return {"status": task.status, "result": task.returning}
