"""The triggers of the starter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtasks.markers import hookspec

if TYPE_CHECKING:
    from qtasks.components.starter import Starter


@hookspec
def starter_start(starter: Starter) -> None:
    """Start the Starter component.

    Fires:
        When the starter begins to start the components.

    Parameters:
        starter: the starter.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on. With `on_error="raise"` it is raised.

    Example:
        @hookimpl
        def starter_start():
            logger.info("starting")
    """


@hookspec(must_go_on=True)
def starter_stop(starter: Starter) -> None:
    """Stop the Starter component.

    Fires:
        When the starter has stopped the components, before their connections are closed.

    Parameters:
        starter: the starter.

    Replaces:
        nothing: it is a signal, its return value is ignored.

    On failure:
        logged, counted and isolated; the work goes on, also with `on_error="raise"`.

    Example:
        @hookimpl
        def starter_stop():
            logger.info("stopped")
    """
