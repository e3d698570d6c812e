"""What comes over a connection, however it is cut into packets, and whatever happens to it on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from redis import exceptions as errors

from qtasks.components.redis import RedisLink
from qtasks.components.redis.faults import Disconnected
from qtasks.components.redis.mux import Multiplexer
from qtasks.components.redis.scripts import pack
from qtasks.errors import NotStartedError
from tests.components.test_redis_tls import Certificates
from tests.support.redis_pair import QUEUE, opened, record
from tests.support.redis_server import RedisServer
from tests.support.tcp_proxy import TcpProxy

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
MIB = 1 << 20


@pytest.fixture(params=LOOPS)
def run(request):
    """Runs a coroutine on each kind of event loop."""

    def run(work: Callable[[], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work())

    return run


@asynccontextmanager
async def connected(url: str, timeout: float = 5.0) -> AsyncIterator[Multiplexer]:
    """One connection."""
    mux = Multiplexer(RedisLink(url)._connection, timeout)
    try:
        await mux.open()
        yield mux
    finally:
        await mux.close()


def behind(proxy: TcpProxy, server: RedisServer) -> str:
    """The URL of the server through a proxy."""
    return server.url().replace(str(server.port), str(proxy.port))


async def test_replies_in_any_pieces(server):
    async with TcpProxy(server.port) as proxy:
        proxy.crumbs = 1
        async with connected(behind(proxy, server)) as mux:
            value = bytes(range(256))
            asked = [[b"SET", b"key", value], [b"GET", b"key"], [b"NOSUCH"], [b"MGET", b"key", b"none"]]
            found = await asyncio.gather(*map(mux.call, map(pack, asked)), return_exceptions=True)
    assert isinstance(found.pop(2), errors.ResponseError)
    assert found == [b"OK", value, [value, None]]


async def test_a_connection_that_is_cut_in_the_middle_of_a_reply(server):
    """The half reply is not given to anybody, also not as the beginning of the next one."""
    async with TcpProxy(server.port) as proxy, connected(behind(proxy, server)) as mux:
        await mux.call(pack([b"SET", b"long", b"x" * 1000]))
        await mux.call(pack([b"SET", b"short", b"y"]))
        proxy.left = 500
        asked = [mux.send(pack([b"GET", b"long"])), mux.send(pack([b"GET", b"short"]))]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert list(map(type, found)) == [Disconnected, Disconnected]
        assert await mux.call(pack([b"GET", b"short"])) == b"y"


async def test_what_is_no_reply_ends_the_connection(server):
    async with TcpProxy(server.port) as proxy, connected(behind(proxy, server)) as mux:
        await mux.ready()
        (pair,) = proxy._pairs
        pair.client.write(b"?what\r\n")
        with pytest.raises(Disconnected):
            await mux.call(pack([b"BLPOP", b"nothing", b"0"]))
        assert await mux.call(pack([b"PING"])) == b"PONG"
        (pair,) = proxy._pairs
        pair.client.write(b"+nobody asked\r\n")
        while mux._wire is not None:
            await asyncio.sleep(0.001)
        assert await mux.call(pack([b"PING"])) == b"PONG"


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ([b"NOSUCH"], errors.ResponseError),
        ([b"LPUSH", b"text", b"x"], errors.ResponseError),
        ([b"EVALSHA", b"0" * 40, b"0"], errors.NoScriptError),
        ([b"EVAL", b"return redis.error_reply('READONLY no')", b"0"], errors.ReadOnlyError),
        ([b"EVAL", b"return redis.error_reply('LOADING soon')", b"0"], errors.BusyLoadingError),
        ([b"EVAL", b"return redis.error_reply('MOVED 1 host:7000')", b"0"], errors.MovedError),
        ([b"EVAL", b"return redis.error_reply('NOAUTH please')", b"0"], errors.AuthenticationError),
        ([b"EVAL", b"return redis.error_reply('OOM full')", b"0"], errors.OutOfMemoryError),
        ([b"ACL", b"SETUSER", b"x", b"%what"], errors.ResponseError),
    ],
)
async def test_an_error_is_the_reply_to_its_command_alone(server, command, kind):
    async with connected(server.url()) as mux:
        await mux.call(pack([b"SET", b"text", b"here"]))
        wire = mux._wire
        asked = [
            mux.send(pack([b"GET", b"text"])),
            mux.send(pack(command)),
            mux.send(pack([b"GET", b"text"])),
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert (found[0], type(found[1]), found[2]) == (b"here", kind, b"here")
        assert mux._wire is wire, "the connection goes on"


def test_a_cancelled_caller_leaves_the_others_their_replies(server, run):
    async def work() -> None:
        async with connected(server.url()) as mux:

            async def echo(n: int) -> bytes:
                return await mux.call(pack([b"ECHO", b"%d" % n]))

            callers = [asyncio.create_task(echo(n)) for n in range(60)]
            await asyncio.sleep(0)
            for caller in callers[::3]:
                caller.cancel()
            found = await asyncio.gather(*callers, return_exceptions=True)
        for n, reply in enumerate(found):
            assert isinstance(reply, asyncio.CancelledError) if n % 3 == 0 else reply == b"%d" % n

    run(work)


def test_more_than_a_stalled_server_takes_waits_and_goes_on_in_order(server, run):
    async def work() -> None:
        async with connected(server.url(), timeout=60.0) as mux:
            await mux.call(pack([b"SET", b"list", b""]))
            server.pause()
            try:
                sent = [mux.send(pack([b"SET", b"big", b"x" * MIB])) for _ in range(16)]
                sent += [mux.send(pack([b"APPEND", b"list", b"%d" % n])) for n in range(10)]
                while not mux._wire._full:
                    await asyncio.sleep(0.001)
                sent += [mux.send(pack([b"APPEND", b"list", b"%d" % n])) for n in range(10)]
                assert not any(each.done() for each in sent)
            finally:
                server.resume()
            replies = await asyncio.gather(*sent)
            assert replies == [b"OK"] * 16 + list(range(1, 21))
            assert await mux.call(pack([b"GET", b"list"])) == b"01234567890123456789"
            assert not mux._wire._full

    run(work)


def test_what_was_given_up_unsent_is_not_sent_later(server, run):
    """When its caller was told that the connection is lost, it may have asked again."""

    async def work() -> None:
        async with connected(server.url(), timeout=0.2) as mux:
            await mux.call(pack([b"SET", b"count", b"0"]))
            server.pause()
            try:
                # The end of the first write waits in the transport, the second write before it.
                sent = [mux.send(pack([b"SET", b"big", b"x" * 16 * MIB]) + pack([b"INCR", b"count"]))]
                sent.append(mux.send(pack([b"INCR", b"count"])))
                found = await asyncio.gather(*sent, return_exceptions=True)
            finally:
                server.resume()
            assert {type(each) for each in found} == {Disconnected}
            assert "no reply within 0.2 s" in str(found[-1])
            with server.client() as client:
                while len(client.client_list()) > 1:  # it has read to the end of what it was sent
                    await asyncio.sleep(0.01)
            mux._timeout = 10.0
            assert await mux.call(pack([b"GET", b"count"])) == b"0"

    run(work)


def test_over_tls_on_each_loop(server, run, tmp_path):
    """Large ones both ways, so that a reply is many records of TLS."""

    async def work() -> None:
        certificates = Certificates(tmp_path)
        async with TcpProxy(server.port, tls=certificates.context()) as front:
            own = certificates.client
            files = f"ssl_ca_certs={certificates.ca}&ssl_certfile={own}&ssl_keyfile={own}"
            async with opened(f"rediss://localhost:{front.port}/0?{files}", app="tls") as (
                broker,
                storage,
                _,
                link,
            ):
                tasks = [record(args=(n, "x" * 100_000)) for n in range(30)]
                await broker.add_and_push(tasks, None)
                assert [each.args for each in await storage.get_many([task.uuid for task in tasks])] == [
                    task.args for task in tasks
                ]
                assert await link.notifier.ensure(5.0)
                assert len(await broker.claim_and_start(30, QUEUE, "me", 30.0)) == 30
                await broker.flush()
                await storage.flush()

    run(work)


async def test_a_closed_connection_takes_nothing(server):
    async with connected(server.url()) as mux:
        under_way = mux.send(pack([b"BLPOP", b"nothing", b"0"]))
        await mux.close()
        with pytest.raises(Disconnected):
            await under_way
        with pytest.raises(NotStartedError):
            mux.send(pack([b"PING"]))
        with pytest.raises(NotStartedError):
            await mux.call(pack([b"PING"]))


@pytest.mark.parametrize("durability", ["none", "fsync"])
async def test_who_waits_for_a_connection_is_told_that_it_was_closed(server, durability):
    """Neither cancelled, as if its caller had wanted that, nor forgotten."""
    if durability == "fsync" and not server.knows("waitaof"):
        pytest.skip("the server cannot wait for its disk: it has no WAITAOF")
    async with opened(server.url(), durability=durability) as (broker, storage, config, link):
        for connection in filter(None, (link._mux, link._lane)):
            await connection.reset()
        server.pause()  # it is connected to by the kernel, and does not answer
        try:
            asked = [
                asyncio.create_task(broker.add_and_push([record()], None)),
                asyncio.create_task(storage.get_many([record().uuid])),
            ]
            while link._mux._connecting.done():
                await asyncio.sleep(0.001)
            for part in (broker, storage, config):
                await part.close()
        finally:
            server.resume()
    async with asyncio.timeout(10.0):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in found] == [NotStartedError, NotStartedError]
