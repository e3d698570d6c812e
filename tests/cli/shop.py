"""An application for the tests of the command line. It is copied into a folder of its own."""

import asyncio
import os
import signal

from qtasks import QueueTasks

app = QueueTasks("shop", "sqlite:///shop.db")
not_an_app = 3


@app.task(name="add")
def add(a: int, b: int = 1) -> int:
    """Adds two numbers.

    The second line is not for tables.
    """
    return a + b


@app.task(name="fail", queue="mail")
async def fail() -> None:
    raise RuntimeError("no such \x1b[31mluck")


@app.task(name="long")
async def long(seconds: float) -> str:
    print("long began", flush=True)
    await asyncio.sleep(seconds)
    return "slept"


@app.task(name="crash")
async def crash() -> int:
    if not os.path.exists("crashed"):
        open("crashed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()
