"""Leases renewed from a thread of their own, over a connection of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from qtasks.components.broker import LeaseKeeper
from qtasks.components.primitives import DeliveryHandle, HoldVerdict
from qtasks.components.redis.faults import backend_error
from qtasks.components.redis.scripts import Calls, pack, script
from qtasks.components.redis.target import Target, locate, sync_connection
from qtasks.components.redis.wire import chunks, held, number, queues_of, token


class RedisLeaseKeeper(LeaseKeeper):
    """Extends leases with blocking calls; finds the server by itself: a busy event loop cannot starve it."""

    def __init__(self, target: Target, calls: Calls) -> None:
        self._target = target
        self._calls = calls
        self._connection: Any = None

    def extend(self, handles: Sequence[DeliveryHandle], lease: float) -> list[HoldVerdict]:
        verdicts: list[HoldVerdict] = []
        for part in chunks(handles):
            queues = queues_of(handle.queue for handle in part)
            data = self._calls("extend", [number(lease), *map(token, part)], queues)
            verdicts += held(self._call(data))
        return verdicts

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _call(self, data: bytes) -> bytes:
        try:
            if self._connection is None:
                connection = sync_connection(self._target, locate(self._target, self._calls.prefix))
                connection.connect()
                self._connection = connection
            try:
                return self._exchange(self._connection, data)
            except NoScriptError:
                self._exchange(self._connection, pack([b"SCRIPT", b"LOAD", script("extend").body]))
                return self._exchange(self._connection, data)
        except (RedisError, OSError) as error:
            # A late reply must not be taken for the next one, and the server may have moved.
            self.close()
            raise backend_error(error, self._target.masked) from error

    @staticmethod
    def _exchange(connection: Any, data: bytes) -> bytes:
        connection.send_packed_command([data], check_health=False)
        reply: bytes = connection.read_response(disable_decoding=True)
        return reply
