"""A plain script: it adds tasks, runs them until nothing is left, and prints the results.

Run it with `python examples/script.py`.
"""

import asyncio

from qtasks import QueueTasks

app = QueueTasks(url="memory://")


@app.task
async def square(x: int) -> int:
    """The square of a number."""
    return x * x


async def main() -> None:
    """Adds three tasks and runs them."""
    async with app:
        tasks = [await square.add_task(x) for x in (2, 3, 4)]
        await app.serve(until_idle=True)
        print([(await task.wait_result()).returning for task in tasks])  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
