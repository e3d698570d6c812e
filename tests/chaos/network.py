"""The network between the processes and a Redis server: a proxy in a thread of its own, which faults can reach."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.support.tcp_proxy import TcpProxy


class Network:
    """Runs a proxy. Its methods may be called from any thread but its own.

    Parameters:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._proxy = TcpProxy(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result()
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self._proxy.port

    def do(self, change: Callable[[TcpProxy], Any]) -> None:
        """Changes the proxy, in its own thread; returns when it is done."""

        async def changed() -> None:
            change(self._proxy)

        asyncio.run_coroutine_threadsafe(changed(), self._loop).result()

    def swallowed(self, timeout: float) -> bool:
        """Waits until a reply has been withheld; False where none was within `timeout` seconds."""
        waiting = asyncio.wait_for(self._proxy.swallowed.wait(), timeout)
        try:
            return bool(asyncio.run_coroutine_threadsafe(waiting, self._loop).result())
        except TimeoutError:
            return False
