"""The settings of an application, from code or from the environment (`QTASKS_…`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import from_json

from qtasks.text import masked

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


PREFIX = "QTASKS_"


class QueueConfig(BaseModel):
    """Settings that hold for one application. Every duration is in seconds. What the code does not say is taken from
    the environment: `QTASKS_LEASE` for `lease`, a list as JSON.
    """

    # Without pydantic-settings, whose other sources nobody needs here: it took 4 MB of every worker and client.
    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str = Field(
        default="sqlite:///qtasks.db", description="Where tasks are kept, unless the code says otherwise."
    )
    concurrency: int = Field(default=100, ge=1, description="Tasks that one worker runs at the same time.")
    threads: int = Field(
        default=32, ge=1, description="Plain functions that one worker runs at the same time."
    )
    queues: tuple[str, ...] = Field(
        default=("default",), description="Queues that a worker serves, in this order."
    )
    claim_batch: int = Field(default=100, ge=1, le=100, description="Tasks claimed in one step at most.")
    lease: Positive = Field(
        default=30.0, description="How long a claimed task stays with its worker unrenewed."
    )
    max_deliveries: int = Field(default=5, ge=1, description="Deliveries of one attempt before it is dead.")
    reconcile_interval: Positive = Field(default=30.0, description="Between two passes of the reconciler.")
    reconcile_age: NotNegative = Field(
        default=30.0, description="Records younger than this are left alone by it."
    )
    missing_grace: Positive = Field(
        default=600.0,
        description="How long an entry without a record, or a task of an unknown name, is kept waiting.",
    )
    max_unsettled: int = Field(
        default=20_000, ge=1, description="Unsettled results above which claiming stops."
    )
    shutdown_timeout: NotNegative = Field(default=25.0, description="Running tasks may finish within this.")
    plugin_timeout: NotNegative = Field(
        default=5.0, description="Bound of one plugin implementation; 0 is none."
    )
    release_delay: Positive = Field(
        default=1.0, description="First delay after a plugin failed before the run."
    )
    release_max_delay: Positive = Field(default=60.0, description="Longest such delay.")
    max_queue: int | None = Field(default=None, ge=1, description="Waiting tasks of one queue at most.")
    max_payload: int = Field(
        default=1024 * 1024, ge=1, description="Bytes of arguments, or of a result, at most."
    )
    max_traceback: int = Field(default=32 * 1024, ge=256, description="Bytes of a traceback at most.")
    result_ttl: Positive = Field(default=86_400.0, description="How long a finished record is kept.")
    dead_ttl: Positive = Field(default=7 * 86_400.0, description="How long a dead record is kept.")
    dead_max: int = Field(default=10_000, ge=0, description="Dead records kept at most.")
    status_ttl: Positive = Field(
        default=30.0, description="How long a server counts as alive after its last sign."
    )
    trace: bool = Field(default=False, description="Record every call of a trigger, for each task.")
    trace_values: Literal["auto", "all", "none"] = Field(
        default="auto",
        description="Whether a trace keeps values; `auto`: unless a plugin such as encryption keeps secrets.",
    )
    durability: Literal["none", "fsync", "replica"] = Field(
        default="none", description="What an enqueue, and the acceptance of a result, wait for."
    )
    digest_key: SecretStr | None = Field(
        default=None,
        description="Keys the digest of the arguments that each record keeps; the same for all that add tasks.",
    )
    strict: bool = Field(
        default=False, description="Refuse to start where tasks could be lost or plugins fail to load."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        found: dict[str, Any] = {}
        for name in cls.model_fields:
            text = os.environ.get(f"{PREFIX}{name.upper()}")
            if text is not None and name not in given:
                found[name] = text
        return {**found, **given}

    # By its field: an error of the whole shows all that was given, passwords too.
    @field_validator("queues", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        try:
            return from_json(given)
        except ValueError:
            raise ValueError(
                f'{PREFIX}QUEUES is a list as JSON, as ["mail", "default"], not {given!r}'
            ) from None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What is shown of it: everything but passwords."""
        for name, value in super().__repr_args__():
            yield name, masked(value) if name == "url" else value
