"""Runs the Python blocks of one page in their order, in one namespace, in the current folder.

A block whose first line names a file is saved as well; one that is a test file is then run by pytest. Blocks may
use `await` at their top level. The line numbers of a traceback are those of the page.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import blocks


def run(page: Path) -> None:
    """Runs a page.

    Parameters:
        page: the Markdown file.
    """
    module = sys.modules["__main__"]
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    vars(module).update(namespace)
    with asyncio.Runner() as runner:
        for block in blocks(page, "python"):
            if block.saved_as is not None:
                Path(block.saved_as).write_text(block.code)
            tree = ast.increment_lineno(ast.parse(block.code), block.line)
            code = compile(tree, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(eval(code, vars(module)))
            else:
                exec(code, vars(module))
    if suites := [
        block.saved_as for block in blocks(page, "python") if (block.saved_as or "").startswith("test_")
    ]:
        options = [
            "-p",
            "no:cacheprovider",
            "-o",
            "asyncio_mode=auto",
            "-o",
            "asyncio_default_fixture_loop_scope=function",
        ]
        subprocess.run([sys.executable, "-m", "pytest", "-q", *options, *suites], check=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
