"""Keeps a second process away from an app one of whose stores processes cannot share."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from qtasks.errors import ExclusiveError, TransientError

if TYPE_CHECKING:
    from qtasks.app import QueueTasks
    from qtasks.components.broker import Broker
    from qtasks.components.storage import Storage

log = logging.getLogger("qtasks.starter")

TTL = 15.0
"""Seconds after which the id of a process that died is free again."""


class Exclusive:
    """The app's exclusive id in the shared one of its two stores, renewed while the app runs."""

    def __init__(self, shared: Broker | Storage, owner: str) -> None:
        self._shared = shared
        self._owner = owner
        self._renewing = asyncio.create_task(self._renew(), name="qtasks-exclusive")

    @classmethod
    async def take(cls, app: QueueTasks, owner: str) -> Exclusive | None:
        """Takes the id where the pairing needs it.

        Parameters:
            owner: names this process. Who tries again after a `TransientError` gives the same one.

        Raises:
            ExclusiveError: another process has it.
            TransientError: the store is away; whether the id was taken is not known.
        """
        broker, storage = app.broker, app.storage
        if broker.capabilities.shared == storage.capabilities.shared:
            return None
        shared: Broker | Storage = broker if broker.capabilities.shared else storage
        if not await shared.hold_exclusive(owner, TTL):
            other = storage if shared is broker else broker
            raise ExclusiveError(
                f"another process runs app {app.name!r}: {type(other).__name__} is not shared between processes. "
                f"Stop the other process (its claim ends {TTL:.0f} s after its death), or use a shared backend"
            )
        return cls(shared, owner)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(TTL / 3)
            try:
                if not await self._shared.hold_exclusive(self._owner, TTL):
                    log.error("another process took over this app's exclusive id")
            except TransientError as error:
                log.warning("the exclusive id could not be renewed, trying again: %s", error)

    async def release(self) -> None:
        """Gives the id back."""
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        try:
            await self._shared.release_exclusive(self._owner)
        except TransientError as error:
            log.warning("the exclusive id is not given back; it ends by itself: %s", error)
