"""The triggers of the global config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtasks.markers import hookspec

if TYPE_CHECKING:
    from qtasks.components.global_config import GlobalConfig


@hookspec(replaces=("name", "key", "value"), returns="mapping")
def global_config_set(
    global_config: GlobalConfig, name: str, key: str, value: Any
) -> Mapping[str, Any] | None:
    """Replaces parameters before setting the value.

    Fires:
        In `global_config.set`, before the value is written.

    Parameters:
        global_config: the global config.
        name: the name that groups the values.
        key: the key of the value.
        value: the value (JSON).

    Replaces:
        `name`, `key`, `value`: return a mapping with some of these keys; a key that is absent, or
        `None`, is unchanged.

    On failure:
        raised to the caller.

    Example:
        @hookimpl
        def global_config_set(value):
            return {"value": encrypt(value)}
    """


@hookspec(replaces=("result",), returns="value")
def global_config_get(global_config: GlobalConfig, name: str, key: str, result: Any) -> Any:
    """Replaces the retrieved value.

    Fires:
        In `global_config.get`, when the value was read.

    Parameters:
        global_config: the global config.
        name: the name that groups the values.
        key: the key of the value.
        result: the value that was found (JSON); `None` where there is none.

    Replaces:
        `result`: return the new value; `None` leaves it as it is, `qtasks.NULL` sets it to `None`.

    On failure:
        raised to the caller.

    Example:
        @hookimpl
        def global_config_get(result):
            return decrypt(result)
    """


@hookspec(replaces=("result",), returns="value")
def global_config_get_all(
    global_config: GlobalConfig, name: str, result: dict[str, Any]
) -> dict[str, Any] | None:
    """Replaces the result of obtaining all values.

    Fires:
        In `global_config.get_all`, when the values were read.

    Parameters:
        global_config: the global config.
        name: the name that groups the values.
        result: the values under the name, by key.

    Replaces:
        `result`: return the new value; `None` leaves it as it is.

    On failure:
        raised to the caller.

    Example:
        @hookimpl
        def global_config_get_all(result):
            return {key: decrypt(value) for key, value in result.items()}
    """


@hookspec(replaces=("result",), returns="value")
def global_config_get_match(
    global_config: GlobalConfig, match: str, result: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]] | None:
    """Replaces the result of searching by pattern.

    Fires:
        In `global_config.get_match`, when the values were read.

    Parameters:
        global_config: the global config.
        match: the glob that was asked for, compared with `name:key`.
        result: the values that fit, by name and key.

    Replaces:
        `result`: return the new value; `None` leaves it as it is.

    On failure:
        raised to the caller.

    Example:
        @hookimpl
        def global_config_get_match(result):
            return {name: mask(values) for name, values in result.items()}
    """


@hookspec
def global_config_start(global_config: GlobalConfig) -> None:
    """Component startup.

    Fires:
        When the global config starts, with its backend open.

    Parameters:
        global_config: the global config.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        async def global_config_start(global_config):
            await global_config.set("flags", "ready", True)
    """


@hookspec(must_go_on=True)
def global_config_stop(global_config: GlobalConfig) -> None:
    """Stops the component.

    Fires:
        When the global config stops, while its backend is still open.

    Parameters:
        global_config: the global config.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        async def global_config_stop(global_config):
            await global_config.delete("flags", "ready")
    """


@hookspec
def global_config_set_status(global_config: GlobalConfig) -> None:
    """Status setting signal.

    Fires:
        After the sign of life of a running server was written.

    Parameters:
        global_config: the global config.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def global_config_set_status():
            heartbeats.inc()
    """
