"""A TCP proxy that cuts a connection between a command and its reply."""

from __future__ import annotations

import asyncio


class TcpProxy:
    """Passes bytes on to a port of this machine until it is told to stop passing replies.

    Parameters:
        port: of the server behind it.

    Attributes:
        port: where it listens.
        swallowing: whether replies are withheld; what waits for one is then cut off by `cut`.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.swallowing = False
        self.swallowed = asyncio.Event()

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
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
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self.swallowed.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers |= {writer, back}
        for pump in (self._pump(reader, back, False), self._pump(there, writer, True)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool) -> None:
        try:
            while data := await reader.read(65536):
                if replies and self.swallowing:
                    self.swallowed.set()
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()
