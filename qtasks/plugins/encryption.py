"""encryption: arguments, results and what may show them are stored encrypted (AES-256-GCM)."""

from __future__ import annotations

import hashlib
import logging
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qtasks import (
    EncodeError,
    Starter,
    Storage,
    Task,
    TaskDefer,
    TaskPrioritySchema,
    TaskStatusCancelSchema,
    TaskStatusErrorSchema,
    TaskStatusNewSchema,
    decode,
    encode,
    hookimpl,
)
from qtasks.plugins.at_rest import AtRest, AtRestError, Ended, Place

log = logging.getLogger("qtasks.plugins")

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class KeyMissingError(AtRestError):
    """A value is encrypted with a key that this process does not have. Nothing is lost: add the key to `keys`."""


class NotAuthenticError(AtRestError):
    """A value was not encrypted for this place, or was changed since. It is left in the store as it is."""


class EncryptionPlugin(AtRest):
    """Encrypts arguments, results, items of streams, progress, tracebacks and the reasons of cancellations.

    All processes of an application need it, those that only read results too. Each value is bound to its task and
    field, so that none can be put in the place of another.

    Parameters:
        keys: each 32 bytes, or their base64; `EncryptionPlugin.new_key()` draws one. The first encrypts, all of
            them decrypt. A key is found by its id, which is made of the key itself.
        accept_plaintext: read values that are not encrypted. For the time in which an application goes over: who
            can write to the store can then add tasks of their own.
        missing_key_delay: seconds for which a worker puts a task back whose key it does not have.

    Raises:
        ValueError: `keys` is empty, or one is not a key.
    """

    qtasks_name = "encryption"
    qtasks_secret = True  # traces keep no values then
    mark: ClassVar[str] = "sealed:1:"

    def __init__(
        self, keys: Iterable[bytes | str], *, accept_plaintext: bool = False, missing_key_delay: float = 10.0
    ) -> None:
        ring = [_key(key) for key in keys]
        if not ring:
            raise ValueError("encryption needs at least one key: EncryptionPlugin.new_key() draws one")
        self._keys = {_key_id(key): key for key in ring}
        self._active = _key_id(ring[0])
        self._accept_plaintext = accept_plaintext
        self._missing_key_delay = missing_key_delay

    @staticmethod
    def new_key() -> str:
        """A new random key, in base64."""
        return urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys, that of the active one first."""
        return tuple(self._keys)

    # --- One value ------------------------------------------------------------------------------

    def shut(self, place: Place, value: Any) -> str:
        """The value encrypted with the active key."""
        try:
            raw = encode(value)
        except EncodeError as error:
            # Its message may name a key of a dict; this one is free of what the value holds.
            raise AtRestError(
                f"{place.field} of task {place.uuid} cannot be written as JSON, so it cannot be encrypted"
            ) from error
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._cipher(self._active, place).encrypt(nonce, raw, place.field.encode())
        return f"{self.mark}{self._active}:{urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, place: Place, text: str) -> Any:
        """The value that was encrypted.

        Raises:
            KeyMissingError: its key is not among `keys`.
            NotAuthenticError: it was changed, or belongs to another place.
        """
        key_id, _, data = text[len(self.mark) :].partition(":")
        if key_id not in self._keys:
            raise KeyMissingError(
                f"{place.field} of task {place.uuid} is encrypted with the key {key_id!r}; this process has "
                f"{', '.join(self._keys)}: add the key to `keys` of the plugin encryption"
            )
        try:
            raw = urlsafe_b64decode(data)
            nonce, sealed = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
            return decode(self._cipher(key_id, place).decrypt(nonce, sealed, place.field.encode()))
        except (InvalidTag, Base64Error, ValueError) as error:
            raise NotAuthenticError(
                f"{place.field} of task {place.uuid} was not encrypted for this task and field with the key "
                f"{key_id!r}, or was changed since"
            ) from error

    def _cipher(self, key_id: str, place: Place) -> AESGCM:
        # A key of its own for each task: it binds values to their task, and the number of values for which random
        # nonces are safe (2^32 per key) then counts for each task alone.
        context = place.uuid.bytes + place.app.encode()
        key = hashlib.blake2b(
            context, digest_size=KEY_BYTES, key=self._keys[key_id], person=b"qtasks task key"
        )
        return AESGCM(key.digest())

    def bare(self, place: Place) -> None:
        """Raises `NotAuthenticError`, unless plaintext is accepted."""
        if not self._accept_plaintext:
            raise NotAuthenticError(
                f"{place.field} of task {place.uuid} is not encrypted: if it was added before encryption was turned "
                "on, use accept_plaintext=True until those tasks are done"
            )

    # --- Into the store -------------------------------------------------------------------------

    @hookimpl
    def starter_start(self, starter: Starter) -> None:
        """Warns where the digests of arguments are not keyed: short arguments could be guessed from them."""
        if starter.config.digest_key is None:
            log.warning(
                "encryption: QTASKS_DIGEST_KEY is not set. Each record keeps a digest of its arguments, from which "
                "arguments that have few possible values can be guessed"
            )

    @hookimpl(trylast=True, after="compression")
    def storage_add(
        self, storage: Storage, uuid: UUID, task_status: TaskStatusNewSchema
    ) -> Mapping[str, TaskStatusNewSchema]:
        """Encrypts the arguments."""
        return {"task_status": self.shut_new(storage, uuid, task_status)}

    @hookimpl(trylast=True, after="compression")
    def storage_update(self, storage: Storage, uuid: UUID, kw: dict[str, Any]) -> dict[str, Any]:
        """Encrypts progress, the items of a stream and the traceback of an attempt that is repeated."""
        changed = self.shut_fields(storage, uuid, kw)
        if kw.get("traceback"):
            changed["traceback"] = self._shut_text(storage, uuid, "traceback", kw["traceback"])
        return changed

    @hookimpl(trylast=True, after="compression")
    def broker_remove_finished_task(
        self, storage: Storage, task_broker: TaskPrioritySchema, model: Ended
    ) -> Ended:
        """Encrypts the result, or what went wrong."""
        uuid = task_broker.uuid
        model = self._shut_arguments(storage, uuid, self.shut_end(storage, uuid, model))
        if isinstance(model, TaskStatusErrorSchema):
            return replace(model, traceback=self._shut_text(storage, uuid, "traceback", model.traceback))
        if isinstance(model, TaskStatusCancelSchema):
            return replace(
                model, cancel_reason=self._shut_text(storage, uuid, "cancel_reason", model.cancel_reason)
            )
        return model

    def _shut_arguments(self, storage: Storage, uuid: UUID, model: Ended) -> Ended:
        """They are those at rest, unless a plugin replaced them by what the task was called with."""
        bare: dict[str, Any] = {}
        if not (len(model.args) == 1 and self.is_shut(model.args[0])):
            bare["args"] = model.args
        if not (len(model.kwargs) == 1 and self.is_shut(model.kwargs.get(self.mark))):
            bare["kwargs"] = model.kwargs
        return replace(model, **self.shut_fields(storage, uuid, bare)) if bare else model

    def _shut_text(self, storage: Storage, uuid: UUID, field: str, text: str) -> str:
        """Shortens the text first where it would be cut when it is stored: half a ciphertext is worth nothing."""
        place, limit = Place(storage.app_name, uuid, field), storage.config.max_traceback
        shut = self.shut(place, text)
        while len(shut) > limit:
            half = max(1, int(len(text) * limit / len(shut) * 0.45))
            text = f"{text[:half]}\n... (cut) ...\n{text[-half:]}"
            shut = self.shut(place, text)
        return shut

    # --- Out of the store -----------------------------------------------------------------------

    def open_task(self, storage: Storage, task: Task) -> Task:
        """As for every plugin of its kind, and the texts that say how the task ended. What the queue itself
        writes there (a task that was lost with its worker, a client's reason for a cancel) is not encrypted."""
        task = super().open_task(storage, task)
        for field in ("traceback", "cancel_reason"):
            if self.is_shut(text := getattr(task, field)):
                task = replace(task, **{field: self.open(Place(storage.app_name, task.uuid, field), text)})
        return task

    @hookimpl(tryfirst=True)
    def storage_get(self, storage: Storage, result: Task) -> Task:
        """Decrypts, so that all other plugins and the function see the values. What cannot be opened goes on as it is
        stored: `qtasks_get` tells a client of it, `broker_add_worker` keeps it from running."""
        try:
            return self.open_task(storage, result)
        except AtRestError as error:
            return replace(result, args=(_Locked(error),))

    @hookimpl(tryfirst=True)
    def qtasks_get(self, task: Task) -> None:
        """Raises `KeyMissingError` or `NotAuthenticError` for what cannot be opened."""
        if task.args and isinstance(task.args[0], _Locked):
            raise task.args[0].error

    @hookimpl(tryfirst=True)
    def broker_add_worker(self, args: tuple[Any, ...]) -> None:
        """Puts a task back whose key is not there. Its delivery is returned, so that it waits as long as it takes:
        for a worker that has the key. Raises `NotAuthenticError`, which costs a delivery, for what nobody can open.
        """
        if args and isinstance(args[0], _Locked):
            error = args[0].error
            if not isinstance(error, KeyMissingError):
                raise error
            log.warning("encryption: put back for %g s: %s", self._missing_key_delay, error)
            raise TaskDefer(self._missing_key_delay)

    @hookimpl(tryfirst=True)
    def storage_get_all(self, storage: Storage, results: list[Task]) -> list[Task]:
        """Decrypts."""
        return self.open_page(storage, results)


class _Locked:
    """Stands for the arguments of a task that cannot be opened, and knows why. A type of its own: a text that looks
    like an encrypted one may be what a task was called with."""

    __slots__ = ("error",)

    def __init__(self, error: AtRestError) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"<{self.error}>"


def _key(key: bytes | str) -> bytes:
    try:
        raw = key if isinstance(key, bytes) else urlsafe_b64decode(key)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"a key is {KEY_BYTES} bytes, or their base64: EncryptionPlugin.new_key() draws one")
    return raw


def _key_id(key: bytes) -> str:
    return hashlib.blake2b(key, digest_size=8, person=b"qtasks key id").hexdigest()
