"""A connection of redis-py whose replies are handed on by the callback of the event loop that reads them.

redis-py connects, speaks TLS and introduces itself; then its socket is taken over. Its own way from the socket to
a reader leads over a stream, a coroutine and a task, which for one command costs more than the command does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from qtasks.errors import FatalError

_MORE = object()

Reply: TypeAlias = Callable[[Any], None]
Lost: TypeAlias = Callable[[BaseException], None]


class Wire(asyncio.Protocol):
    """The socket of a connection: what is written leaves at once, what comes in is given on reply by reply.

    Parameters:
        connection: a connected one, on which nothing is under way.
        reply: is called with each reply; an error that the server answered is one too, of redis-py's classes.
        lost: is called once when the connection ends by itself, with the reason.

    Raises:
        RedisError: the server has closed it already.
        FatalError: this version of redis-py cannot be used.
    """

    def __init__(self, connection: AbstractConnection, reply: Reply, lost: Lost) -> None:
        self._connection = connection
        self._reply = reply
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._turn = False
        self._full = False
        self._ended = False
        self._transport, parse_error = _take_over(connection, self)
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=parse_error, notEnoughData=_MORE
        )

    def write(self, data: bytes, *, alone: bool = False) -> None:
        """Sends a packed command. The first of a turn of the loop leaves at once, the others of that turn share a
        packet after it; what the server does not take yet waits here.

        Parameters:
            data: the command.
            alone: nothing else is under way. It begins no turn then: that costs the loop a look at all its sockets,
                which who adds one task after the other would pay for each.
        """
        if self._turn or self._full:
            self._out.append(data)
            return
        self._transport.write(data)
        if not alone:
            self._turn = True
            self._loop.call_soon(self._end_turn)

    def abort(self) -> None:
        """Ends it at once: what is not sent yet is dropped, and neither `reply` nor `lost` is called any more."""
        self._ended = True
        self._out = []
        self._transport.abort()

    async def close(self) -> None:
        """As `abort`; when it returns, the connection is disconnected."""
        self.abort()
        try:
            await self._connection.disconnect(nowait=True)
        except (RedisError, OSError):
            return  # it is gone, which is what was wanted

    def _end_turn(self) -> None:
        self._turn = False
        if self._out and not self._full:
            out, self._out = self._out, []
            self._transport.write(b"".join(out))

    def _break(self, error: BaseException) -> None:
        if not self._ended:
            self.abort()
            self._lost(error)

    # --- What the event loop calls ------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        gets = self._reader.gets
        try:
            self._reader.feed(data)
            while not self._ended and (reply := gets()) is not _MORE:
                self._reply(reply)
        except InvalidResponse as error:
            self._break(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if not self._turn:
            self._end_turn()

    def connection_lost(self, error: Exception | None) -> None:
        self._break(error or RedisConnectionError("the server closed the connection"))


Connect: TypeAlias = Callable[[Reply, Lost], Awaitable[Wire]]


def _take_over(
    connection: AbstractConnection, protocol: asyncio.Protocol
) -> tuple[asyncio.Transport, Callable[[str], Exception]]:
    """The transport of a connection, from here on with this protocol, and what makes an exception of an error reply.

    redis-py has no public door to either: wanted are a `connection.transport`, and its parser's `parse_error`. This
    is the only place that uses what is private there. After the handshake of RESP2 the server says nothing unasked,
    so nothing can have stayed behind in the reader; that it has gone away can be seen there.
    """
    try:
        reader, writer, parser = connection._reader, connection._writer, connection._parser
        parse_error = parser.parse_error
    except AttributeError as error:
        raise FatalError(
            f"This version of redis-py is not known to qtasks ({error}). Install one that is, such as redis 8"
        ) from error
    if reader is None or writer is None or reader.at_eof() or writer.is_closing():
        raise RedisConnectionError("the server closed the connection")
    transport = cast(asyncio.Transport, writer.transport)
    transport.set_protocol(protocol)
    return transport, parse_error
