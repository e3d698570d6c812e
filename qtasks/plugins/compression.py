"""compression: large arguments, results, stream items and progress are stored compressed (zlib)."""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from uuid import UUID

from qtasks import Storage, Task, TaskPrioritySchema, TaskStatusNewSchema, decode, encode, hookimpl
from qtasks.plugins.at_rest import AtRest, AtRestError, Ended, Place

MIB: Final = 1024 * 1024


class CompressionPlugin(AtRest):
    """Stores values of `minimum` bytes and more compressed, where that makes them smaller.

    `max_payload` of the application then bounds the compressed size. With the plugin `encryption` it compresses
    first, in whatever order the two are registered.

    Parameters:
        minimum: bytes of JSON from which on a value is compressed.
        level: of zlib, 1 (fast) to 9 (small).
        limit: bytes of JSON that a value may have when it is opened, which bounds what a manipulated record can
            make of this process; a larger one is refused when it is stored.
    """

    qtasks_name = "compression"
    mark: ClassVar[str] = "deflate:1:"

    def __init__(self, *, minimum: int = 1024, level: int = 6, limit: int = 64 * MIB) -> None:
        if not 1 <= level <= 9:
            raise ValueError(f"level is 1 to 9, not {level!r}")
        self._minimum = minimum
        self._level = level
        self._limit = limit

    def shut(self, place: Place, value: Any) -> str | None:
        """The value compressed; `None` where it is small, or would not become smaller."""
        raw = encode(value)
        if len(raw) > self._limit:
            raise AtRestError(
                f"{place.field} of task {place.uuid}: {len(raw)} bytes, more than the limit of compression "
                f"({self._limit}); pass a reference to the data instead"
            )
        # A small value that looks like a compressed one is compressed, so that it is not taken for one later.
        looks_shut = bytes(raw).find(self.mark.encode()) >= 0
        if len(raw) < self._minimum and not looks_shut:
            return None
        text = self.mark + urlsafe_b64encode(zlib.compress(raw, self._level)).decode()
        return text if len(text) < len(raw) or looks_shut else None

    def open(self, place: Place, text: str) -> Any:
        """The value that was compressed; raises `AtRestError` where it is damaged, or larger than `limit`."""
        inflater = zlib.decompressobj()
        try:
            raw = inflater.decompress(urlsafe_b64decode(text[len(self.mark) :]), self._limit)
            if inflater.eof:
                return decode(raw)
        except (zlib.error, ValueError) as error:
            raise AtRestError(f"{place.field} of task {place.uuid} is damaged: {error}") from error
        raise AtRestError(
            f"{place.field} of task {place.uuid} is damaged, or larger than {self._limit} bytes: raise `limit` of "
            "compression if it is good"
        )

    @hookimpl(trylast=True, before="encryption")
    def storage_add(
        self, storage: Storage, uuid: UUID, task_status: TaskStatusNewSchema
    ) -> Mapping[str, TaskStatusNewSchema]:
        """Compresses the arguments."""
        return {"task_status": self.shut_new(storage, uuid, task_status)}

    @hookimpl(trylast=True, before="encryption")
    def storage_update(self, storage: Storage, uuid: UUID, kw: dict[str, Any]) -> dict[str, Any]:
        """Compresses progress and the items of a stream."""
        return self.shut_fields(storage, uuid, kw)

    @hookimpl(trylast=True, before="encryption")
    def broker_remove_finished_task(
        self, storage: Storage, task_broker: TaskPrioritySchema, model: Ended
    ) -> Ended:
        """Compresses the result."""
        return self.shut_end(storage, task_broker.uuid, model)

    @hookimpl(tryfirst=True, after="encryption")
    def storage_get(self, storage: Storage, result: Task) -> Task:
        """Opens what was compressed."""
        return self.open_task(storage, result)

    @hookimpl(tryfirst=True, after="encryption")
    def storage_get_all(self, storage: Storage, results: list[Task]) -> list[Task]:
        """Opens what was compressed."""
        return self.open_page(storage, results)
