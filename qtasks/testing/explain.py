"""Says what a bare `assert` found, where no test runner has rewritten it."""

from __future__ import annotations

import ast
import inspect
import reprlib
import textwrap
from types import FrameType

_repr = reprlib.Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 8
_repr.maxstring = _repr.maxother = 160


def explain(error: AssertionError) -> str:
    """The assertion in its own words, with the values of the names in it; empty where there is no source."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    asserted = _assertion(frame, trace.tb_lineno)
    if asserted is None:
        return ""
    names = {node.id for node in ast.walk(asserted) if isinstance(node, ast.Name)}
    values = [
        f"{name} = {_repr.repr(frame.f_locals[name])}"
        for name in sorted(names.intersection(frame.f_locals) - {"self"})
    ]
    told = f"not so: {ast.unparse(asserted)}"
    return f"{told}, with {', '.join(values)}" if values else told


def _assertion(frame: FrameType, line: int) -> ast.expr | None:
    try:
        lines, first = inspect.getsourcelines(frame.f_code)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):
        return None
    first = max(first, 1)  # a module begins with line 0
    found = [
        node.test
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
        and node.lineno <= line - first + 1 <= (node.end_lineno or node.lineno)
    ]
    return found[-1] if found else None
