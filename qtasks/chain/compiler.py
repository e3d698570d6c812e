"""Makes one async function of one trigger and its implementations: the chain, unrolled.

A trigger fires some twenty times per task, so its chain is written out as source: explicit
keyword-only parameters, one call per implementation with just the arguments it takes, checks on
returned values only. It is bound to the implementations it was made with, so a chain that runs
keeps its plan whatever is registered meanwhile (rule 13).

A chain of plain functions is one coroutine. A chain with an asynchronous implementation is two:
the inner one has the implementations, and the outer one takes its first step by hand. Most
implementations never wait; then the first step is the last one, and no timer was ever needed.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import lru_cache
from itertools import count
from threading import get_ident
from time import perf_counter
from types import CodeType
from typing import Any, TypeAlias

from qtasks.chain import runtime
from qtasks.chain.model import MAX_NESTING, Implementation, Trigger
from qtasks.chain.returns import taker

Chain: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


def compile_chain(trigger: Trigger, implementations: Sequence[Implementation], host: runtime.Host) -> Chain:
    """The function that fires a trigger.

    Parameters:
        trigger: what is fired.
        implementations: in the order in which they run; wrappers among them, the outermost first.
        host: told of failures and calls.

    Returns:
        An async function of the trigger's parameters, all keyword-only, that gives the final values
        of the replaceable ones: the value itself if there is one, a tuple if there are more, `None`
        for a signal.
    """
    wrappers = [impl for impl in implementations if impl.wrapper]
    chained = [impl for impl in implementations if not impl.wrapper]
    source = "\n".join(_Writer(trigger, wrappers, chained, host).lines()) + "\n"
    namespace: dict[str, Any] = {
        "awaitable": runtime.awaitable,
        "by_hand": next,
        "clock": perf_counter,
        "DONE": runtime.DONE,
        "finish": runtime.finish,
        "home": host.thread,
        "host": host,
        "impls": tuple(chained),
        "late": runtime.late,
        "resume": runtime.resume,
        "running": runtime.running.get,
        "run_is": runtime.running.set,
        "settle": runtime.settle,
        "settle_later": runtime.settle_later,
        "take": None if trigger.signal else taker(trigger),
        "tell": runtime.tell,
        "tell_idle": runtime.tell_idle,
        "thread": get_ident,
        "too_deep": runtime.too_deep,
        "trigger": trigger,
        "verdict": runtime.verdict,
        "watchdog": host.watchdog,
        "Wrapped": runtime.Wrapped,
        "wrong_thread": runtime.wrong_thread,
    }
    for i, impl in enumerate(wrappers):
        namespace[f"wrapper{i}"] = impl
    for i, impl in enumerate(chained):
        namespace[f"impl{i}"] = impl
        namespace[f"call{i}"] = impl.function
    # A parameter may have any name, also one of those above; see _Writer on how they stay apart.
    namespace = {f"_{name}": value for name, value in namespace.items()}
    exec(_code(trigger.name, source), namespace)  # noqa: S102 - made of identifiers, see _Writer
    chain: Chain = namespace[trigger.name]
    return chain


def compile_switch(trigger: Trigger, plain: Chain, watched: Chain, when: Callable[[], object]) -> Chain:
    """The function that fires a trigger by one chain while something is true, and by another otherwise.

    Parameters:
        plain: while it is not.
        watched: while `when()` is true, in the context of the caller.
    """
    params = ", ".join(trigger.params)
    given = ", ".join(f"{name}={name}" for name in trigger.params)
    source = (
        f"def {trigger.name}({'*, ' * bool(params)}{params}):\n"
        f"    return _watched({given}) if _when() else _plain({given})\n"
    )
    namespace: dict[str, Any] = {"_plain": plain, "_watched": watched, "_when": when}
    exec(_code(trigger.name, source), namespace)  # noqa: S102 - made of identifiers
    switch: Chain = namespace[trigger.name]
    return switch


@lru_cache(maxsize=1024)
def _code(name: str, source: str) -> CodeType:
    filename = f"<chain {name} {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return compile(source, filename, "exec")


_numbers = count(1)


class _Writer:
    """Writes the source of one chain.

    All names but the trigger's parameters begin with an underscore, which no parameter does.
    """

    def __init__(
        self,
        trigger: Trigger,
        wrappers: Sequence[Implementation],
        chained: Sequence[Implementation],
        host: runtime.Host,
    ) -> None:
        self.trigger = trigger
        self.wrappers = wrappers
        self.chained = chained
        self.host = host
        self.observed = bool(host.observers)
        self.waits = any(impl.asynchronous for impl in chained)
        self.uuid = "uuid" if "uuid" in trigger.params else "None"
        self.given = "{" + ", ".join(f"{name!r}: {name}" for name in trigger.params) + "}"

    @property
    def values(self) -> str:
        """The replaceable values, as the caller gets them."""
        replaces = self.trigger.replaces
        if not replaces:
            return "None"
        return replaces[0] if len(replaces) == 1 else f"({', '.join(replaces)})"

    def lines(self) -> Iterator[str]:
        """The whole source."""
        name = self.trigger.name
        params = ", ".join(self.trigger.params)
        header = f"async def {name}(*, {params}):" if params else f"async def {name}():"
        if not self.wrappers and not self.chained:
            yield header
            if self.host.idle_observers:
                yield f"    _tell_idle(_host, _trigger, {self.given}, {self.values})"
            yield f"    return {self.values}"
            return
        if self.waits:
            yield f"async def _inner(_run, {params}):"
            yield from _indented(self._body())
            yield f"    _run[{runtime.RESULT}] = {self.values}"
            yield header
            yield from _indented(self._home())
            yield from _indented(self._outer(params))
        else:
            yield header
            yield from _indented(self._home())
            yield from _indented(self._body())
            yield f"    return {self.values}"

    def _home(self) -> Iterator[str]:
        if self.host.thread is not None:
            yield "if _thread() != _home: _wrong_thread(_trigger)"

    def _outer(self, params: str) -> Iterator[str]:
        """Takes the first step of the inner coroutine by hand.

        `runtime.enter` and `leave` are written out here: calling them would cost as much as they do.
        """
        yield "_parent = _running()"
        yield "if _parent is None:"
        yield "    _run = [1, None, _impls, 0, None, None]"
        yield "else:"
        yield f"    if _parent[0] >= {MAX_NESTING}: _too_deep(_parent, _impls)"
        yield "    _run = [_parent[0] + 1, _parent, _impls, 0, None, None]"
        yield "_run_is(_run)"
        yield "try:"
        yield f"    _step = _inner(_run, {params}).__await__()"
        yield "    _waiting = _by_hand(_step, _DONE)"
        yield "    if _waiting is not _DONE:"
        yield "        await _resume(_step, _waiting, _run, _watchdog)"
        yield "except GeneratorExit:"
        yield "    raise"
        yield "except BaseException:"
        yield "    _run_is(_parent)"
        yield "    _run[0] = 0; _run[1] = None"
        yield "    raise"
        yield "_run_is(_parent)"
        yield "_run[0] = 0; _run[1] = None"
        yield f"return _run[{runtime.RESULT}]"

    def _body(self) -> Iterator[str]:
        if not self.wrappers:
            yield from self._chain()
            return
        yield f"_wrapped = _Wrapped(_trigger, _host, _take, {self.uuid}, {self.given}, {self.values})"
        yield "_broken = None"
        yield "try:"
        for i in range(len(self.wrappers)):
            yield f"    _wrapped.open(_wrapper{i})"
        yield from _indented(self._chain("_wrapped.defer"))
        yield "except BaseException as _error:"
        yield "    _broken = _error"
        yield "try:"
        assign = f"{self.values} = " if self.trigger.replaces else ""
        yield f"    {assign}_wrapped.close({self.values}, _broken)"
        yield "finally:"
        yield "    _broken = None"  # its traceback holds this frame

    def _chain(self, defer: str = "None") -> Iterator[str]:
        timed = False
        if self.trigger.defers:
            yield f"_defer = {defer}"
        for i, impl in enumerate(self.chained):
            if impl.timeout and not impl.asynchronous and not timed:
                yield "_now = _clock()"
                timed = True
            if self.observed:
                yield from self._observed(i, impl)
            else:
                yield from self._plain(i, impl)
            if impl.asynchronous or not impl.timeout:
                timed = False
        if self.trigger.defers:
            yield "if _defer is not None:"
            yield f"    _defer.values = {self.values}"
            yield "    try: raise _defer"
            yield "    finally: _defer = None"

    def _plain(self, i: int, impl: Implementation) -> Iterator[str]:
        if self.waits:
            yield f"_run[{runtime.INDEX}] = {i}"
        yield "try:"
        yield from _indented(self._call(i, impl))
        yield "except BaseException as _error:"
        run = "_run" if self.waits else "None"
        yield f"    {self._settle(i, f'_verdict(_impl{i}, {run}, _error)')}"
        if impl.timeout and not impl.asynchronous:
            yield "    _now = _clock()"

    def _observed(self, i: int, impl: Implementation) -> Iterator[str]:
        if self.waits:
            yield f"_run[{runtime.INDEX}] = {i}"
        run = "_run" if self.waits else "None"
        yield f"_given = {self.given}; _before = {self.values}; _fault = None; _began = _clock()"
        yield "try:"
        yield "    try:"
        yield from _indented(self._call(i, impl), 2)
        yield "    except BaseException as _error:"
        yield "        _fault = _error"
        yield f"        _fault = _verdict(_impl{i}, {run}, _error)"
        yield f"        {self._settle(i, '_fault')}"
        yield "finally:"
        yield f"    _tell(_host, _impl{i}, _given, _before, {self.values}, _clock() - _began, _fault)"
        yield "    _fault = None"
        if impl.timeout and not impl.asynchronous:
            yield "    _now = _clock()"

    def _settle(self, i: int, fault: str) -> str:
        if self.trigger.defers:
            return f"_defer = _settle_later(_impl{i}, _host, {fault}, _defer)"
        return f"_settle(_impl{i}, _host, {fault})"

    def _call(self, i: int, impl: Implementation) -> Iterator[str]:
        call = f"_call{i}({', '.join(impl.argnames)})"
        if impl.asynchronous:
            yield f"_got = await {call}"
            yield f"if _run[{runtime.GUARD}] is not None: _late(_impl{i}, _run)"
        else:
            yield f"_got = {call}"
            if impl.timeout:
                yield "_then = _clock()"
                yield f"if _then - _now > {impl.timeout!r}: _host.slow(_impl{i}, _then - _now)"
                yield "_now = _then"
            yield "if _got is not None and _awaitable(_got):"
            if self.waits:
                yield "    _got = await _got"
                yield f"    if _run[{runtime.GUARD}] is not None: _late(_impl{i}, _run)"
            else:
                yield f"    _got = await _finish(_impl{i}, _host, _got)"
            if impl.timeout:
                yield "    _now = _clock()"
        if not self.trigger.signal:
            yield "if _got is not None:"
            yield f"    {self.values} = _take(_impl{i}, _got, {self.values}, {self.uuid})"


def _indented(lines: Iterator[str], levels: int = 1) -> Iterator[str]:
    for line in lines:
        yield "    " * levels + line
