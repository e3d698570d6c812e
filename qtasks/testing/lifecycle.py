"""What every component does when it is opened, closed, both twice, neither, or in another event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from qtasks.errors import CapabilityError, QTasksError
from qtasks.testing.bench import EVENT_TIMEOUT, Bench, KitFailure

Use = Callable[[Any], Awaitable[Any]]
"""A harmless use of a component."""


async def works_or_says_why(component: Any, use: Use, told: str) -> None:
    """Uses a component where it need not work; then it must say so with an error of qtasks.

    Parameters:
        component: the component.
        use: the use.
        told: in which state it is, for the message.
    """
    try:
        async with asyncio.timeout(EVENT_TIMEOUT):
            await use(component)
    except QTasksError as error:
        if not str(error):
            raise KitFailure(f"the error of a component that is {told} says nothing") from error
    except TimeoutError:
        raise KitFailure(f"a component that is {told} hangs") from None
    except Exception as error:
        raise KitFailure(
            f"a component that is {told} raises {type(error).__name__}, not an error of qtasks: {error}"
        ) from error


async def check_closing(bench: Bench[Any], use: Use) -> None:
    """Close before open, twice, and open again."""
    component = await bench.make()
    await component.close()
    await component.open()
    await use(component)
    await component.close()
    await component.close()
    await works_or_says_why(component, use, "closed")
    await component.open()
    await use(component)


async def check_opening_twice(bench: Bench[Any], use: Use) -> None:
    """A second open is harmless."""
    component = await bench.open()
    await component.open()
    await use(component)
    await component.close()
    await works_or_says_why(component, use, "closed")


async def check_never_opened(bench: Bench[Any], use: Use) -> None:
    """Use before open works or says why not."""
    await works_or_says_why(await bench.make(), use, "not open")


async def check_another_loop(bench: Bench[Any], use: Use) -> None:
    """Use from another event loop works or says why not, and does no harm."""
    component = await bench.open()
    await use(component)
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(works_or_says_why(component, use, "used from another event loop"))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    await bench.within(
        asyncio.to_thread(thread.join, EVENT_TIMEOUT), "the other event loop", EVENT_TIMEOUT + 5
    )
    assert not thread.is_alive(), "a component that is used from another event loop hangs"
    if failed:
        raise failed[0]
    await use(component)


async def check_refusal(opening: Awaitable[Any], capability: str) -> None:
    """What is not declared is refused."""
    try:
        await opening
    except CapabilityError as error:
        if capability not in str(error):
            raise KitFailure(f"the refusal does not name {capability!r}: {error}") from error
    else:
        raise KitFailure(f"the component does not declare {capability!r}, and takes it nevertheless")


async def check_exclusive(bench: Bench[Any]) -> None:
    """The app's exclusive id: one owner at a time, renewed, given back, free after its TTL."""
    component = await bench.open()
    other = await bench.open(like=component)
    elsewhere = await bench.open(like=component, app="kit-2")
    assert await component.hold_exclusive("A", bench.short) is True
    assert await component.hold_exclusive("A", bench.long) is True, "the owner could not renew"
    assert await other.hold_exclusive("B", bench.short) is False, "two owners at the same time"
    assert await elsewhere.hold_exclusive("B", bench.short) is True, "another app is another id"
    await bench.elapse(bench.short)
    assert await other.hold_exclusive("B", bench.short) is False, "a renewed id ended with its first TTL"
    await other.release_exclusive("B")
    assert await other.hold_exclusive("B", bench.short) is False, "who does not have it gave it back"
    await component.release_exclusive("A")
    assert await other.hold_exclusive("B", bench.short) is True
    await bench.elapse(bench.short)

    async def freed() -> bool:
        held: bool = await component.hold_exclusive("A", bench.short)
        return held

    await bench.eventually(freed, "the id of an owner that died is free")
