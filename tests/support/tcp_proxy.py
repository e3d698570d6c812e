"""A TCP proxy between a client and a server of this machine: it delays, withholds, resets, and goes silent."""

from __future__ import annotations

import asyncio
import ssl


class _Pair:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.orphaned = False

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class TcpProxy:
    """Passes bytes on to a port of this machine.

    Parameters:
        port: of the server behind it.
        tls: with it, clients speak TLS to the proxy, which speaks plainly to the server.

    Attributes:
        port: where it listens.
        server_port: of the server behind it; a new one holds for new connections.
        swallowing: whether replies are withheld; what waits for one is then cut off by `cut`.
        delay: seconds that each piece takes longer, there and back.
        crumbs: bytes of a reply that travel at once; `None` passes them on as they come.
        left: bytes of replies that still pass before all connections are cut; `None` is no end.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.server_port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = 0
        self.delay = 0.0
        self.crumbs: int | None = None
        self.left: int | None = None
        self.swallowing = False
        self.swallowed = asyncio.Event()

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets all connections."""
        for pair in self._pairs:
            pair.abort()
        self._pairs.clear()
        self.swallowed.clear()

    def hold(self) -> None:
        """A black hole: connections are taken, and nothing passes until `let_go`. As on a real network nothing in
        the middle of a stream is lost: it arrives late, or its connection is cut."""
        self._passing.clear()

    def let_go(self) -> None:
        """Ends `hold`."""
        self._passing.set()

    def orphan(self) -> None:
        """Makes all connections half-open: the server sees them end, the clients are told nothing."""
        for pair in self._pairs:
            pair.orphaned = True
            pair.server.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What `cut` finds is in its set; a connection that waits here is ended by its client.
        await self._passing.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()  # there is no server: as if the port were closed
            return
        pair = _Pair(writer, back)
        self._pairs.add(pair)
        for pump in (self._requests(reader, pair), self._replies(there, pair)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        try:
            while data := await reader.read(65536):
                await self._held()
                if not pair.orphaned:
                    pair.server.write(data)
                    await pair.server.drain()
        except OSError:
            pass
        self._end(pair)

    async def _replies(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        try:
            while data := await reader.read(65536):
                await self._held()
                if self.swallowing:
                    self.swallowed.set()
                    continue
                for crumb in self._crumbled(data):
                    pair.client.write(crumb)
                    await pair.client.drain()
                    if self.crumbs:
                        await asyncio.sleep(0)  # the client reads it by itself
                if self.left == 0:
                    self.left = None
                    pair.client.close()  # what was passed on arrives, then the end
        except OSError:
            pass
        if not pair.orphaned:
            self._end(pair)

    def _crumbled(self, data: bytes) -> list[bytes]:
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        size = self.crumbs or max(1, len(data))
        return [data[at : at + size] for at in range(0, len(data), size)]

    async def _held(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._passing.wait()

    def _end(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for writer in (pair.client, pair.server):
            writer.close()
