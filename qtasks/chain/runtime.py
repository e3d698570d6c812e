"""What compiled chains call while they run: awaiting, failures, wrappers, nesting, observers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from types import GeneratorType, coroutine
from typing import Any, Final, NoReturn

from qtasks.chain.model import MAX_NESTING, Implementation, Observer, PluginCall, Trigger
from qtasks.chain.returns import Take
from qtasks.chain.watchdog import Guard, Watchdog
from qtasks.errors import (
    PluginError,
    PluginNestingError,
    PluginTimeoutError,
    TaskControl,
    TaskDefer,
    WrongLoopError,
)

# A run of a chain that may wait is a list: a slots object would double the cost of a short chain.
# [depth, the run it is nested in, its implementations, index of the current one, result, guard]
Run = list[Any]
DEPTH, PARENT, IMPLS, INDEX, RESULT, GUARD = range(6)

running: ContextVar[Run | None] = ContextVar("qtasks_chain", default=None)

DONE: Final = object()


@dataclass(eq=False, slots=True, kw_only=True)
class Host:
    """What a chain needs from whoever runs it.

    Attributes:
        failed: (implementation, error, isolated) is told of each failure of a plugin.
        slow: (implementation, seconds) is told of a plain function that ran beyond its limit.
        blind: (observer, error) is told of an observer that raised.
        thread: the only thread that may call; `None` is any.
        observers, idle_observers: are told of calls; the latter also of triggers without a plugin.
        watchdog: bounds what waits.
    """

    failed: Callable[[Implementation, BaseException, bool], object]
    slow: Callable[[Implementation, float], object]
    blind: Callable[[Observer, Exception], object]
    thread: int | None = None
    observers: tuple[Observer, ...] = ()
    idle_observers: tuple[Observer, ...] = ()
    watchdog: Watchdog = field(default_factory=Watchdog)


# --- Awaiting -----------------------------------------------------------------------------------


@coroutine
def resume(step: Generator[Any, Any, Any], waiting: Any, run: Run, watchdog: Watchdog) -> Any:
    """Goes on with a chain that had to wait: passes what it waits for to the event loop, and gives
    the implementation that waits a deadline. Returns when the chain is through.
    """
    index = -1
    guard: Guard | None = None
    try:
        while True:
            if run[INDEX] != index:
                index = run[INDEX]
                if guard is not None:
                    watchdog.release(guard)
                guard = run[GUARD] = watchdog.watch(run[IMPLS][index].timeout)
            try:
                sent = yield waiting
            except GeneratorExit:
                step.close()
                raise
            except BaseException as error:
                waiting = step.throw(error)
                if guard is not None and guard.abandoned and run[INDEX] == index:
                    _abandon(step, run[IMPLS][index], guard)
            else:
                waiting = step.send(sent)
    except StopIteration:
        return None
    finally:
        if guard is not None:
            watchdog.release(guard)


def _abandon(step: Generator[Any, Any, Any], impl: Implementation, guard: Guard) -> NoReturn:
    error: BaseException | None = None
    try:
        step.close()
    except RuntimeError as ignored:  # it waits in spite of GeneratorExit too
        error = ignored
    if not guard.take_back():
        raise asyncio.CancelledError
    raise _timeout(impl, "; it went on waiting after it was cancelled twice, so its chain ended") from error


async def finish(impl: Implementation, host: Host, awaitable: Awaitable[Any]) -> Any:
    """Awaits what a plain function returned, in a chain of plain functions only."""
    parent = running.get()
    try:
        run = enter(parent, (impl,))
    except PluginNestingError:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # it will never be awaited, and would warn of that
        raise
    running.set(run)
    try:
        step = _stored(run, awaitable).__await__()
        waiting = next(step, DONE)
        if waiting is not DONE:
            await resume(step, waiting, run, host.watchdog)
        if run[GUARD] is not None:
            late(impl, run)
    except GeneratorExit:
        raise  # this may be another context, whose value is not ours to set
    except BaseException as error:
        leave(run, parent)
        raise verdict(impl, run, error)  # noqa: B904 - a verdict has the cause already
    leave(run, parent)
    return run[RESULT]


async def _stored(run: Run, awaitable: Awaitable[Any]) -> None:
    run[RESULT] = await awaitable


def awaitable(value: object) -> bool:
    """Whether `await` takes this value."""
    return hasattr(value.__class__, "__await__") or (
        isinstance(value, GeneratorType) and bool(value.gi_code.co_flags & 0x100)
    )


def late(impl: Implementation, run: Run) -> None:
    """Ends an implementation that returned only after it had been cancelled for its deadline."""
    guard: Guard = run[GUARD]
    if guard.fired:
        if not guard.take_back():
            raise asyncio.CancelledError
        raise _timeout(impl)


def _timeout(impl: Implementation, more: str = "") -> PluginTimeoutError:
    return PluginTimeoutError(
        f"plugin {impl.plugin!r} ran longer than its plugin_timeout of {impl.timeout} s in trigger "
        f"{impl.trigger.name!r} and was cancelled{more}",
        plugin=impl.plugin,
        trigger=impl.trigger.name,
    )


# --- Nesting and threads ------------------------------------------------------------------------


def enter(parent: Run | None, impls: Sequence[Implementation]) -> Run:
    """A new run, nested in the given one.

    Raises:
        PluginNestingError: it would be nested too deep.
    """
    if parent is None:
        return [1, None, impls, 0, None, None]
    if parent[DEPTH] >= MAX_NESTING:
        too_deep(parent, impls)
    return [parent[DEPTH] + 1, parent, impls, 0, None, None]


def leave(run: Run, parent: Run | None) -> None:
    """Ends a run. What it started in the background is nested in it no longer."""
    running.set(parent)
    run[DEPTH], run[PARENT] = 0, None


def too_deep(parent: Run, impls: Sequence[Implementation]) -> NoReturn:
    """Raises the error that names who called whom."""
    path: list[str] = []
    run: Run | None = parent
    while run is not None:
        impl: Implementation = run[IMPLS][run[INDEX]]
        path.append(f"{impl.plugin!r} in {impl.trigger.name!r}")
        run = run[PARENT]
    inner: Implementation = parent[IMPLS][parent[INDEX]]
    raise PluginNestingError(
        f"triggers are nested deeper than {MAX_NESTING}: trigger {impls[0].trigger.name!r} was reached "
        f"through the plugins {' -> '.join(reversed(path))}; one of them calls the application in a circle",
        plugin=inner.plugin,
        trigger=inner.trigger.name,
    )


def wrong_thread(trigger: Trigger) -> NoReturn:
    """Raises for a call from outside of the application's event loop."""
    raise WrongLoopError(
        f"trigger {trigger.name!r} was called from a thread that is not the one of the application's "
        "event loop; from another thread, use qtasks.sync"
    )


# --- Failures -----------------------------------------------------------------------------------


def verdict(impl: Implementation, run: Run | None, error: BaseException) -> Exception:
    """What an error of an implementation is to the chain: a `PluginError`, or control flow (rules 9, 10).

    Raises:
        BaseException: what is no Exception goes on as it is.
    """
    if isinstance(error, GeneratorExit):
        raise error  # the chain is being closed: nothing of it may run on, whatever else is due
    guard: Guard | None = None if run is None else run[GUARD]
    if guard is not None and guard.fired:
        if guard.take_back():
            timeout = _timeout(impl)
            timeout.__cause__ = error
            return timeout
        if not isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError from error
    if not isinstance(error, Exception) and not _cancelled_by_nobody(error):
        raise error
    trigger = impl.trigger
    if isinstance(error, TaskControl) and trigger.control_flow and not trigger.signal:
        error.plugin, error.trigger = impl.plugin, trigger.name
        return error
    if isinstance(error, PluginNestingError):
        return error
    if isinstance(error, PluginError) and error.plugin == impl.plugin and error.trigger == trigger.name:
        return error
    wrapped = PluginError(
        f"plugin {impl.plugin!r} failed in trigger {trigger.name!r}: {type(error).__name__}: {error}",
        plugin=impl.plugin,
        trigger=trigger.name,
    )
    wrapped.__cause__ = error
    return wrapped


def _cancelled_by_nobody(error: BaseException) -> bool:
    """Whether a CancelledError is the implementation's own: it awaited something that had been cancelled, while
    nobody wants the task cancelled that it runs in. Taken for a real one, it would end whoever fired the trigger.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and not task.cancelling()


def settle(impl: Implementation, host: Host, fault: Exception) -> None:
    """Isolates the fault of a plugin, or raises it (rule 9). Control flow is never isolated (rule 10)."""
    if isinstance(fault, TaskControl):
        raise fault
    isolated = impl.isolated
    host.failed(impl, fault, isolated)
    if not isolated:
        raise fault


def settle_later(
    impl: Implementation, host: Host, fault: Exception, defer: TaskDefer | None
) -> TaskDefer | None:
    """As `settle`, but keeps a `TaskDefer` for the end of the chain; of several, the longest."""
    if not isinstance(fault, TaskDefer):
        settle(impl, host, fault)
        return defer
    return fault if defer is None or fault.seconds > defer.seconds else defer


# --- Wrappers -----------------------------------------------------------------------------------


class Wrapped:
    """The wrappers of one run: opened in order, closed from the inside out (rule 7)."""

    __slots__ = ("_defers", "_given", "_host", "_opened", "_take", "_uuid", "_values", "defer")

    def __init__(
        self, trigger: Trigger, host: Host, take: Take | None, uuid: Any, given: dict[str, Any], values: Any
    ) -> None:
        self._defers = trigger.defers
        self._host = host
        self._take = take
        self._uuid = uuid
        self._given = given
        self._values = values
        self.defer: TaskDefer | None = None
        self._opened: list[tuple[Implementation, Generator[Any, Any, Any], float]] = []

    def open(self, impl: Implementation) -> None:
        """Runs a wrapper up to its yield."""
        began = perf_counter()
        try:
            wrapper = impl.function(*[self._given[name] for name in impl.argnames])
            try:
                next(wrapper)
            except StopIteration:
                raise RuntimeError("the wrapper returned without a yield") from None
        except BaseException as error:
            fault = verdict(impl, None, error)
            self._tell(impl, began, self._values, self._values, fault)
            if self._defers:
                self.defer = settle_later(impl, self._host, fault, self.defer)
            else:
                settle(impl, self._host, fault)
        else:
            self._opened.append((impl, wrapper, began))

    def close(self, values: Any, fault: BaseException | None) -> Any:
        """Gives the outcome to each wrapper, and gives the final values.

        Raises:
            BaseException: the fault, as the wrappers left it.
        """
        while self._opened:
            impl, wrapper, began = self._opened.pop()
            before, error = values, None
            try:
                values, fault = self._closed(impl, wrapper, values, fault)
            except BaseException as raised:
                if raised is not fault:
                    fault, error = self._turned(impl, raised, fault)
            self._tell(impl, began, before, values, error)
        if fault is not None:
            if self._defers and isinstance(fault, TaskDefer):
                fault.values = values
            raise fault
        return values

    def _closed(
        self,
        impl: Implementation,
        wrapper: Generator[Any, Any, Any],
        values: Any,
        fault: BaseException | None,
    ) -> tuple[Any, BaseException | None]:
        try:
            if fault is None:
                wrapper.send(values)
            else:
                wrapper.throw(fault)
        except StopIteration as stop:
            returned = stop.value
        else:
            wrapper.close()
            raise RuntimeError("the wrapper yielded more than once")
        if fault is not None and not isinstance(fault, Exception):
            return values, fault
        if returned is not None and self._take is not None:
            values = self._take(impl, returned, values, self._uuid)
        return values, None

    def _turned(
        self, impl: Implementation, raised: BaseException, fault: BaseException | None
    ) -> tuple[BaseException | None, BaseException]:
        """The fault after a wrapper raised something of its own, and what that was."""
        if fault is not None and not isinstance(fault, Exception):
            return fault, raised
        try:
            own = verdict(impl, None, raised)
            settle(impl, self._host, own)
        except BaseException as final:
            return final, final
        return fault, own

    def _tell(
        self, impl: Implementation, began: float, before: Any, after: Any, error: BaseException | None
    ) -> None:
        if self._host.observers:
            seconds = perf_counter() - began
            tell(self._host, impl, self._given, before, after, seconds, error)


# --- Observers ----------------------------------------------------------------------------------


def tell(
    host: Host,
    impl: Implementation,
    given: dict[str, Any],
    before: Any,
    after: Any,
    seconds: float,
    error: BaseException | None,
) -> None:
    """Tells the observers of one call."""
    call = PluginCall(
        trigger=impl.trigger.name,
        plugin=impl.plugin,
        given=given,
        before=by_name(impl.trigger, before),
        after=by_name(impl.trigger, after),
        seconds=seconds,
        error=error,
        wrapper=impl.wrapper,
    )
    _send(host, host.observers, call)


def tell_idle(host: Host, trigger: Trigger, given: dict[str, Any], values: Any) -> None:
    """Tells the observers of a trigger that no plugin implements."""
    named = by_name(trigger, values)
    call = PluginCall(trigger=trigger.name, plugin="", given=given, before=named, after=named, seconds=0.0)
    _send(host, host.idle_observers, call)


def _send(host: Host, observers: tuple[Observer, ...], call: PluginCall) -> None:
    for observer in observers:
        try:
            observer(call)
        except Exception as error:
            host.blind(observer, error)


def by_name(trigger: Trigger, values: Any) -> dict[str, Any]:
    """The values of a trigger under the names of its parameters."""
    replaces = trigger.replaces
    if len(replaces) == 1:
        return {replaces[0]: values}
    return dict(zip(replaces, values or (), strict=True))
