"""Callers that come together share calls: groups that take turns, each caller with its own verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from qtasks.components.redis.combine import FLIGHTS, GROUP, Combiner


class Server:
    """Answers when it is told to; the verdict on an item is its double."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], asyncio.Future[None]]] = []
        self.combiner: Combiner[int, int] = Combiner(self.send)

    async def send(self, items: Sequence[int]) -> list[int]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls.append((list(items), answer))
        await answer
        return [2 * item for item in items]

    async def call(self, number: int) -> list[int]:
        return await self.combiner([number])

    @property
    def under_way(self) -> list[tuple[list[int], asyncio.Future[None]]]:
        return [call for call in self.calls if not call[1].done()]


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_alone_is_sent_at_once():
    server = Server()
    for number in range(3):
        caller = asyncio.create_task(server.call(number))
        await asyncio.sleep(0)
        ((items, answer),) = server.under_way
        assert items == [number]
        answer.set_result(None)
        assert await caller == [2 * number]


async def test_a_crowd_travels_in_groups_that_take_turns():
    server, count = Server(), 3 * GROUP + 5
    callers = [asyncio.create_task(server.call(number)) for number in range(count)]
    most = 0
    await turns()
    while server.under_way:
        most = max(most, len(server.under_way))
        server.under_way[0][1].set_result(None)
        await turns()
    assert [await caller for caller in callers] == [[2 * number] for number in range(count)]
    assert sorted(item for items, _ in server.calls for item in items) == list(range(count))
    assert most == FLIGHTS
    # The first one was alone; the others are halved as soon as nothing is under way.
    assert [len(items) for items, _ in server.calls] == [1, count - 1]


async def test_a_crowd_that_comes_again_is_halved():
    server, count, rounds = Server(), 3 * GROUP + 4, 4

    async def calls_again(number: int) -> None:
        for _ in range(rounds):
            assert await server.combiner([number]) == [2 * number]

    callers = [asyncio.create_task(calls_again(number)) for number in range(count)]
    await turns()
    while server.under_way:
        server.under_way[0][1].set_result(None)
        await turns()
    await asyncio.gather(*callers)
    sizes = [len(items) for items, _ in server.calls]
    assert sum(sizes) == rounds * count
    assert sizes[:2] == [1, count - 1]  # nobody knew that more would come
    assert set(sizes[2:-2]) == {count // 2}


async def test_few_who_come_in_one_turn_travel_together():
    server = Server()
    callers = [asyncio.create_task(server.call(number)) for number in range(4)]
    await turns()
    assert [items for items, _ in server.under_way] == [[0]]  # the first one was alone
    server.under_way[0][1].set_result(None)
    await turns()
    assert [items for items, _ in server.under_way] == [[1, 2, 3]]
    again = [asyncio.create_task(server.call(number)) for number in (5, 6)]
    server.under_way[0][1].set_result(None)
    await turns()
    assert [items for items, _ in server.under_way] == [[5, 6]]  # after a crowd nobody is taken for alone
    server.under_way[0][1].set_result(None)
    assert await asyncio.gather(*callers, *again) == [[0], [2], [4], [6], [10], [12]]


async def test_one_that_calls_again_and_again_holds_up_nobody():
    server = Server()

    async def calls_again() -> None:
        for number in range(0, 100, 2):
            await server.combiner([number])  # and nothing in between lets others have a turn

    again = asyncio.create_task(calls_again())
    await turns()
    other = asyncio.ensure_future(server.combiner([1]))
    await turns()
    assert [items for items, _ in server.under_way] == [[0]]
    server.under_way[0][1].set_result(None)
    await turns()
    assert [items for items, _ in server.under_way] == [[1, 2]]
    server.under_way[0][1].set_result(None)
    assert await other == [2]
    while not again.done():
        for _, answer in server.under_way:
            answer.set_result(None)
        await turns()


async def test_an_error_is_that_of_its_group_and_a_caller_that_is_gone_holds_up_nobody():
    server = Server()
    first, gone, third = [asyncio.create_task(server.call(number)) for number in range(3)]
    await turns()
    server.under_way[0][1].set_exception(OSError("cut"))
    await turns()
    with pytest.raises(OSError, match="cut"):
        await first
    gone.cancel()
    server.under_way[0][1].set_result(None)
    assert await third == [4]
    assert gone.cancelled()
