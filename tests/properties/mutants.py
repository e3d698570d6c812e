"""Small faults in the chain, each of which a property must catch: `python -m tests.properties.mutants`.

A mutant is a piece of source replaced by another, loaded beside the real chain (`lab.mutated`).
`hint` names the property that is tried first; if it does not fail, all others are.
"""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings

from tests.properties.lab import Lab, mutated
from tests.properties.test_rules import PROPERTIES


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    name: str
    module: str
    old: str
    new: str
    hint: str


COMPILER, RETURNS, RUNTIME = "qtasks.chain.compiler", "qtasks.chain.returns", "qtasks.chain.runtime"
ORDER, WATCHDOG, MODEL = "qtasks.chain.order", "qtasks.chain.watchdog", "qtasks.chain.model"
REGISTRY, CORE, HOOK = "qtasks.manager.registry", "qtasks.manager.core", "qtasks.manager.hook"
INSPECTION = "qtasks.manager.inspection"

MUTANTS = (
    Mutant(
        "every implementation sees the first values",
        COMPILER,
        "{self.values} = _take(_impl{i}, _got, {self.values}, {self.uuid})",
        "_unused = _take(_impl{i}, _got, {self.values}, {self.uuid})",
        "rule_01",
    ),
    Mutant(
        "what a plain function returns is not awaited",
        RUNTIME,
        'return hasattr(value.__class__, "__await__") or (',
        "return False and (",
        "rule_01",
    ),
    Mutant(
        "None in a mapping replaces",
        RETURNS,
        "old if (value := returned.get(param)) is None else",
        "old if (value := returned.get(param, old)) is old else",
        "rule_03",
    ),
    Mutant(
        "None among kwargs replaces",
        RETURNS,
        "            for key, new in returned.items()\n            if new is not None\n",
        "            for key, new in returned.items()\n",
        "rule_03",
    ),
    Mutant(
        "kwargs replace instead of merge",
        RETURNS,
        "return {**current, **fields(impl, returned, current)}",
        "return fields(impl, returned, current)",
        "rule_03",
    ),
    Mutant(
        "the whole kw is merged instead of replaced",
        RETURNS,
        "return kept | fields(impl, whole, current)",
        "return current | fields(impl, whole, current)",
        "rule_03",
    ),
    Mutant(
        "a whole kw loses what is protected",
        RETURNS,
        "return kept | fields(impl, whole, current)",
        "return fields(impl, whole, current)",
        "rule_03",
    ),
    Mutant(
        "a pair is swapped",
        RETURNS,
        "dict(zip(replaces, returned, strict=True))",
        "dict(zip(replaces, returned[::-1], strict=True))",
        "rule_03",
    ),
    Mutant(
        "the first word counts, not the last",
        ORDER,
        "base = sorted(range(len(places)), key=lambda i: places[i].group)",
        "base = sorted(reversed(range(len(places))), key=lambda i: places[i].group)",
        "rule_04",
    ),
    Mutant(
        "NULL is taken for no value",
        RETURNS,
        "    if value is NULL:\n        value = None\n    if adapter is None:",
        "    if value is NULL:\n        value = 0\n    if adapter is None:",
        "rule_05",
    ),
    Mutant(
        "NULL is not checked against the type",
        RETURNS,
        "    if value is NULL:\n        value = None\n    if adapter is None:",
        "    if value is NULL:\n        return None\n    if adapter is None:",
        "rule_05",
    ),
    Mutant("tryfirst is ignored", ORDER, "0 if self.tryfirst else 1", "1", "rule_06"),
    Mutant(
        "a trylast group runs newest first, as pluggy lists it",
        REGISTRY,
        "+ trylast[::-1]",
        "+ trylast",
        "rule_06",
    ),
    Mutant("after is ignored", ORDER, "successors[j].add(i)", "pass", "rule_06"),
    Mutant("before means after", ORDER, "for name in place.before:", "for name in place.after:", "rule_06"),
    Mutant(
        "a circle is broken in silence",
        ORDER,
        "    if len(result) < len(places):",
        "    result += [i for i in base if waiting[i]]\n    if len(result) < len(places):",
        "rule_06",
    ),
    Mutant(
        "a circle leaves the plugin registered",
        REGISTRY,
        "            super().unregister(name=name)\n            raise\n",
        "            raise\n",
        "rule_11",
    ),
    Mutant(
        "a wrapper is forgotten",
        COMPILER,
        "for i in range(len(self.wrappers)):",
        "for i in range(1, len(self.wrappers)):",
        "rule_07",
    ),
    Mutant(
        "wrappers close from the outside in",
        RUNTIME,
        "self._opened.pop()",
        "self._opened.pop(0)",
        "rule_07",
    ),
    Mutant(
        "what a wrapper returns is ignored",
        RUNTIME,
        "values = self._take(impl, returned, values, self._uuid)",
        "self._take(impl, returned, values, self._uuid)",
        "rule_07",
    ),
    Mutant(
        "a wrapper cannot turn a failure",
        RUNTIME,
        "values = self._take(impl, returned, values, self._uuid)\n        return values, None",
        "values = self._take(impl, returned, values, self._uuid)\n        return values, fault",
        "rule_07_wrappers_see",
    ),
    Mutant(
        "a wrapper swallows a cancellation",
        RUNTIME,
        "        if fault is not None and not isinstance(fault, Exception):\n            return values, fault\n",
        "",
        "rule_07_wrappers_see",
    ),
    Mutant(
        "a failing wrapper does not name itself",
        RUNTIME,
        "                if raised is not fault:\n                    fault, error = self._turned(impl, raised, fault)",
        "                if raised is not fault:\n                    fault = raised",
        "rule_07_wrappers_see",
    ),
    Mutant(
        "values are not validated",
        RETURNS,
        "        return adapter.validate_python(value)",
        "        return value",
        "rule_08",
    ),
    Mutant(
        "an unknown key is ignored",
        RETURNS,
        "            if key not in replaces:\n                raise _unknown(impl, key, replaces)",
        "            if key not in replaces:\n                pass",
        "rule_08",
    ),
    Mutant(
        "a protected key may change",
        RETURNS,
        "if key in current and current[key] == value:",
        "if key in current:\n                return value\n            if key in current:",
        "rule_08_a_wrong_key",
    ),
    Mutant(
        "a pair of three is a pair",
        RETURNS,
        "or len(returned) != 2:",
        "or len(returned) < 2:",
        "rule_08_a_wrong_shape",
    ),
    Mutant(
        "signals raise",
        MODEL,
        "        if not self.trigger.signal:\n            return False",
        "        return False",
        "rule_09_signals_raise",
    ),
    Mutant(
        "replacements isolate",
        MODEL,
        "        if not self.trigger.signal:\n            return False",
        "        if not self.trigger.signal:\n            return True",
        "rule_09",
    ),
    Mutant("on_error=isolate is ignored", MODEL, 'if self.on_error == "isolate":', "if False:", "rule_09"),
    Mutant(
        "raise takes effect where the work must go on",
        MODEL,
        'self.on_error != "raise" or self.trigger.must_go_on',
        'self.on_error != "raise"',
        "rule_09_signals_raise",
    ),
    Mutant("failures are not counted", CORE, "impl.trigger.name] += 1", "impl.trigger.name] += 0", "rule_09"),
    Mutant(
        "an error blames the plugin that a nested call blamed",
        RUNTIME,
        "error.plugin == impl.plugin and error.trigger == trigger.name",
        "error.plugin",
        "rule_09",
    ),
    Mutant(
        "what waits has no deadline",
        WATCHDOG,
        "        if not limit:\n",
        "        if limit:\n",
        "rule_09_plugin_timeout",
    ),
    Mutant(
        "a deadline leaves the task cancelled",
        WATCHDOG,
        "remaining = self.task.uncancel()",
        "pass",
        "rule_09_plugin_timeout",
    ),
    Mutant(
        "a swallowed deadline counts as success",
        COMPILER,
        'yield f"if _run[{runtime.GUARD}] is not None: _late(_impl{i}, _run)"',
        'yield ""',
        "rule_09_plugin_timeout",
    ),
    Mutant(
        "a veto is lost",
        RUNTIME,
        "    if isinstance(fault, TaskControl):\n        raise fault\n",
        "    if isinstance(fault, TaskControl):\n        return\n",
        "rule_10",
    ),
    Mutant(
        "a veto is isolated",
        RUNTIME,
        "    if isinstance(fault, TaskControl):\n        raise fault\n",
        "",
        "rule_10",
    ),
    Mutant(
        "control flow steers everywhere",
        RUNTIME,
        "isinstance(error, TaskControl) and trigger.control_flow and not trigger.signal",
        "isinstance(error, TaskControl)",
        "rule_10",
    ),
    Mutant(
        "a defer skips the plugins after it",
        RUNTIME,
        "    if not isinstance(fault, TaskDefer):\n        settle(",
        "    if True:\n        settle(",
        "rule_10_a_defer",
    ),
    Mutant(
        "the shortest defer wins",
        RUNTIME,
        "fault.seconds > defer.seconds",
        "fault.seconds < defer.seconds",
        "rule_10_a_defer",
    ),
    Mutant(
        "a defer carries no values",
        COMPILER,
        'yield f"    _defer.values = {self.values}"',
        'yield "    pass"',
        "rule_10_a_defer",
    ),
    Mutant(
        "a keyword-only parameter is let through",
        INSPECTION,
        "elif parameter.kind is parameter.KEYWORD_ONLY:",
        "elif False:",
        "rule_11",
    ),
    Mutant(
        "a parameter may have a default",
        INSPECTION,
        "elif parameter.default is not parameter.empty:",
        "elif False:",
        "rule_11",
    ),
    Mutant(
        "a misspelled trigger is silent",
        INSPECTION,
        'if options.get("optionalhook"):\n                continue',
        "if True:\n                continue",
        "rule_11",
    ),
    Mutant(
        "kwargs are merged in place",
        RETURNS,
        "return {**current, **fields(impl, returned, current)}",
        "current.update(fields(impl, returned, current))\n        return current",
        "rule_12",
    ),
    Mutant(
        "a stale plan is used again",
        HOOK,
        "            del self.__dict__[name]\n        self._made.clear()",
        "            pass\n        self._made.clear()",
        "rule_13_a_running",
    ),
    Mutant(
        "pm.pluggy.unregister leaves the plan as it is",
        REGISTRY,
        "            return super().unregister(plugin, name)\n        finally:\n            self._changed()",
        "            return super().unregister(plugin, name)\n        finally:\n            pass",
        "rule_13_a_running",
    ),
    Mutant(
        "nesting one deeper is let through",
        COMPILER,
        "if _parent[0] >= {MAX_NESTING}:",
        "if _parent[0] > {MAX_NESTING}:",
        "rule_13_nesting",
    ),
    Mutant(
        "a run is never left, so every later one nests in it",
        COMPILER,
        '        yield "_run_is(_parent)"\n        yield "_run[0] = 0; _run[1] = None"\n        yield f"return',
        '        yield f"return',
        "rule_01",
    ),
)


def kill(mutant: Mutant) -> str | None:
    """The first property that fails on a mutant; `None` if it survives."""
    lab = mutated(mutant.module, mutant.old, mutant.new)
    names = sorted(PROPERTIES, key=lambda name: not name.startswith(f"test_{mutant.hint}"))
    return next((name for name in names if _fails(name, lab)), None)


def _fails(name: str, lab: Lab) -> bool:
    strategy, check = PROPERTIES[name]

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def examine(case: object) -> None:
        check(lab, case)

    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            examine()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return True
    else:
        return False
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    """Prints mutant and killer, and fails if one survives."""
    survivors = 0
    for mutant in MUTANTS:
        killer = kill(mutant)
        survivors += killer is None
        sys.stdout.write(f"{mutant.name:<55} {killer or 'SURVIVES'}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(MUTANTS)} mutants, {survivors} survive\n")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
